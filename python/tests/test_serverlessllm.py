"""ServerlessLLM folders of both dialects, written here by the layout's own rules."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

import inrush

SIZES = {"F32": 4, "BF16": 2, "U8": 1, "I64": 8}
THEIRS = {
    "F32": "torch.float32",
    "BF16": "torch.bfloat16",
    "U8": "torch.uint8",
    "I64": "torch.int64",
}
TENSORA = {"F32": "f32", "BF16": "bf16", "U8": "u8", "I64": "i64"}


def strides_of(shape: list[int]) -> list[int]:
    strides, stride = [], 1
    for extent in reversed(shape):
        strides.insert(0, stride)
        stride *= extent
    return strides


def contents() -> dict[str, tuple[str, list[int], bytes]]:
    made = {}
    for i, (dtype, shape) in enumerate(
        [("F32", [3, 5]), ("BF16", [7]), ("U8", [13]), ("I64", []), ("F32", [0, 4]), ("U8", [4099])]
    ):
        count = int(np.prod(shape, dtype=np.int64))
        made[f"layer.{i}"] = (dtype, shape, os.urandom(count * SIZES[dtype]))
    return made


def write_theirs(folder: Path, tensors: dict, files: int = 2) -> dict:
    """As sllm_store does: 8-byte records, offsets over all files, sizes of storages."""
    folder.mkdir(parents=True, exist_ok=True)
    index, parts = {}, [bytearray() for _ in range(files)]
    per_file = -(-len(tensors) // files)
    for i, (name, (dtype, shape, data)) in enumerate(tensors.items()):
        part = parts[i // per_file]
        part += bytes(-len(part) % 8)
        begin = sum(map(len, parts[: i // per_file])) + len(part)
        index[name] = [begin, len(data), shape, strides_of(shape), THEIRS[dtype]]
        part += data
    for i, part in enumerate(parts):
        (folder / f"tensor.data_{i}").write_bytes(part)
    (folder / "tensor_index.json").write_text(json.dumps(index))
    return index


def write_tensora(folder: Path, tensors: dict, files: int = 2) -> dict:
    folder.mkdir(parents=True, exist_ok=True)
    index, parts = {}, [bytearray() for _ in range(files)]
    for i, (name, (dtype, shape, data)) in enumerate(sorted(tensors.items())):
        part = parts[i % files]
        index[name] = [len(part), len(data), shape, strides_of(shape), TENSORA[dtype], i % files]
        part += data
    for i, part in enumerate(parts):
        (folder / f"tensor.data_{i}").write_bytes(part)
    (folder / "tensor_index.json").write_text(json.dumps(index, indent=2))
    return index


WRITERS = {"theirs": write_theirs, "tensora": write_tensora}


def check(checkpoint: inrush.Checkpoint, tensors: dict, prefix: str = "") -> None:
    loaded = checkpoint.load()
    for name, (dtype, shape, data) in tensors.items():
        tensor = loaded[prefix + name]
        assert (tensor.dtype, list(tensor.shape)) == (dtype, shape)
        assert bytes(tensor.as_bytes()) == data


@pytest.mark.parametrize("dialect", WRITERS)
@pytest.mark.parametrize("files", [1, 2, 3])
def test_both_dialects_are_read(tmp_path, dialect, files):
    tensors = contents()
    WRITERS[dialect](tmp_path / "model", tensors, files)
    checkpoint = inrush.open(tmp_path / "model")
    assert checkpoint.format == "serverlessllm"
    assert len(checkpoint.files) == files
    assert set(checkpoint) == set(tensors)
    check(checkpoint, tensors)


def test_the_index_file_can_be_named(tmp_path):
    tensors = contents()
    write_theirs(tmp_path / "model", tensors)
    check(inrush.open(tmp_path / "model" / "tensor_index.json"), tensors)


@pytest.mark.parametrize("backend", ["uring", "pread_buffered", "mmap", "aio"])
def test_any_backend_reads_it(tmp_path, backend):
    tensors = contents()
    write_tensora(tmp_path / "model", tensors)
    check(inrush.open(tmp_path / "model", backend=backend), tensors)


def test_ranks_are_folders_and_go_before_the_names(tmp_path):
    ranks = [contents(), contents()]
    for i, tensors in enumerate(ranks):
        write_theirs(tmp_path / f"rank_{i}", tensors)
    (tmp_path / "config.json").write_text("{}")
    checkpoint = inrush.open(tmp_path)
    assert len(checkpoint) == 2 * len(ranks[0])
    for i, tensors in enumerate(ranks):
        check(checkpoint, tensors, f"rank_{i}/")
    check(inrush.open(tmp_path / "rank_1"), ranks[1])


def test_a_rank_that_is_missing_is_named(tmp_path):
    ranks = {i: contents() for i in (0, 1, 3)}
    for i, tensors in ranks.items():
        write_theirs(tmp_path / "m" / f"rank_{i}", tensors)
    for act in (
        lambda: inrush.open(tmp_path / "m"),
        lambda: inrush.convert(tmp_path / "m", tmp_path / "to", to="safetensors"),
    ):
        with pytest.raises(inrush.DataError, match=r"1 of them is not: rank_2/tensor_index\.json"):
            act()
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
    check(inrush.open(tmp_path / "m" / "rank_3"), ranks[3])


def test_tied_tensors_share_bytes_and_each_gets_its_own(tmp_path):
    data = os.urandom(24)
    write_theirs(tmp_path, {"a": ("F32", [2, 3], data)}, files=1)
    index = json.loads((tmp_path / "tensor_index.json").read_text())
    index["b"] = index["a"]
    (tmp_path / "tensor_index.json").write_text(json.dumps(index))
    loaded = inrush.open(tmp_path).load()
    assert bytes(loaded["a"]) == bytes(loaded["b"]) == data
    assert loaded["a"].data_ptr != loaded["b"].data_ptr


def test_strides_are_followed(tmp_path):
    stored = np.arange(12, dtype="<f4").reshape(3, 4)
    (tmp_path / "tensor.data_0").write_bytes(stored.tobytes() + stored.tobytes()[4:])
    index = {
        "t": [0, 48, [4, 3], [1, 4], "torch.float32"],
        "column": [48, 44, [3], [4], "torch.float32"],
        "again": [0, 16, [5, 4], [0, 1], "torch.float32"],
    }
    (tmp_path / "tensor_index.json").write_text(json.dumps(index))
    loaded = inrush.open(tmp_path, framework="np").load()
    np.testing.assert_array_equal(loaded["t"], stored.T)
    np.testing.assert_array_equal(loaded["column"], stored[:, 1])
    np.testing.assert_array_equal(loaded["again"], np.broadcast_to(stored[0], (5, 4)))
    one = inrush.open(tmp_path, framework="np").tensor("t", (slice(1, 3), slice(0, 2)))
    np.testing.assert_array_equal(one, stored.T[1:3, 0:2])


@pytest.mark.parametrize("dialect", WRITERS)
def test_files_cut_anywhere_are_refused(tmp_path, dialect):
    tensors = {"a": ("F32", [3, 5], os.urandom(60)), "b": ("U8", [13], os.urandom(13))}
    WRITERS[dialect](tmp_path, tensors, files=1)
    data = (tmp_path / "tensor.data_0").read_bytes()
    for size in range(len(data)):
        (tmp_path / "tensor.data_0").write_bytes(data[:size])
        with pytest.raises(inrush.DataError, match="truncated"):
            inrush.open(tmp_path)
    (tmp_path / "tensor.data_0").write_bytes(data)
    text = (tmp_path / "tensor_index.json").read_bytes()
    for size in range(len(text)):
        (tmp_path / "tensor_index.json").write_bytes(text[:size])
        with pytest.raises(inrush.DataError, match=r"tensor_index\.json"):
            inrush.open(tmp_path)


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ([0, 8, [2], [1], "torch.float32", 1], "partition 1"),
        ([0, 8, [2], [1], "torch.float32", 0, 7], "more than 6"),
        ([0, 8, [2], [1]], "4 elements"),
        ([0, 8, [2], [1], "torch.load"], "not known"),
        ([0, 8, [2], [1], "f99"], "not known"),
        ([0, 7, [2], [1], "torch.float32"], "takes 8 bytes"),
        ([60, 8, [2], [1], "torch.float32"], "past the end"),
        ([2**64 - 8, 16, [2], [1], "torch.float32"], "past the end"),
        ([0, 8, [2**62, 4], [4, 1], "torch.float32"], "overflows"),
        ([0, 8, [2], [2**62], "torch.float32"], "overflows"),
        ([0, 8, [2], [2], "torch.float32"], "takes 12 bytes"),
        ([0, 8, [2], [1, 1], "torch.float32"], "2 strides"),
        ([0, 4, [200_000_000], [0], "torch.float32"], "repeat 4 bytes until they are 800000000"),
        ([0, 8, [1] * 65, [1] * 65, "torch.float32"], "dimensions"),
        ([-1, 8, [2], [1], "torch.float32"], "unsigned"),
        ([0.5, 8, [2], [1], "torch.float32"], "unsigned"),
        ("x", "array"),
    ],
)
def test_hostile_entries_are_refused_by_name(tmp_path, entry, reason):
    (tmp_path / "tensor.data_0").write_bytes(bytes(64))
    (tmp_path / "tensor_index.json").write_text(json.dumps({"bad": entry}))
    with pytest.raises(inrush.DataError, match=reason):
        inrush.open(tmp_path)


def test_what_contradicts_itself_is_refused(tmp_path):
    whole = [0, 4, [4], [1], "u8"]
    (tmp_path / "tensor.data_0").write_bytes(bytes(4))
    for text, reason in (
        (json.dumps({"a": whole, "b": [*whole, 0]}), "5"),
        ('{"a": [0,4,[4],[1],"u8"], "a": [0,4,[4],[1],"u8"]}', "twice"),
        ("{}", "no tensor"),
        ("[]", "object"),
    ):
        (tmp_path / "tensor_index.json").write_text(text)
        with pytest.raises(inrush.DataError, match=rf"tensor_index\.json .*{reason}"):
            inrush.open(tmp_path)
    (tmp_path / "tensor_index.json").write_text(json.dumps({"a": whole}))
    (tmp_path / "tensor.data_0").unlink()
    with pytest.raises(inrush.DataError, match=r"no tensor\.data_0"):
        inrush.open(tmp_path)


@pytest.mark.parametrize("partition", [[], [0]])
def test_tensors_that_share_some_bytes_only_are_refused(tmp_path, partition):
    (tmp_path / "tensor.data_0").write_bytes(os.urandom(64))

    def entry(offset: int, size: int) -> list:
        return [offset, size, [size], [1], "u8", *partition]

    def opened(**entries: list) -> inrush.Checkpoint:
        (tmp_path / "tensor_index.json").write_text(json.dumps(entries))
        return inrush.open(tmp_path)

    assert len(opened(a=entry(0, 32), b=entry(32, 32), none=entry(16, 0), tied=entry(0, 32))) == 4
    assert len(opened(a=entry(0, 32), part=entry(0, 8), b=entry(32, 8))) == 3
    for wrong in (
        {"a": entry(0, 33), "b": entry(32, 32)},
        {"b": entry(32, 32), "a": entry(0, 33)},
        {"a": entry(0, 64), "x": entry(0, 8), "b": entry(8, 8)},
        {"a": entry(0, 64), "c": entry(63, 1)},
    ):
        with pytest.raises(inrush.DataError, match=r'index\.json .*tensor "[bc]".*overlap.*"a"'):
            opened(**wrong)


def test_strides_that_make_elements_overlap_are_refused_with_the_file(tmp_path):
    (tmp_path / "tensor.data_0").write_bytes(os.urandom(64))
    index = {"w": [0, 64, [4, 3], [2, 1], "torch.float32"]}
    (tmp_path / "tensor_index.json").write_text(json.dumps(index))
    with pytest.raises(inrush.DataError, match=r'"w".*elements overlap, in .*tensor\.data_0'):
        inrush.open(tmp_path).load()


def test_a_tensor_across_two_files_is_refused(tmp_path):
    (tmp_path / "tensor.data_0").write_bytes(bytes(6))
    (tmp_path / "tensor.data_1").write_bytes(bytes(6))
    index = {"a": [4, 4, [4], [1], "torch.uint8"]}
    (tmp_path / "tensor_index.json").write_text(json.dumps(index))
    with pytest.raises(inrush.DataError, match="a later file"):
        inrush.open(tmp_path)
