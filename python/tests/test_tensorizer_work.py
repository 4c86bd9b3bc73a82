"""Work that `inrush.tensorizer` does for many tensors, counted: it grows with them, not faster."""

from __future__ import annotations

import io
import os
import threading

import pytest

torch = pytest.importorskip("torch")

from inrush.tensorizer import (  # noqa: E402
    EncryptionParams,
    TensorDeserializer,
    TensorSerializer,
    TensorType,
    _deserializer,
    _serializer,
    _source,
)

from inrush import _tensors_file, _tensors_paths  # noqa: E402


class CountingFile(io.BytesIO):
    """A file that counts what is written into it."""

    def __init__(self) -> None:
        super().__init__()
        self.written = 0

    def write(self, data) -> int:
        done = super().write(data)
        self.written += done
        return done


def random_tensors(count: int) -> dict:
    generator = torch.Generator().manual_seed(count)
    return {f"t{i}": torch.rand(i % 7 + 1, generator=generator) for i in range(count)}


def written_one_by_one(tensors: dict) -> CountingFile:
    file = CountingFile()
    serializer = TensorSerializer(file)
    for name, tensor in tensors.items():
        serializer.write_tensor(0, name, TensorType.PARAM, tensor)
    return file


def test_tensors_written_one_by_one_cost_as_much_as_they_are(monkeypatch):
    asked = []
    way_of, line = _tensors_paths.way_of, _tensors_file.Record.line
    monkeypatch.setattr(_tensors_paths, "way_of", lambda path: asked.append(path) or way_of(path))
    lines = []
    monkeypatch.setattr(
        _tensors_file.Record, "line", lambda *args, **words: lines.append(0) or line(*args, **words)
    )
    tensors = random_tensors(400)
    file = written_one_by_one(tensors)
    assert file.written < 1.5 * len(file.getvalue()) + 400 * 100
    assert len(asked) <= 2 * 400
    assert len(lines) <= 2 * 400


def test_tensors_written_one_by_one_are_those_of_one_call():
    tensors = random_tensors(50)
    whole = io.BytesIO()
    TensorSerializer(whole).write_state_dict(tensors)
    single = io.BytesIO()
    serializer = TensorSerializer(single)
    for name, tensor in tensors.items():
        serializer.write_tensor(0, name, TensorType.STATE_DICT, tensor)
    assert single.getvalue() == whole.getvalue()


def test_a_long_tensor_that_comes_later_gives_all_lines_their_tags():
    tensors = {"a": torch.rand(3), "b": torch.empty(1 << 32, 0), "c": torch.rand(2)}
    file = io.BytesIO()
    serializer = TensorSerializer(file)
    for name, tensor in tensors.items():
        serializer.write_tensor(0, name, TensorType.STATE_DICT, tensor)
    whole = io.BytesIO()
    TensorSerializer(whole).write_state_dict(tensors)
    assert file.getvalue() == whole.getvalue()
    file.seek(0)
    with TensorDeserializer(file, device="cpu") as found:
        assert found["b"].shape == (1 << 32, 0)
        assert torch.equal(found["c"], tensors["c"])


def test_a_name_that_is_refused_is_free_again_and_others_stay_taken():
    file = io.BytesIO()
    serializer = TensorSerializer(file)
    serializer.write_state_dict({"a": {"b": torch.rand(1)}})
    for state in ({"c": torch.rand(1), "a": torch.rand(1)}, {"a": {"b": {"d": torch.rand(1)}}}):
        with pytest.raises(ValueError, match="Conflicting"):
            serializer.write_state_dict(state)
    with pytest.raises(ValueError, match="Conflicting"):
        serializer.write_state_dict({"a": [torch.rand(1)]})
    serializer.write_state_dict({"c": torch.rand(1), "a": {"d": torch.rand(1)}})
    file.seek(0)
    with TensorDeserializer(file, device="cpu") as found:
        assert set(found) == {"a", "c"}


@pytest.mark.parametrize("lazily", [False, True])
def test_streams_are_read_tensor_by_tensor_without_their_index_again(monkeypatch, lazily):
    tensors = random_tensors(300)
    file = written_one_by_one(tensors)
    indexed = []
    checkpoint = _deserializer.Checkpoint

    def counted(*args, **words):
        made = checkpoint(*args, **words)
        indexed.append(len(made.keys()))
        return made

    monkeypatch.setattr(_deserializer, "Checkpoint", counted)
    file.seek(0)
    with TensorDeserializer(file, device="cpu", lazy_load=True) as found:
        if lazily:
            read = {name: found[name] for name in reversed(tensors)}
        else:
            read = {name: tensor for _, _, name, tensor in found.read_tensors()}
    assert sum(indexed) <= 3 * len(tensors)
    if not lazily:
        assert len(indexed) <= 4  # small ones are copied together
    for name, tensor in tensors.items():
        assert torch.equal(read[name], tensor)


def test_what_is_copied_and_not_yet_written_has_a_limit_in_bytes(monkeypatch):
    limit = 1000
    monkeypatch.setattr(_serializer, "_AHEAD", limit)
    begun, written, most = [], [], []
    guard = threading.Lock()
    side_by_side = threading.Event()
    encode = _tensors_file.Record.encode
    put = TensorSerializer._put

    def counted(record, data):
        with guard:
            begun.append(record.size)
            most.append(sum(begun) - sum(written))
        if len(begun) > 1:
            side_by_side.set()
        assert side_by_side.wait(60)
        return encode(record, data)

    def noted(serializer, offset, data):
        put(serializer, offset, data)
        if len(data) == 400:
            with guard:
                written.append(len(data))

    monkeypatch.setattr(_tensors_file.Record, "encode", counted)
    monkeypatch.setattr(TensorSerializer, "_put", noted)
    key = EncryptionParams.random()
    serializer = TensorSerializer(io.BytesIO(), encryption=key, limit_cpu_concurrency=16)
    serializer.write_state_dict({f"t{i}": torch.rand(100) for i in range(40)})
    assert sum(begun) == 40 * 400
    assert 400 < max(most) <= limit


def test_as_many_threads_encode_as_the_cgroup_grants(monkeypatch):
    monkeypatch.setattr(_serializer._core, "machine_json", lambda: '{"cpus": 3}')
    assert TensorSerializer(io.BytesIO()).cpu_limit == 3


def test_a_read_that_gives_less_goes_on(monkeypatch, tmp_path):
    tensors = random_tensors(20)
    path = tmp_path / "m.tensors"
    path.write_bytes(written_one_by_one(tensors).getvalue())
    pread = os.pread
    monkeypatch.setattr(_source.os, "pread", lambda fd, size, at: pread(fd, min(size, 100), at))
    for file in (str(path), io.BytesIO(path.read_bytes())):
        with TensorDeserializer(file, device="cpu") as found:
            assert list(found) == list(tensors)
            assert torch.equal(found["t6"], tensors["t6"])
