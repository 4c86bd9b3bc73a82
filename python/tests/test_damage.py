"""Every format cut off at every byte, and with single bits changed: an error, or what was there."""

from __future__ import annotations

import json
import struct
import warnings

import pytest

np = pytest.importorskip("numpy")
torch = pytest.importorskip("torch")

import inrush.numpy  # noqa: E402
from inrush._tensors_file import HEAD_SIZE, Record, head_of  # noqa: E402

import inrush  # noqa: E402

KEY = bytes(range(32))
VALUES = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.arange(5, dtype=np.int64)}


def write_safetensors(path) -> None:
    inrush.numpy.save_file(VALUES, path)


def write_sealed(path) -> None:
    inrush.numpy.save_file(VALUES, path, encryption=KEY)


def write_tensors(path) -> None:
    """Without the zeros of tensorizer's index, so that every byte can be tried."""
    codes = {"a": "<f4", "b": "<i8"}
    records = [
        Record(name.encode(), codes[name], value.shape, value.nbytes)
        for name, value in VALUES.items()
    ]
    index_size = sum(len(record.line(0, tagged=False)) for record in records)
    lines = body = b""
    for record, value in zip(records, VALUES.values(), strict=True):
        lines += record.line(HEAD_SIZE + index_size + len(body), tagged=False)
        header, data = record.encode(memoryview(value).cast("B"))
        body += header + bytes(data)
    size = sum(value.nbytes for value in VALUES.values())
    head = head_of(1, len(records), size, index_size, encrypted=False)
    path.write_bytes(head + lines + body + bytes(8))


def write_pytorch(path) -> None:
    torch.save({name: torch.from_numpy(value) for name, value in VALUES.items()}, path)


def write_gguf(path) -> None:
    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    head = b"GGUF" + struct.pack("<IQQ", 3, 2, 1) + text("general.name") + struct.pack("<I", 8)
    head += text("x")
    head += text("a") + struct.pack("<IQQIQ", 2, 3, 2, 0, 0)
    head += text("b") + struct.pack("<IQIQ", 1, 5, 27, 32)
    head += bytes(-len(head) % 32)
    path.write_bytes(head + VALUES["a"].tobytes() + bytes(8) + VALUES["b"].tobytes() + bytes(24))


WRITERS = {
    "safetensors": write_safetensors,
    "sealed": write_sealed,
    "tensorizer": write_tensors,
    "pytorch": write_pytorch,
    "gguf": write_gguf,
}


def loaded(path, **options) -> dict:
    if inrush.open(path).format == "sealed":
        options["encryption"] = KEY
    return inrush.open(path, framework="np", **options).load()


def right(found) -> bool:
    return set(found) == set(VALUES) and all(
        found[name].shape == value.shape and found[name].tobytes() == value.tobytes()
        for name, value in VALUES.items()
    )


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_cut_off_anywhere_is_an_error_or_lacks_nothing(tmp_path, name):
    path = tmp_path / "model"
    WRITERS[name](path)
    assert inrush.open(path).format == name
    assert right(loaded(path))
    data = path.read_bytes()
    step = 1 if len(data) < 4096 else 13
    refused = 0
    for size in range(0, len(data), step):
        path.write_bytes(data[:size])
        try:
            assert right(loaded(path)), size
        except inrush.Error as error:
            refused += 1
            assert "model" in str(error), size
    assert refused * step >= len(data) - 32  # padding at the end may be missing


@pytest.mark.parametrize("name", ["sealed", "tensorizer"])
def test_a_changed_bit_is_found_where_there_are_checksums(tmp_path, name):
    path = tmp_path / "model"
    WRITERS[name](path)
    data = path.read_bytes()
    options = {"verify": "full"} if name == "tensorizer" else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for place in range(0, len(data), 1 if len(data) < 4096 else 7):
            changed = bytearray(data)
            changed[place] ^= 1 << place % 8
            path.write_bytes(changed)
            try:
                assert right(loaded(path, **options)), place
            except inrush.Error as error:
                assert "model" in str(error), place


def test_serverless_parts_cut_off_anywhere_are_an_error_or_lack_nothing(tmp_path):
    write_safetensors(tmp_path / "x.safetensors")
    folder = tmp_path / "model"
    inrush.convert(tmp_path / "x.safetensors", folder, to="serverlessllm")
    for name in ("tensor_index.json", "tensor.data_0"):
        data = (folder / name).read_bytes()
        for size in range(0, len(data), 1 if len(data) < 1000 else 11):
            (folder / name).write_bytes(data[:size])
            try:
                assert right(loaded(folder)), (name, size)
            except inrush.Error as error:
                assert "model" in str(error), (name, size)
        (folder / name).write_bytes(data)
    assert right(loaded(folder))
    assert json.loads((folder / "tensor_index.json").read_text())


def tensors_of(version: int) -> tuple[dict, bytes | None]:
    """What makes tensorizer's rules choose that version, and the key if it is encrypted."""
    more = {
        1: {},
        2: {"c": {"d": [torch.rand(3).bfloat16()]}},
        3: {},
        4: {"m": torch.empty(3, device="meta")},
        5: {"l": torch.empty(1 << 32, 0)},
    }
    plain = {name: torch.from_numpy(value) for name, value in VALUES.items()}
    return {**plain, **more[version]}, KEY if version == 3 else None


@pytest.mark.parametrize("version", [1, 2, 3, 4, 5])
def test_tensorizers_class_gives_what_was_there_or_a_documented_error(monkeypatch, version):
    import io

    import inrush.tensorizer as kit
    from inrush.tensorizer import _serializer
    from inrush.tensorizer.serialization import HashMismatchError

    monkeypatch.setattr(_serializer, "INDEX_SIZE", 16)  # so that every byte can be tried
    state, key = tensors_of(version)
    file = io.BytesIO()
    encryption = None if key is None else kit.EncryptionParams(key)
    kit.TensorSerializer(file, encryption=encryption).write_state_dict(state)
    data = file.getvalue()
    assert data[5] == version
    decryption = None if key is None else kit.DecryptionParams.from_key(key)

    def deserialized(damaged: bytes) -> bool:
        with kit.TensorDeserializer(
            io.BytesIO(damaged), device="cpu", verify_hash=True, encryption=decryption
        ) as found:
            assert set(found) == set(state)
            return all(
                found[name].detach().numpy().tobytes() == VALUES[name].tobytes() for name in VALUES
            )

    assert deserialized(data)
    errors = (inrush.DataError, kit.CryptographyError, HashMismatchError)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for place in range(0, len(data), 3):
            with pytest.raises(errors):
                deserialized(data[:place])
            changed = bytearray(data)
            changed[place] ^= 1 << place // 3 % 8
            try:
                assert deserialized(bytes(changed)), place
            except errors:
                continue
