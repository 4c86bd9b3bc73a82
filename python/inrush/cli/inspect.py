"""inrush inspect: what a checkpoint holds, from its headers."""

from __future__ import annotations

import re
from collections import Counter
from typing import Annotated, Any

import typer

import inrush
from inrush._checks import checks_of
from inrush.cli._common import (
    Json,
    KeyCommand,
    KeyFile,
    PassphraseFile,
    Sources,
    StorageOptions,
    base_name,
    console,
    encryption_words,
    facts_table,
    load_words,
    one_or_several,
    plain_table,
    print_json,
    shortened,
    shown,
    size_text,
)

_NUMBER = re.compile(r"\d+")


def inspect(
    sources: Sources,
    *,
    every: Annotated[
        bool, typer.Option("--all", help="One row for each tensor; do not fold layers.")
    ] = False,
    key_file: KeyFile = None,
    passphrase_file: PassphraseFile = None,
    key_command: KeyCommand = None,
    storage_options: StorageOptions = None,
    json: Json = False,
) -> None:
    """Show tensors, dtypes, shapes, sizes, shards and metadata; a key that is given must fit."""
    words = load_words(storage_options=storage_options)
    words |= encryption_words(key_file, passphrase_file, key_command)
    with inrush.open(one_or_several(sources), **words) as checkpoint:
        if checkpoint._options.key is not None:
            _check_key(checkpoint)
        if json:
            print_json("inspect", _values(checkpoint))
            return
        rows = _each(checkpoint) if every else _folded(checkpoint)
        _print(checkpoint, rows)


def _check_key(checkpoint: inrush.Checkpoint) -> None:
    """Decrypt the least of each file: headers of tensorizer's files do not tell a wrong key."""
    checks_of(checkpoint._opened(), checkpoint._options)
    least: dict[str, inrush.TensorInfo] = {}
    for info in checkpoint.values():
        known = least.get(info.file)
        if info.nbytes and (known is None or info.nbytes < known.nbytes):
            least[info.file] = info
    for info in least.values():
        checkpoint.tensor(info.name, framework=None)


def _values(checkpoint: inrush.Checkpoint) -> dict[str, Any]:
    return {
        "uri": checkpoint.uri,
        "format": checkpoint.format,
        "count": len(checkpoint),
        "nbytes": checkpoint.nbytes,
        "files": [{"name": name, "size": size} for name, size in checkpoint.files],
        "metadata": checkpoint.file_metadata,
        "tensors": [
            {
                "name": info.name,
                "dtype": info.dtype,
                "shape": list(info.shape),
                "nbytes": info.nbytes,
                "file": info.file,
                "offset": info.offset,
            }
            for info in checkpoint.values()
        ],
    }


class Row:
    """Tensors that differ only in the numbers of their names."""

    def __init__(self, info: inrush.TensorInfo) -> None:
        self.info = info
        self.count = 0
        self.nbytes = 0
        self.numbers: list[set[str]] = [set() for _ in _NUMBER.findall(info.name)]

    def add(self, info: inrush.TensorInfo) -> None:
        """Count one more tensor."""
        self.count += 1
        self.nbytes += info.nbytes
        for seen, number in zip(self.numbers, _NUMBER.findall(info.name), strict=True):
            seen.add(number)

    @property
    def name(self) -> str:
        """The name, with a range where its numbers differ: 'layers.{0..31}.weight'."""
        ranges = iter(self.numbers)

        def text(match: re.Match[str]) -> str:
            seen = sorted(next(ranges), key=int)
            return match[0] if len(seen) == 1 else f"{{{seen[0]}..{seen[-1]}}}"

        return _NUMBER.sub(text, self.info.name)


def _each(checkpoint: inrush.Checkpoint) -> list[Row]:
    rows = [Row(info) for info in checkpoint.values()]
    for row in rows:
        row.add(row.info)
    return rows


def _folded(checkpoint: inrush.Checkpoint) -> list[Row]:
    rows: dict[tuple[Any, ...], Row] = {}
    for info in checkpoint.values():
        key = (_NUMBER.sub("#", info.name), info.dtype, info.shape)
        rows.setdefault(key, Row(info)).add(info)
    return list(rows.values())


def _print(checkpoint: inrush.Checkpoint, rows: list[Row]) -> None:
    out = console()
    table = plain_table("tensor", "count", "dtype", "shape", "size", right=("count", "size"))
    for row in rows:
        shape = " x ".join(str(extent) for extent in row.info.shape) or "scalar"
        count = str(row.count) if row.count > 1 else ""
        name = shortened(row.name) if out.is_terminal else shown(row.name)
        table.add_row(name, count, row.info.dtype, shape, size_text(row.nbytes))
    out.print(table)
    out.print()

    files = plain_table("file", "size", "tensors", right=("size", "tensors"))
    held = Counter(info.file for info in checkpoint.values())
    for name, size in checkpoint.files:
        files.add_row(shown(base_name(name)), size_text(size), str(held[name]))
    out.print(files)
    out.print()

    dtypes: Counter[str] = Counter()
    for row in rows:
        dtypes[row.info.dtype] += row.nbytes
    facts = [
        ("place", shown(checkpoint.uri)),
        ("format", checkpoint.format),
        ("tensors", f"{len(checkpoint)}, {size_text(checkpoint.nbytes)}"),
        ("dtypes", ", ".join(f"{name} {size_text(size)}" for name, size in dtypes.most_common())),
    ]
    facts += [
        (f"metadata {shortened(key)}", shortened(value))
        for key, value in checkpoint.metadata.items()
    ]
    out.print(facts_table(facts))
