"""safetensors' lowest functions, beside those of safetensors itself."""

import ast
import inspect
import io
import pathlib

import inrush.numpy
import inrush.torch
import numpy
import pytest
import safetensors
import safetensors.numpy
import safetensors.torch
from conftest import DTYPES
from inrush._dtypes import FRAMEWORK_NAMES

import inrush


def specs(package, arrays):
    return {
        name: package.TensorSpec(
            dtype=word, shape=shape, data_ptr=data.ctypes.data, data_len=data.nbytes
        )
        for name, (word, shape, data) in arrays.items()
    }


@pytest.fixture
def arrays():
    """Random bytes for a tensor of every dtype that a TensorSpec can name."""
    rng = numpy.random.default_rng()
    made = {}
    for name, word in FRAMEWORK_NAMES.items():
        size = max(1, DTYPES[name] // 8)
        made[name] = (word, [2, 3], rng.integers(0, 2, 6 * size, dtype=numpy.uint8))
    return made


def test_bytes_are_the_same(arrays, tmp_path):
    theirs = safetensors.serialize(specs(safetensors, arrays), {"a": "b"})
    assert inrush.serialize(specs(inrush, arrays), {"a": "b"}) == theirs
    inrush.serialize_file(specs(inrush, arrays), tmp_path / "x", metadata={"a": "b"})
    assert (tmp_path / "x").read_bytes() == theirs
    assert sorted(safetensors.deserialize(theirs)) == sorted(inrush.deserialize(theirs))
    assert all(type(one["data"]) is bytearray for _, one in inrush.deserialize(theirs))


def test_specs_say_the_same(arrays):
    for ours, theirs in zip(
        specs(inrush, arrays).values(), specs(safetensors, arrays).values(), strict=True
    ):
        for name in ("dtype", "shape", "data_ptr", "data_len"):
            assert getattr(ours, name) == getattr(theirs, name)
            with pytest.raises(AttributeError):
                setattr(ours, name, 1)
        assert repr(ours) == repr(theirs)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda p: p.TensorSpec(dtype="F32", shape=[1], data_ptr=0, data_len=0), Exception),
        (lambda p: p.TensorSpec("float32", [1], 0, 4), TypeError),
        (lambda p: p.TensorSpec(dtype="int8", shape=[-1], data_ptr=0, data_len=0), OverflowError),
        (lambda p: p.TensorSpec(dtype="int8", shape=["1"], data_ptr=0, data_len=0), TypeError),
        (lambda p: p.serialize({"x": {"dtype": "float32"}}), TypeError),
        (lambda p: p.serialize({}, {"a": 1}), TypeError),
        (lambda p: p.deserialize(b""), Exception),
        (lambda p: p.deserialize(b"\2\0\0\0\0\0\0\0{}x"), Exception),
        (lambda p: p.deserialize("text"), TypeError),
    ],
)
def test_what_one_refuses_the_other_does(call, error):
    with pytest.raises(error) as theirs:
        call(safetensors)
    expected = theirs.type if error is not Exception else inrush.SafetensorError
    with pytest.raises(expected):
        call(inrush)


def test_a_wrong_size_is_refused_by_both():
    for package in (safetensors, inrush):
        data = numpy.zeros(8, dtype=numpy.uint8)
        spec = package.TensorSpec(dtype="float32", shape=[3], data_ptr=data.ctypes.data, data_len=8)
        with pytest.raises(package.SafetensorError):
            package.serialize({"x": spec})


def test_a_file_object_with_a_name_is_opened(tmp_path):
    path = tmp_path / "x"
    safetensors.numpy.save_file({"a": numpy.arange(3)}, path)
    with path.open("rb") as file, inrush._safe_open_handle(file, framework="np") as opened:
        assert opened.get_tensor("a").tolist() == [0, 1, 2]
    for package in (safetensors, inrush):
        with pytest.raises(AttributeError):
            package._safe_open_handle(object(), "np")
        with pytest.raises(AttributeError):
            package._safe_open_handle(io.BytesIO(b""), "np")


PAIRS = [
    (safetensors, inrush),
    (safetensors.torch, inrush.torch),
    (safetensors.numpy, inrush.numpy),
]


def public(module):
    """What a module of safetensors has for its users: no imports but those from safetensors."""
    if not hasattr(module, "__file__") or module is safetensors:
        return [name for name in dir(module) if callable(getattr(module, name))]
    tree = ast.parse(pathlib.Path(module.__file__).read_text())
    return [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]


def names_and_arguments_are_the_same(theirs, ours):
    names = [name for name in public(theirs) if not name.startswith("_")]
    assert names
    for name in names:
        assert hasattr(ours, name), name
        try:
            expected = inspect.signature(getattr(theirs, name)).parameters
        except ValueError:  # of a builtin class
            continue
        got = inspect.signature(getattr(ours, name)).parameters
        for parameter in expected.values():
            mine = got[parameter.name]
            assert mine.kind == parameter.kind, (name, parameter)
            if parameter.default is not Ellipsis:
                assert mine.default == parameter.default, (name, parameter)
        order = [one for one in got if one in expected]
        assert order == list(expected), name


@pytest.mark.parametrize(("theirs", "ours"), PAIRS, ids=lambda module: module.__name__)
def test_public_names_are_there_with_their_arguments(theirs, ours):
    names_and_arguments_are_the_same(theirs, ours)


def test_private_tables_that_other_projects_import_are_there():
    ours, theirs = inrush.torch, safetensors.torch
    assert theirs._TYPES.items() <= ours._TYPES.items()
    sizes = {dtype: size for dtype, size in theirs._SIZE.items() if dtype is not None}
    assert sizes.items() <= ours._SIZE.items()
    assert ours._getdtype("BF16") is theirs._getdtype("BF16")
    with pytest.raises(KeyError):
        ours._getdtype("F6")


def test_a_header_in_memory_may_begin_with_space_as_safetensors_has_it():
    header = b'\n {"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}'
    data = len(header).to_bytes(8, "little") + header + b"xy"
    ((name, mine),) = inrush.deserialize(data)
    assert (name, mine["data"]) == ("a", b"xy")
    assert safetensors.deserialize(data)[0][1]["data"] == b"xy"
