"""What `inrush.tensorizer` writes of odd tensors and into odd files, byte for byte tensorizer's."""

from __future__ import annotations

import importlib
import io
import warnings

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("tensorizer", reason="tensorizer is the judge")

KITS = [importlib.import_module(name) for name in ("inrush.tensorizer", "tensorizer")]
KIND = KITS[1].TensorType.BUFFER


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class Kept(io.BytesIO):
    """A file whose bytes are still there when it was closed."""

    def close(self) -> None:
        pass


def both(write) -> bytes:
    """What `write` makes of a serializer of ours; it is what it makes of one of tensorizer's."""
    made = []
    for kit in KITS:
        file = Kept()
        serializer = kit.TensorSerializer(file)
        write(serializer)
        serializer.close()
        made.append(file.getvalue())
    assert made[0] == made[1]
    return made[0]


def read_back(data: bytes) -> dict:
    with KITS[0].TensorDeserializer(Kept(data), "cpu", verify_hash=True) as found:
        return {name: found[name].detach() for name in found}


SINGLE = {
    "column": lambda: torch.rand(1, 4)[:, 2],
    "step": lambda: torch.rand(2)[::2],
    "low": lambda: torch.rand(1, 4).to(torch.bfloat16)[:, 1],
    "wide": lambda: torch.rand(1, 4, dtype=torch.complex128)[:, 3],
    "bytes": lambda: torch.randint(0, 255, (1, 4), dtype=torch.uint8)[:, 1],
    "deep": lambda: torch.rand(1, 1, 4)[:, :, 3],
    "parameter": lambda: torch.nn.Parameter(torch.rand(1, 4))[:, 2],
}


@pytest.mark.parametrize("name", SINGLE)
def test_a_single_element_has_any_stride(name):
    tensor = SINGLE[name]()
    data = both(lambda serializer: serializer.write_state_dict({"a": tensor}))
    assert torch.equal(read_back(data)["a"], tensor)


def test_modules_with_a_single_element_are_written_and_verified():
    model = torch.nn.Sequential(torch.nn.Linear(1, 1))
    model[0].register_buffer("one", torch.rand(1, 4)[:, 2])
    data = both(lambda serializer: serializer.write_module(model))
    for kit in KITS:
        with kit.TensorDeserializer(Kept(data), "cpu") as found:
            assert found.verify_module(model)[0]


def test_the_first_format_takes_a_single_element_of_any_stride():
    modules = [importlib.import_module(kit.__name__ + ".protobuf") for kit in KITS]
    tensor = torch.rand(1, 4)[:, 2]
    messages = [module.serialize_tensor(tensor).SerializeToString() for module in modules]
    assert messages[0] == messages[1]


def arrays() -> dict:
    numpy = pytest.importorskip("numpy")
    made = numpy.random.default_rng().random
    fields = numpy.zeros(3, dtype=[("a", "i1"), ("b", "f4")])
    fields["b"] = made(3)
    return {
        "backwards": made(6)[::-1],
        "both ways": made((2, 3))[::-1, ::-1],
        "one backwards": made(6)[::-1][:1],
        "none backwards": made(0)[::-1],
        "column": made((1, 4))[:, 2],
        "step": made(7)[::3],
        "turned": made((3, 4)).T,
        "field": fields["b"],
        "one of a field": fields["b"][1:2],
        "scalar": numpy.float32(made()),
        "integer": numpy.int16(made() * 1000),
        "truth": numpy.bool_(True),
        "no dimensions": numpy.array(made()),
    }


@pytest.mark.parametrize("name", arrays())
def test_arrays_and_scalars_of_numpy_are_written(name):
    array = arrays()[name]
    data = both(lambda serializer: serializer.write_tensor(3, "a", KIND, array))
    assert read_back(data)["a"].numpy().tolist() == array.tolist()


def opaque_types() -> list:
    """All of torch's that numpy lacks, but for the quantised."""
    found = dict.fromkeys(one for one in vars(torch).values() if isinstance(one, torch.dtype))
    return [one for one in found if opaque(one)]


def opaque(dtype) -> bool:
    if str(dtype).removeprefix("torch.").startswith(("qint", "quint")):
        return False
    try:
        with warnings.catch_warnings(action="ignore"):
            torch.empty(1, dtype=dtype).numpy()
    except (TypeError, RuntimeError):
        return True
    return False


@pytest.mark.parametrize("dtype", opaque_types(), ids=str)
def test_types_that_numpy_lacks_are_written(dtype):
    raw = torch.randint(0, 256, (6, 2 * dtype.itemsize), dtype=torch.uint8)
    tensors = {"a": raw.view(dtype), "s": raw.view(dtype)[1, 1]}
    data = both(lambda serializer: serializer.write_state_dict(tensors))
    for name, tensor in read_back(data).items():
        assert tensor.dtype == dtype and tensor.shape == tensors[name].shape
        assert torch.equal(bits(tensor), bits(tensors[name]))
    turned = raw.view(dtype).T  # of these torch, and so tensorizer, cannot copy all
    file = Kept()
    KITS[0].TensorSerializer(file).write_state_dict({"t": turned})
    assert torch.equal(bits(read_back(file.getvalue())["t"].T), bits(turned.T))


INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def bits(tensor):
    return tensor.view(INTEGERS[tensor.element_size()])


def test_quantised_tensors_are_refused():
    tensor = torch.quantize_per_tensor(torch.rand(3), 0.1, 0, torch.quint8)
    for kit in KITS:
        with pytest.raises(NotImplementedError):
            kit.TensorSerializer(Kept()).write_state_dict({"a": tensor})


def test_a_file_without_tensors_is_what_theirs_is():
    data = both(lambda serializer: None)
    assert data == both(lambda serializer: serializer.write_state_dict({}))
    made = []
    for kit in KITS:
        with pytest.raises(ValueError, match=r"[tT]ensor"):
            kit.TensorDeserializer(Kept(data), "cpu")
        file = Kept()
        kit.TensorSerializer(file, encryption=kit.EncryptionParams.random()).close()
        made.append(file.getvalue())
    assert made[0] == made[1]


@pytest.mark.parametrize("start", [0, 30])
def test_a_file_stands_at_the_end_of_the_tensors_and_keeps_what_is_written_there(start):
    before, between, after = (torch.randint(0, 256, (60,)).numpy().tobytes() for _ in range(3))
    tensors = [{"a": torch.rand(3)}, {"b": torch.rand(5), "L": torch.empty(2**32 + 1, 0)}]
    made = []
    for kit in KITS:
        file = Kept(before)
        file.seek(start)
        serializer = kit.TensorSerializer(file)
        places = [file.tell()]
        for state, more in zip(tensors, (between, after), strict=True):
            serializer.write_state_dict(state)
            places.append(file.tell())
            file.write(more)
        serializer.close()
        made.append((places, file.getvalue()))
    assert made[0] == made[1]
    data = made[0][1]
    assert data.startswith(before[:start]) and between in data
    assert data.endswith(after + bytes(8))
    file = Kept(data)
    file.seek(start)
    with KITS[0].TensorDeserializer(file, "cpu", lazy_load=True) as found:
        assert torch.equal(found["a"], tensors[0]["a"]) and torch.equal(found["b"], tensors[1]["b"])


def test_a_write_that_fails_leaves_the_file_where_the_tensors_end():
    file = Kept()
    serializer = KITS[0].TensorSerializer(file)
    state = {"a": torch.rand(300), "b": torch.rand(300)}
    serializer.write_state_dict({"c": state["a"]})
    place = file.tell()
    write = file.write

    def once(data):
        file.write = write
        write(bytes(data)[:7])
        raise OSError("no space")

    file.write = once
    with pytest.raises(OSError, match="no space"):
        serializer.write_state_dict(state)
    assert file.tell() == place
    serializer.write_state_dict(state)
    serializer.close()
    whole = both(lambda one: (one.write_state_dict({"c": state["a"]}), one.write_state_dict(state)))
    assert file.getvalue() == whole


class Plain:
    """A file that can do what tensorizer needs, and no more."""

    def __init__(self) -> None:
        self.kept = Kept()
        for name in ("read", "write", "seek", "tell", "close"):
            setattr(self, name, getattr(self.kept, name))


def test_files_without_flush_are_written():
    tensor = torch.rand(7)
    made = []
    for kit in KITS:
        file = Plain()
        serializer = kit.TensorSerializer(file)
        serializer.write_state_dict({"a": tensor})
        serializer.close()
        made.append(file.kept.getvalue())
    assert made[0] == made[1]


WRONG = [("a", -1), ("a", 1.5), ("a", None), ("a", True), ("a", ("b",)), ["a"], (), 3, None, b"a"]


@pytest.mark.parametrize("name", WRONG, ids=repr)
def test_names_that_could_not_be_read_are_refused(name):
    for kit in KITS:
        serializer = kit.TensorSerializer(Kept())
        with pytest.raises(TypeError):
            serializer.write_tensor(0, name, kit.TensorType.PARAM, torch.rand(2))


def test_single_tensors_may_have_structured_names():
    tensors = {"layers": [torch.rand(2), torch.rand(3)]}
    file = Kept()
    serializer = KITS[0].TensorSerializer(file)
    for i, tensor in enumerate(tensors["layers"]):
        kind = KITS[0].TensorType.STATE_DICT
        serializer.write_tensor(0, ("layers", i), kind, tensor)
    assert file.getvalue() == both(lambda one: one.write_state_dict(tensors))


def test_a_name_that_theirs_writes_and_does_not_read_is_refused():
    file = Kept()
    KITS[1].TensorSerializer(file).write_state_dict({"": torch.rand(2)})
    with pytest.raises(ValueError, match="empty"):
        KITS[1].TensorDeserializer(Kept(file.getvalue()), "cpu")
    with pytest.raises(ValueError, match="empty"):
        KITS[0].TensorSerializer(Kept()).write_state_dict({"": torch.rand(2)})
