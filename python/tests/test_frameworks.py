"""Arrays of jax, and of frameworks that this machine need not have."""

import importlib
import importlib.util
import subprocess
import sys
import types

import inrush.numpy
import numpy
import pytest
import safetensors.numpy
from conftest import DTYPES, random_tensor, write_file

import inrush
from inrush import safe_open

JAX = importlib.util.find_spec("jax") is not None
DLPACK = [
    dtype for dtype in DTYPES if not dtype.startswith("F8_") and dtype[:2] not in ("F4", "F6")
]


@pytest.fixture
def narrow(tmp_path):
    """Tensors of types that jax keeps as they are: of at most 32 bits, or complex."""
    kinds = [name for name in DTYPES if DTYPES[name] in (8, 16, 32) or name == "C64"]
    contents = {name: random_tensor(name, [4, 6]) for name in kinds}
    contents |= {"scalar": random_tensor("F32", []), "empty": random_tensor("F16", [0, 3])}
    return write_file(tmp_path / "narrow.safetensors", contents, shift=4), contents


@pytest.mark.skipif(not JAX, reason="jax is not installed")
@pytest.mark.parametrize("framework", ["jax", "flax"])
@pytest.mark.parametrize("backend", ["mmap", "pread"])
def test_jax_arrays_have_the_files_bytes(narrow, framework, backend):
    import jax

    path, contents = narrow
    with safe_open(path, framework, backend=backend) as opened:
        for name, (_, shape, data) in contents.items():
            array = opened.get_tensor(name)
            assert isinstance(array, jax.Array)
            assert array.shape == tuple(shape)
            assert numpy.asarray(array).tobytes() == data
        part = opened.get_slice("BF16")[1:3, ::2]
        assert numpy.array_equal(part, opened.get_tensor("BF16")[1:3, ::2])
        with pytest.raises(inrush.SafetensorError, match="out of bounds for tensor dimension #0"):
            opened.get_slice("BF16")[:20]


@pytest.mark.skipif(not JAX, reason="jax is not installed")
def test_flax_saves_and_loads_as_safetensors_does(narrow, tmp_path):
    import inrush.flax
    import safetensors.flax

    path, _ = narrow
    arrays = inrush.flax.load_file(path)
    theirs = tmp_path / "theirs"
    safetensors.flax.save_file(dict(arrays), str(theirs), {"a": "b"})
    inrush.flax.save_file(arrays, tmp_path / "ours", {"a": "b"})
    assert (tmp_path / "ours").read_bytes() == theirs.read_bytes()
    assert inrush.flax.save(arrays, {"a": "b"}) == theirs.read_bytes()
    for loaded in (inrush.flax.load(theirs.read_bytes()), inrush.flax.load_file(theirs)):
        assert loaded.keys() == arrays.keys()
        assert all(
            numpy.asarray(loaded[name]).tobytes() == numpy.asarray(array).tobytes()
            for name, array in arrays.items()
        )


# What each framework's own package is asked for; a stand-in where it is not installed.
TAKES = {
    "tf": ("tensorflow", "experimental.dlpack.from_dlpack"),
    "paddle": ("paddle", "utils.dlpack.from_dlpack"),
    "mlx": ("mlx.core", "array"),
}

STAND_IN = """
import sys, types
import inrush
def module(name, path, take):
    *parents, last = path.split(".")
    whole = sys.modules[name] = types.ModuleType(name)
    for part in name.split(".")[:-1]:
        sys.modules[part] = types.ModuleType(part)
        setattr(sys.modules[part], name.split(".")[-1], whole)
    for part in parents:
        inner = types.SimpleNamespace()
        setattr(whole, part, inner)
        whole = inner
    setattr(whole, last, take)
module({package!r}, {path!r}, lambda given: ("taken", type(given).__name__))
with inrush.safe_open({file!r}, {framework!r}) as opened:
    print(opened.get_tensor("BF16"), opened.get_tensor("F32"))
    try:
        opened.get_tensor({refused!r})
    except inrush.SafetensorError as error:
        print(error)
"""


@pytest.mark.parametrize(
    ("framework", "given", "refused", "text"),
    [
        ("tf", "PyCapsule", "F8_E4M3", "F8_E4M3 has no type in tensorflow"),
        ("paddle", "Tensor", "U16", "U16 has no type in paddle"),
        ("mlx", "Tensor", "F4", "F4 has no type in mlx"),
    ],
)
def test_other_frameworks_take_dlpack(every_dtype, framework, given, refused, text):
    package, path = TAKES[framework]
    words = {"package": package, "path": path, "framework": framework, "refused": refused}
    code = STAND_IN.format(file=str(every_dtype[0]), **words)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"('taken', '{given}')") == 2
    assert text in done.stdout


def test_tensorflow_is_given_aligned_memory(tmp_path, monkeypatch):
    class Taken:
        def __init__(self, capsule):
            self.capsule = capsule

        def __dlpack__(self, **_):
            return self.capsule

        def __dlpack_device__(self):
            return (1, 0)

    contents = {f"t{i}": random_tensor("F32", [i + 1]) for i in range(9)}
    path = write_file(tmp_path / "x.safetensors", contents, shift=4)
    dlpack = types.SimpleNamespace(from_dlpack=lambda capsule: numpy.from_dlpack(Taken(capsule)))
    package = types.ModuleType("tensorflow")
    package.experimental = types.SimpleNamespace(dlpack=dlpack)
    monkeypatch.setitem(sys.modules, "tensorflow", package)
    for backend in ("mmap", "pread"):
        with safe_open(path, "tf", backend=backend) as opened:
            for name, (_, _, data) in contents.items():
                array = opened.get_tensor(name)
                assert array.ctypes.data % 64 == 0
                assert array.tobytes() == data


@pytest.mark.parametrize("framework", ["tf", "tensorflow", "mlx", "paddle"])
def test_a_framework_that_is_not_installed_is_named(every_dtype, framework):
    package = TAKES.get(framework, TAKES["tf"])[0].split(".")[0]
    if importlib.util.find_spec(package):
        pytest.skip(f"{package} is installed")
    with pytest.raises(inrush.UsageError, match=f"framework {framework}: No module named"):
        safe_open(every_dtype[0], framework)


def test_numpy_without_ml_dtypes_says_what_is_missing(every_dtype):
    code = (
        "import sys; sys.modules['ml_dtypes'] = None; sys.modules['torch'] = None\n"
        "import inrush\n"
        f"opened = inrush.safe_open({str(every_dtype[0])!r}, 'np')\n"
        "print(opened.get_tensor('F32').dtype)\n"
        "for name in ('BF16', 'F8_E8M0', 'F4'):\n"
        "    try: opened.get_tensor(name)\n"
        "    except inrush.SafetensorError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[0] == "float32"
    assert "numpy has BF16 only with the package ml_dtypes installed" in lines[1]
    assert "numpy has F8_E8M0 only with" in lines[2]
    assert "F4 has no type in numpy" in lines[3]


INDICES = [
    0, -1, 5, slice(0, 2), slice(None), slice(2, 2), slice(1, 6), slice(None, None, 2), ...,
    (slice(None), slice(0, 8, 3)), (slice(None), -1), (..., 1), (1, 2), (), [], (slice(2), ...),
    # refused
    6, -7, slice(0, 7), (slice(None), 8), (slice(None), slice(3, 9)), [0, 1], (1, 2, 3), (..., ...),
    slice(None, None, -1), slice(None, None, 0), 1.5, "x", None,
]  # fmt: skip


@pytest.mark.parametrize("index", INDICES, ids=str)
@pytest.mark.parametrize("backend", ["mmap", "pread"])
def test_numpy_slices_as_safetensors_does(every_dtype, index, backend):
    path, _ = every_dtype
    with (
        safe_open(path, "np", backend=backend) as ours,
        safetensors.safe_open(path, "np") as theirs,
    ):
        try:
            expected = theirs.get_slice("F32")[index]
        except safetensors.SafetensorError as error:
            with pytest.raises(inrush.SafetensorError) as caught:
                ours.get_slice("F32")[index]
            assert str(caught.value) == str(error)
        else:
            got = ours.get_slice("F32")[index]
            assert got.shape == expected.shape
            assert got.tobytes() == expected.tobytes()


def test_slices_outlive_the_file_that_gave_them(every_dtype):
    path, contents = every_dtype
    for backend in ("mmap", "pread"):
        with safe_open(path, "np", backend=backend) as opened:
            part = opened.get_slice("U8")
        assert part[:].tobytes() == contents["U8"][2]
