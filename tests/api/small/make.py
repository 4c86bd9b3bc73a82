#!/usr/bin/env python3
"""Writes the small files of damaged_test.cpp beside itself; they are checked in.

Each is written by its format's own software where that can be had from PyPI. A .tensors file then
gets an index of the size that its lines need. The key is the bytes 0 to 31.
"""

import json
import sys
from pathlib import Path

import inrush.numpy
import numpy
import safetensors.numpy
import torch
from tensorizer import (
    DecryptionParams,
    EncryptionParams,
    TensorDeserializer,
    TensorSerializer,
)

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[2] / "fuzz"))
KEY = bytes(range(32))
RANDOM = numpy.random.default_rng(7)


def floats(*shape: int) -> numpy.ndarray:
    """Random values."""
    return RANDOM.random(shape).astype("f4")


def shrunk(data: bytes) -> bytes:
    """A .tensors file with an index of the size that its lines need: offsets are moved."""
    size = int.from_bytes(data[0x41:0x49], "little")
    index, records = data[0x49 : 0x49 + size], data[0x49 + size :]
    # The last line ends with the size of its tensor, of which all bytes may be zeros.
    index = index.rstrip(b"\0")
    index += bytes(16)
    moved = size - len(index)
    for offset in range(0x49 + size, len(data) + 1):
        index = index.replace(offset.to_bytes(8, "little"), (offset - moved).to_bytes(8, "little"))
    return data[:0x41] + len(index).to_bytes(8, "little") + index + records


def tensorizer_files() -> None:
    """Versions 1 to 5, and an encrypted one of each kind that has a flag for it."""
    meta = torch.empty((2, 3), device="meta")
    half = torch.from_numpy(floats(5)).to(torch.bfloat16)
    plain = {"a": torch.from_numpy(floats(3, 2)), "b": torch.arange(5)}
    files = {
        "v1": (plain, None),
        "v2": ({**plain, "c": half}, None),
        "v3": (plain, KEY),
        "v4": ({**plain, "m": meta}, None),
        "v5": ({**plain, "long": torch.empty((1 << 33, 0))}, None),
        "v4_key": ({**plain, "m": meta}, KEY),
    }
    for name, (tensors, key) in files.items():
        path = HERE / f"{name}.tensors"
        encryption = None if key is None else EncryptionParams(key=key)
        serializer = TensorSerializer(str(path), encryption=encryption)
        serializer.write_state_dict(tensors)
        serializer.close()
        data = path.read_bytes()
        assert data[5] == int(name[1]), (name, data[5])
        path.write_bytes(shrunk(data))
        if name != "v4_key":
            decryption = None if key is None else DecryptionParams.from_key(key)
            found = TensorDeserializer(
                str(path), "cpu", verify_hash=name != "v4", encryption=decryption
            )
            assert torch.equal(found["a"], plain["a"]), name


def serverless(folder: Path, index: object) -> None:
    """A folder with 88 bytes in one file."""
    folder.mkdir(exist_ok=True)
    (folder / "tensor_index.json").write_text(json.dumps(index))
    (folder / "tensor.data_0").write_bytes(floats(22).tobytes())


def main() -> None:
    """All of them."""
    from make_corpus import gguf_file, gguf_text

    arrays = {"a": floats(3, 2), "b": floats(4), "none": floats(0, 2)}
    safetensors.numpy.save_file(arrays, HERE / "plain.safetensors", {"k": "v"})
    inrush.numpy.save_file(arrays, HERE / "sealed.safetensors", encryption=KEY)
    torch.save({n: torch.from_numpy(a) for n, a in arrays.items()}, HERE / "torch.pt")
    word = gguf_text("general.name") + (8).to_bytes(4, "little") + gguf_text("tiny")
    (HERE / "model.gguf").write_bytes(gguf_file([("a", [3, 2], 0, 0), ("b", [24], 0, 32)], word, 1))
    for dialect, kind, rest in (("theirs", "torch.float32", []), ("tensora", "f32", [0])):
        index = {"a": [0, 24, [2, 3], [3, 1], kind, *rest], "b": [24, 64, [16], [1], kind, *rest]}
        serverless(HERE / dialect, index)
    tensorizer_files()


if __name__ == "__main__":
    main()
