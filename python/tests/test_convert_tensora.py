"""Tensora's dialect of ServerlessLLM: written as Tensora writes it, read as it reads it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from conftest import random_tensor, write_file
from test_convert import check, nothing_left

import inrush

# Tensora's words, and the bytes of an element.
WORDS = {
    "bool": 1, "u8": 1, "i8": 1, "i16": 2, "u16": 2, "f16": 2, "f32": 4, "f64": 8, "i32": 4,
    "i64": 8, "u32": 4, "u64": 8, "bf16": 2,
}  # fmt: skip


def contents() -> dict:
    made = {f"layer.{word}": random_tensor(word.upper(), [6, 7]) for word in WORDS}
    made["scalar"] = random_tensor("F32", [])
    made["empty"] = random_tensor("F16", [0, 7])
    made["large"] = random_tensor("BF16", [3, 300_001])
    made['naïve "name"\n'] = random_tensor("U8", [4099])
    return made


@pytest.fixture
def source(tmp_path: Path) -> tuple[Path, dict]:
    tensors = contents()
    return write_file(tmp_path / "source.safetensors", tensors), tensors


def as_tensora_reads(folder: Path) -> dict:
    """By the layout's rules: each partition whole, tensors cut out of it by six elements."""
    index = json.loads((folder / "tensor_index.json").read_text(encoding="utf-8"))
    found = {}
    for name, (offset, size, shape, strides, word, partition) in index.items():
        data = (folder / f"tensor.data_{partition}").read_bytes()
        assert offset + size <= len(data)
        count = 1
        for extent, stride in zip(reversed(shape), reversed(strides), strict=True):
            assert stride == max(count, 1)
            count *= extent or 1
        assert size == (0 if 0 in shape else count * WORDS[word])
        found[name] = (word.upper(), shape, data[offset : offset + size])
    return found


def as_tensora_writes(tensors: dict, partitions: int) -> dict[str, bytes]:
    """Its converter's files: the largest first, then by name, each to the emptiest partition."""
    parts = [bytearray() for _ in range(partitions)]
    index = {}
    for name, (dtype, shape, data) in sorted(
        tensors.items(), key=lambda one: (-len(one[1][2]), one[0])
    ):
        number = min(range(partitions), key=lambda i: (len(parts[i]), i))
        strides = [1] * len(shape)
        for i in range(len(shape) - 1, 0, -1):
            strides[i - 1] = strides[i] * shape[i]
        index[name] = [len(parts[number]), len(data), shape, strides, dtype.lower(), number]
        parts[number] += data
    files = {f"tensor.data_{i}": bytes(part) for i, part in enumerate(parts)}
    ordered = {name: index[name] for name in sorted(index)}
    text = json.dumps(ordered, indent=2, ensure_ascii=False)
    return files | {"tensor_index.json": text.encode()}


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_it_is_what_tensora_reads_and_writes(tmp_path, source):
    path, tensors = source
    digests = inrush.convert(path, tmp_path / "m", to="serverlessllm", dialect="tensora")
    assert files_of(tmp_path / "m") == as_tensora_writes(tensors, 1)
    assert as_tensora_reads(tmp_path / "m") == {n: (d, s, b) for n, (d, s, b) in tensors.items()}
    assert check(tmp_path / "m", tensors).format == "serverlessllm"
    again = inrush.convert(tmp_path / "m", tmp_path / "back.safetensors", to="safetensors")
    assert again == digests
    check(tmp_path / "back.safetensors", tensors)
    assert nothing_left(tmp_path)


def test_partitions_are_as_balanced_as_tensoras_and_no_larger_than_asked(tmp_path):
    tensors = {f"w{i}": random_tensor("U8", [1000 + 37 * (i % 11)]) for i in range(40)}
    path = write_file(tmp_path / "x.safetensors", tensors)
    total = sum(len(data) for _, _, data in tensors.values())
    inrush.convert(
        path, tmp_path / "m", to="serverlessllm", dialect="tensora", shard_size=total // 3
    )
    assert files_of(tmp_path / "m") == as_tensora_writes(tensors, 4)
    # So that two never fit together, nor one of them at all.
    for size in (1500, 1100):
        folder = tmp_path / f"m{size}"
        inrush.convert(path, folder, to="serverlessllm", dialect="tensora", shard_size=size)
        check(folder, tensors)
        assert len(files_of(folder)) == 41
        assert as_tensora_reads(folder).keys() == tensors.keys()


def test_ranks_are_folders(tmp_path, source):
    path, tensors = source
    inrush.convert(path, tmp_path / "m", to="serverlessllm", dialect="tensora", ranks=3)
    merged: dict = {}
    for rank in range(3):
        part = as_tensora_reads(tmp_path / "m" / f"rank_{rank}")
        assert part and not part.keys() & merged.keys()
        merged |= part
        check(tmp_path / "m" / f"rank_{rank}", part)
    assert merged == {n: (d, s, b) for n, (d, s, b) in tensors.items()}
    assert len(inrush.open(tmp_path / "m")) == len(tensors)


def test_tensors_without_bytes_alone_are_a_checkpoint(tmp_path):
    tensors = {"a": random_tensor("F32", [0]), "b": random_tensor("U8", [3, 0])}
    path = write_file(tmp_path / "x.safetensors", tensors)
    inrush.convert(path, tmp_path / "m", to="serverlessllm", dialect="tensora")
    check(tmp_path / "m", tensors)
    assert (tmp_path / "m" / "tensor.data_0").read_bytes() == b""


@pytest.mark.parametrize("dialect", ["original", "tensora"])
def test_what_was_interrupted_goes_on(tmp_path, source, monkeypatch, dialect):
    from inrush import _convert, _destination

    path, tensors = source
    write, written = _destination.Folder.write, []

    def fails_later(self, name, offset, data):
        written.append(name)
        if len(written) > 8:
            raise inrush.SourceError("no space left")
        write(self, name, offset, data)

    monkeypatch.setattr(_convert, "_RECORD_EVERY", 0)
    tensors.pop('naïve "name"\n')
    words = {
        "to": "serverlessllm", "dialect": dialect, "shard_size": 1_500_000,
        "include": list(tensors), "exclude": [],
    }  # fmt: skip
    if dialect == "original":
        words["exclude"] = ["*bool", "*u16", "*u32", "*u64"]
        tensors = {n: t for n, t in tensors.items() if t[0] not in ("BOOL", "U16", "U32", "U64")}
    with monkeypatch.context() as patched:
        patched.setattr(_destination.Folder, "write", fails_later)
        with pytest.raises(inrush.SourceError, match="no space"):
            inrush.convert(path, tmp_path / "m", **words)
    assert "digest" in (tmp_path / ".m.inrush-partial" / ".ledger").read_text()
    other = {**words, "dialect": "tensora" if dialect == "original" else "original"}
    other["include"] = "layer.f32"
    with pytest.raises(inrush.DataError, match="another work"):
        inrush.convert(path, tmp_path / "m", **other, resume=True)
    pieces = []

    def counts(self, name, offset, data):
        pieces.append(0 if name.endswith(".json") else len(data))
        write(self, name, offset, data)

    monkeypatch.setattr(_destination.Folder, "write", counts)
    inrush.convert(path, tmp_path / "m", **words, resume=True)
    assert 0 < sum(pieces) < sum(len(data) for *_, data in tensors.values())
    check(tmp_path / "m", tensors)
    inrush.convert(path, tmp_path / "whole", **words)
    assert files_of(tmp_path / "whole") == files_of(tmp_path / "m")


def test_what_was_written_wrongly_is_found(tmp_path, source, monkeypatch):
    from inrush import _destination

    settling = _destination.Folder.settling

    def damage(self, ledger):
        with open(os.path.join(self.path, "tensor.data_0"), "r+b") as file:
            file.seek(-1, os.SEEK_END)
            byte = file.read(1)[0]
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte ^ 1]))
        return settling(self, ledger)

    monkeypatch.setattr(_destination.Folder, "settling", damage)
    with pytest.raises(inrush.DataError, match="is not what was written there"):
        inrush.convert(source[0], tmp_path / "m", to="serverlessllm", dialect="tensora")
    assert nothing_left(tmp_path) and not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    "words",
    [
        {"to": "serverlessllm", "dialect": "tensorA"},
        {"to": "safetensors", "dialect": "tensora"},
        {"to": "tensorizer", "dialect": "original"},
    ],
)
def test_dialects_that_are_none_are_refused(tmp_path, source, words):
    with pytest.raises(inrush.UsageError, match="dialect="):
        inrush.convert(source[0], tmp_path / "y", **words)


def test_types_that_it_has_no_word_for_are_refused(tmp_path):
    path = write_file(tmp_path / "x.safetensors", {"a": random_tensor("F8_E4M3", [4])})
    with pytest.raises(inrush.UsageError, match="cannot restore F8_E4M3"):
        inrush.convert(path, tmp_path / "y", to="serverlessllm", dialect="tensora")


def test_the_command_line_writes_it(tmp_path, source, inrush_command):
    path, tensors = source
    for dialect, entries in (("original", 5), ("tensora", 6)):
        out = tmp_path / dialect
        done = inrush_command(
            "convert", path, out, "--to", "serverlessllm", "--dialect", dialect, "--include",
            "layer.f*", "--exclude", "*64",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        index = json.loads((out / "tensor_index.json").read_text())
        assert {len(one) for one in index.values()} == {entries}
        check(out, {name: tensors[name] for name in index})
    done = inrush_command("convert", path, tmp_path / "z", "--to=tensorizer", "--dialect=tensora")
    assert done.returncode == 2 and "dialect" in done.stderr
