"""`inrush.tensorizer` in the place of tensorizer: each reads what the other writes."""

from __future__ import annotations

import io
import os
import warnings

import pytest

torch = pytest.importorskip("torch")
theirs = pytest.importorskip("tensorizer", reason="tensorizer is the judge")

import inrush.tensorizer as ours  # noqa: E402
from inrush.tensorizer.serialization import HashMismatchError  # noqa: E402

PAIRS = [(ours, theirs), (theirs, ours), (ours, ours)]
IDS = ["ours_to_theirs", "theirs_to_ours", "ours_to_ours"]


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
        self.low = torch.nn.Linear(4, 2).to(torch.bfloat16)
        self.inner.register_buffer("transient", torch.rand(5), persistent=False)


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def state() -> dict:
    return {
        "w": torch.rand(3, 5),
        "b": torch.rand(7).to(torch.bfloat16),
        "i": torch.randint(0, 99, (2, 2)),
        "s": torch.tensor(2.5),
        "flag": torch.tensor([True, False]),
        "c": torch.rand(3, dtype=torch.complex128),
        "f8": torch.rand(4).to(torch.float8_e4m3fn),
        "turned": torch.rand(4, 6).T,
    }


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    raw = [t.detach().cpu().contiguous().reshape(-1).view(torch.uint8) for t in (a, b)]
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(*raw)


def written(kit, path, tensors, **options):
    serializer = kit.TensorSerializer(str(path), **options)
    serializer.write_state_dict(tensors)
    serializer.close()
    return path


@pytest.mark.parametrize(("writer", "reader"), PAIRS, ids=IDS)
@pytest.mark.parametrize("encrypted", [False, True])
@pytest.mark.parametrize("lazy", [False, True])
def test_a_state_dict_is_read_by_either(tmp_path, writer, reader, encrypted, lazy):
    tensors = state()
    keys = {}
    options = {}
    if encrypted:
        params = writer.EncryptionParams.random()
        options["encryption"] = params
        keys["encryption"] = reader.DecryptionParams.from_key(params.key)
    written(writer, tmp_path / "x.tensors", tensors, **options)
    with reader.TensorDeserializer(
        str(tmp_path / "x.tensors"), device="cpu", verify_hash=True, lazy_load=lazy, **keys
    ) as found:
        assert list(found) == list(tensors)
        for name in tensors:
            assert same(found[name], tensors[name]), name
        assert isinstance(found["w"], torch.nn.Parameter)
        assert found.total_tensor_bytes == sum(t.nbytes for t in tensors.values())


@pytest.mark.parametrize("nested", [False, True])
def test_files_are_byte_for_byte_theirs(tmp_path, nested):
    tensors: object = state()
    if nested:
        tensors = {"a": [torch.rand(2), {'é "b"': torch.rand(1)}], "c": torch.rand(3)}
    one = written(ours, tmp_path / "ours", tensors).read_bytes()
    assert one == written(theirs, tmp_path / "theirs", tensors).read_bytes()


def test_modules_are_byte_for_byte_theirs(tmp_path):
    model = Model()
    for options in ({}, {"include_non_persistent_buffers": False}):
        for name, kit in (("ours", ours), ("theirs", theirs)):
            serializer = kit.TensorSerializer(str(tmp_path / name))
            serializer.write_module(model, **options)
            serializer.close()
        assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_meta_and_long_tensors_and_single_ones_are_byte_for_byte_theirs(tmp_path):
    for name, kit in (("ours", ours), ("theirs", theirs)):
        serializer = kit.TensorSerializer(str(tmp_path / name))
        serializer.write_tensor(5, "n", kit.TensorType.BUFFER, torch.arange(3.0).numpy())
        serializer.write_tensor(6, "k", kit.TensorType.PARAM, torch.zeros(1))
        serializer.write_state_dict({"m": torch.empty(2, 3, device="meta")})
        serializer.write_state_dict({"L": torch.empty(2**32 + 5, 0)})
        serializer.close()
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    with ours.TensorDeserializer(str(tmp_path / "theirs"), device="cpu", verify_hash=True) as found:
        assert torch.equal(found["m"], torch.zeros(2, 3))
        assert found["L"].shape == (2**32 + 5, 0)
        assert [entry[:3] for entry in found.read_tensors()] == [
            (5, 1, "n"), (6, 0, "k"), (0, 2, "m"), (0, 2, "L"),
        ]  # fmt: skip


@pytest.mark.parametrize(("writer", "reader"), PAIRS, ids=IDS)
def test_a_module_is_loaded_by_either(tmp_path, writer, reader):
    model = Model().eval()
    serializer = writer.TensorSerializer(str(tmp_path / "x"))
    serializer.write_module(model)
    serializer.close()
    empty = ours.utils.no_init_or_tensor(Model)
    assert empty.inner[0].weight.is_meta
    with reader.TensorDeserializer(str(tmp_path / "x"), device="cpu") as found:
        assert found.load_into_module(empty) == len(list(model.parameters())) + 4
    inputs = torch.rand(2, 3)
    with torch.no_grad():  # theirs makes buffers that want a gradient
        assert torch.equal(empty.eval().inner(inputs), model.inner(inputs))
    assert all(same(a, b) for a, b in zip(empty.parameters(), model.parameters(), strict=True))


def test_loading_into_a_module_keeps_what_its_buffers_are(tmp_path):
    model = Model()
    serializer = ours.TensorSerializer(str(tmp_path / "x"))
    serializer.write_module(model, remove_tensors=True)
    serializer.close()
    assert model.low.weight is None
    into = Model()
    with ours.TensorDeserializer(str(tmp_path / "x"), device="cpu") as found:
        found.load_into_module(into)
    assert set(into.state_dict()) == set(Model().state_dict())
    assert not into.inner.transient.requires_grad


def test_nested_structures_come_back(tmp_path):
    tensors = {"a": [torch.rand(2), {"b": torch.rand(1)}], "c": torch.rand(3)}
    written(theirs, tmp_path / "x", tensors)
    with ours.TensorDeserializer(str(tmp_path / "x"), device="cpu", lazy_load=True) as found:
        assert set(found) == {"a", "c"}
        assert same(found["a"][1]["b"], tensors["a"][1]["b"])
        assert same(found.tree()["a"][0], tensors["a"][0])
    with ours.TensorDeserializer(
        str(tmp_path / "x"), device="cpu", filter_func=lambda name: name != "c"
    ) as found:
        assert set(found) == {"a"}


def test_tensors_may_be_asked_for_in_any_order(tmp_path):
    tensors = {f"t{i}": torch.rand(3) for i in range(5)}
    written(theirs, tmp_path / "x", tensors)
    with ours.TensorDeserializer(str(tmp_path / "x"), device="cpu", lazy_load=True) as found:
        for name in reversed(tensors):
            assert same(found[name], tensors[name])


def test_passphrases_open_what_either_writes(tmp_path):
    tensors = state()
    for writer, reader in PAIRS:
        params = writer.EncryptionParams.from_string("open sesame", 1, 8192, bytes(16))
        written(writer, tmp_path / "x", tensors, encryption=params)
        key = reader.DecryptionParams.from_string("open sesame")
        with reader.TensorDeserializer(
            str(tmp_path / "x"), device="cpu", encryption=key, verify_hash=True
        ) as found:
            assert same(found["w"], tensors["w"])


def test_wrong_keys_and_changed_bytes_raise_what_theirs_raise(tmp_path):
    path = written(ours, tmp_path / "x", state(), encryption=ours.EncryptionParams.random())
    with pytest.raises(ours.CryptographyError):
        ours.TensorDeserializer(str(path), device="cpu")
    with pytest.raises(ours.CryptographyError):
        wrong = ours.DecryptionParams.from_key(os.urandom(32))
        ours.TensorDeserializer(str(path), device="cpu", encryption=wrong)
    path = written(ours, tmp_path / "y", state())
    with pytest.raises(ours.CryptographyError):
        ours.TensorDeserializer(
            str(path), device="cpu", encryption=ours.DecryptionParams.from_key(bytes(32))
        )
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)
    with pytest.raises(HashMismatchError):
        ours.TensorDeserializer(str(path), device="cpu", verify_hash=True)
    path.write_bytes(data[:-100])
    with pytest.raises(ValueError, match="truncated"):
        ours.TensorDeserializer(str(path), device="cpu")


def test_files_in_memory_and_open_files_are_read_and_written(tmp_path):
    tensors = state()
    buffer = io.BytesIO()
    serializer = ours.TensorSerializer(buffer)
    serializer.write_state_dict(tensors)
    buffer.seek(0)
    with ours.TensorDeserializer(buffer, device="cpu") as found:
        assert same(found["w"], tensors["w"])
    with ours.stream_io.open_stream(tmp_path / "deep" / "x", "wb+") as file:
        ours.TensorSerializer(file).write_state_dict(tensors)
    with (
        ours.stream_io.open_stream(tmp_path / "deep" / "x") as file,
        ours.TensorDeserializer(file, device="cpu", lazy_load=True) as found,
    ):
        assert same(found["turned"], tensors["turned"])


def test_floating_point_is_cast_and_nothing_else(tmp_path):
    tensors = state()
    written(theirs, tmp_path / "x", tensors)
    with ours.TensorDeserializer(str(tmp_path / "x"), device="cpu", dtype=torch.float16) as found:
        assert found["w"].dtype == torch.float16
        assert found["i"].dtype == torch.int64
        assert found["c"].dtype == torch.complex128


@pytest.mark.parametrize("bad", [{"a": "x"}, {"a": 1}, {1: torch.rand(1)}, [None]])
def test_what_is_no_tensor_is_refused(tmp_path, bad):
    with pytest.raises(TypeError):
        written(ours, tmp_path / "x", bad)


def test_arguments_are_judged_as_theirs_are(tmp_path):
    path = str(written(ours, tmp_path / "x", state()))
    for options, error in (
        ({"num_readers": 0}, ValueError),
        ({"num_readers": "2"}, TypeError),
        ({"encryption": b"key"}, TypeError),
        ({"device": "cuda"}, RuntimeError),
    ):
        if options.get("device") == "cuda" and torch.cuda.is_available():
            continue
        with pytest.raises(error):
            ours.TensorDeserializer(path, **{"device": "cpu", **options})
    with pytest.raises(TypeError):
        ours.TensorSerializer(path, limit_cpu_concurrency="2")
    with pytest.raises(ValueError, match="0x1E"):
        written(ours, tmp_path / "y", {"\x1ename": torch.rand(1)})
    with pytest.raises(KeyError), ours.TensorDeserializer(path, device="cpu") as found:
        found["nothing"]


def test_sizes_in_words():
    assert ours.utils.convert_bytes(123_456_789) == "123.5 MB"
    assert ours.utils.convert_bytes(123_456_789, decimal=False) == "117.7 MiB"
