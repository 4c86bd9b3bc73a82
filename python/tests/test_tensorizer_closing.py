"""When `inrush.tensorizer` closes a file, beside tensorizer, and what is still there afterwards."""

from __future__ import annotations

import gc
import importlib
import io
import os
import warnings

import pytest
from servers import nginx

torch = pytest.importorskip("torch")
pytest.importorskip("tensorizer", reason="tensorizer is the judge")

KITS = [importlib.import_module(name) for name in ("inrush.tensorizer", "tensorizer")]


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.nn.Linear(3, 2)
        self.low = torch.nn.Linear(2, 2).to(torch.bfloat16)


@pytest.fixture
def model():
    return Model()


@pytest.fixture
def path(model, tmp_path):
    serializer = KITS[1].TensorSerializer(str(tmp_path / "m.tensors"))
    serializer.write_module(model)
    serializer.close()
    return tmp_path / "m.tensors"


def deleted(path):
    """A file that has no name any more."""
    file = io.FileIO(path)
    path.unlink()
    return file


OPENED = {
    "memory": lambda path: io.BytesIO(path.read_bytes()),
    "file": io.FileIO,
    "deleted": deleted,
}


def load(kit, file, model):
    kit.TensorDeserializer(file, "cpu", lazy_load=True).load_into_module(Model())


def leave(kit, file, model):
    with kit.TensorDeserializer(file, "cpu", lazy_load=True):
        assert not file.closed


def fail(**words):
    def call(kit, file, model):
        with pytest.raises((TypeError, ValueError, kit.CryptographyError)):
            kit.TensorDeserializer(file, **{"device": "cpu", **words})

    return call


CLOSING = {
    "eager": lambda kit, file, model: kit.TensorDeserializer(file, "cpu"),
    "close": lambda kit, file, model: kit.TensorDeserializer(file, "cpu", lazy_load=True).close(),
    "exit": leave,
    "module": load,
    "no such filter": fail(filter_func=3),
    "no readers": fail(num_readers=0),
    "text as readers": fail(num_readers="2"),
}


@pytest.mark.parametrize("kind", OPENED)
@pytest.mark.parametrize("way", CLOSING)
def test_the_callers_file_is_closed_when_theirs_is(way, kind, path, model):
    data = path.read_bytes()
    for kit in KITS:
        path.write_bytes(data)
        with OPENED[kind](path) as file:
            CLOSING[way](kit, file, model)
            assert file.closed, kit


def test_a_file_that_is_no_tensorizers_is_closed():
    for kit in KITS:
        file = io.BytesIO(os.urandom(300))
        with pytest.raises(ValueError):
            kit.TensorDeserializer(file, "cpu")
        assert file.closed, kit


def test_what_is_wrong_before_a_file_is_looked_at_leaves_it_open(path):
    for words in ({"encryption": 3}, {"device": "quux"}, {"encryption": None}):
        for kit in KITS:
            params = words
            if words == {"encryption": None}:
                params = {"encryption": kit.DecryptionParams()}
            with open(path, "rb") as file:
                with pytest.raises((TypeError, ValueError, RuntimeError)):
                    kit.TensorDeserializer(file, **{"device": "cpu", **params})
                assert not file.closed, kit


@pytest.mark.parametrize("kind", OPENED)
def test_after_an_eager_load_nothing_is_missing(kind, path, model):
    tensors = {name: tensor.detach() for name, tensor in model.named_parameters()}
    found = KITS[0].TensorDeserializer(OPENED[kind](path), "cpu")
    # What gets the descriptor of the file that was closed is not read instead of it.
    others = [os.open("/dev/zero", os.O_RDONLY) for _ in range(4)]
    try:
        assert found.verify_module(model)[0]
        assert {name: bytes_of(found[name]) for name in found} == {
            name: bytes_of(tensor) for name, tensor in tensors.items()
        }
        rows = list(found.read_tensors())
        assert [row[0] for row in rows] == [1, 1, 2, 2]
        model.inner.bias.data += 1
        assert not found.verify_module(model)[0]
        assert found.total_bytes_read > 0
    finally:
        for descriptor in others:
            os.close(descriptor)


def bytes_of(tensor) -> bytes:
    return tensor.detach().contiguous().view(torch.uint8).numpy().tobytes()


def test_after_an_eager_load_from_a_server_nothing_is_missing(path, model, tmp_path):
    with nginx(tmp_path, tmp_path / "nginx") as port:
        place = f"http://127.0.0.1:{port}/m.tensors"
        for begin in (None, 0):
            stream = KITS[0].stream_io.open_stream(place, begin=begin)
            found = KITS[0].TensorDeserializer(stream, "cpu")
            assert stream.closed
            assert found.verify_module(model)[0]
            assert len(list(found.read_tensors())) == 4
            found.close()


def test_what_nobody_closes_is_let_go(path):
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    data = path.read_bytes()
    gc.collect()
    before = descriptors()
    for kind in OPENED:
        for lazy in (False, True):
            path.write_bytes(data)
            found = KITS[0].TensorDeserializer(OPENED[kind](path), "cpu", lazy_load=lazy)
            assert bytes_of(found["inner.bias"])
            del found
            gc.collect()
    assert descriptors() <= before


def test_files_of_callers_are_not_closed_by_what_is_collected(path):
    for kit, closed in zip(KITS, (False, True), strict=True):
        with io.FileIO(path) as file, io.BytesIO() as written:
            assert "inner.bias" in kit.TensorDeserializer(file, "cpu", lazy_load=True)
            kit.TensorSerializer(written).write_state_dict({"a": torch.rand(3)})
            gc.collect()
            assert (file.closed, written.closed) == (closed, closed)


def test_what_is_in_a_file_with_a_path_goes_to_redis_after_an_eager_load(path):
    class Client(dict):
        set = dict.__setitem__
        exists = dict.__contains__

    clients = {}
    for kit, lazy in ((KITS[0], False), (KITS[1], True)):
        with kit.TensorDeserializer(str(path), "cpu", lazy_load=lazy) as found:
            clients[lazy] = Client()
            found.to_redis(clients[lazy], "m")
    assert clients[False] == clients[True]
    with pytest.raises(ValueError, match="closed"):
        KITS[1].TensorDeserializer(str(path), "cpu").to_redis(Client(), "m")


def test_sizes_after_a_load_are_those_that_theirs_says():
    file = io.BytesIO()
    KITS[0].TensorSerializer(file).write_state_dict(
        {"a": torch.rand(2), "m": torch.empty(2, 3, device="meta")}
    )
    for lazy in (False, True):
        one, other = (
            kit.TensorDeserializer(io.BytesIO(file.getvalue()), "cpu", lazy_load=lazy)
            for kit in KITS
        )
        assert one.total_tensor_bytes == other.total_tensor_bytes == (32 if lazy else 8)
        assert one.total_file_bytes == other.total_file_bytes


@pytest.mark.parametrize("state", [["list"], {"a": ["list"], "b": {"c": None}}])
def test_names_of_the_first_layer_go_backwards(state):
    def filled(value):
        if isinstance(value, dict):
            return {key: filled(one) for key, one in value.items()}
        return [torch.rand(2), torch.rand(3)]

    file = io.BytesIO()
    KITS[0].TensorSerializer(file).write_state_dict(filled(state))
    one, other = (kit.TensorDeserializer(io.BytesIO(file.getvalue()), "cpu") for kit in KITS)
    assert list(one.keys()) == list(other.keys())
    assert list(reversed(one.keys())) == list(reversed(other.keys()))
    assert one.keys() == other.keys() and type(one.keys()) is type(other.keys())


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.bfloat16, None])
def test_arrays_are_the_files_own_whatever_tensors_are_cast_to(path, dtype):
    rows = []
    for kit in KITS:
        with kit.TensorDeserializer(str(path), "cpu", lazy_load=True, dtype=dtype) as found:
            arrays = list(found.read_numpy_arrays(allow_raw_data=True, num_tensors=2))
            arrays += found.read_numpy_arrays(allow_raw_data=True)
            rows.append(
                [(*row[:3], row[3].dtype.str, row[3].tobytes(), *row[4:]) for row in arrays]
            )
    assert rows[0] == rows[1] and len(rows[0]) == 4
    with KITS[0].TensorDeserializer(str(path), "cpu", dtype=dtype) as found:
        eager = found.read_numpy_arrays(allow_raw_data=True)
        assert [row[3].tobytes() for row in eager] == [row[4] for row in rows[0]]
        cast = dtype or torch.bfloat16
        assert {found[name].dtype for name in found} <= {cast, dtype or torch.float32}
