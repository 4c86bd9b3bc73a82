"""Headers changed at random: inrush refuses what safetensors refuses, and duplicates besides."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

import inrush

safetensors = pytest.importorskip("safetensors", reason="the safetensors package is the judge")

FRAGMENTS = [
    "{", "}", "[", "]", ",", ":", '"', "null", "true", "-0", "1e3", "1.0", "0", "1", "4", "16",
    "01", "18446744073709551615", "18446744073709551616", '"a"', '"U8"', '"F32"', '"F4"', '"dtype"',
    '"shape"', '"data_offsets"', '"__metadata__"', "\\u0061", "\\ud800", "\\", "\x00", "\n", " ",
    "\t", "\u00e9", "\x7f", "//", "[0,0]", "[]", "{}", '"x":{}', ',"a":1',
]  # fmt: skip

ROUNDS = 6
FILES = 250  # in each round


def header(draw: random.Random) -> tuple[bytes, int]:
    """A good header, now and then with odd things in it, and the size of its data."""
    tensors: dict[str, object] = {}
    offset = 0
    for i in range(draw.randint(0, 4)):
        dtype, size = draw.choice([("U8", 1), ("F32", 4), ("I64", 8), ("BF16", 2)])
        shape = [draw.randint(0, 3) for _ in range(draw.randint(0, 3))]
        for extent in shape:
            size *= extent
        entry: dict[str, object] = {
            "dtype": dtype,
            "shape": shape,
            "data_offsets": [offset, offset + size],
        }
        if draw.random() < 0.2:
            entry["extra"] = draw.choice([1, [1, {"a": None}], "x", 1.5])
        tensors[draw.choice("abcdefgh") + str(i)] = entry
        offset += size
    if draw.random() < 0.3:
        tensors["__metadata__"] = draw.choice([{"k": "v"}, {"k": "v"}, {}, None, {"a": 1}, [], "x"])
    text = json.dumps(tensors, separators=draw.choice([(",", ":"), (", ", ": ")]))
    return (draw.choice(["", "", " ", "\n\t"]) + text + " " * draw.randint(0, 8)).encode(), offset


def change(draw: random.Random, text: bytes) -> bytes:
    """Up to three small changes."""
    changed = bytearray(text)
    for _ in range(draw.choice([0, 1, 1, 1, 2, 3])):
        at = draw.randrange(len(changed) + 1)
        fragment = draw.choice(FRAGMENTS).encode()
        way = draw.randrange(4)
        if way == 0:
            changed[at:at] = fragment
        elif way == 1:
            del changed[at : at + draw.randint(1, 3)]
        elif way == 2 and at < len(changed):
            changed[at] ^= 1 << draw.randrange(8)
        else:
            changed[at : at + len(fragment)] = fragment
    return bytes(changed)


def hostile_file(draw: random.Random) -> bytes:
    """A whole file, whose lengths may be wrong by one."""
    text, size = header(draw)
    text = change(draw, text)
    length = max(0, len(text) + draw.choice([0] * 20 + [1, -1]))
    size = max(0, size + draw.choice([0] * 8 + [1, -1]))
    return struct.pack("<Q", length) + text + bytes(size)


def names_of(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """For json: an object, unless it has a key twice."""
    if len({key for key, _ in pairs}) != len(pairs):
        raise KeyError("twice")
    return dict(pairs)


def has_duplicate(file: bytes) -> bool:
    """Whether some object of the header has a key twice."""
    (length,) = struct.unpack("<Q", file[:8])
    try:
        json.loads(file[8 : 8 + length], object_pairs_hook=names_of)
    except KeyError:
        return True
    except ValueError:
        return False
    return False


def outcome(action: Callable[[], int], error: type[Exception]) -> int | None:
    """How many tensors there are, or None for a refusal."""
    try:
        return action()
    except error:
        return None


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_a_changed_header_is_judged_as_safetensors_judges_it(seed: int, tmp_path: Path) -> None:
    draw = random.Random(seed)
    path = tmp_path / "x.safetensors"
    for _ in range(FILES):
        file = hostile_file(draw)
        path.write_bytes(file)
        ours = outcome(lambda: len(inrush.open(path)), inrush.DataError)
        theirs = outcome(
            lambda content=file: len(safetensors.deserialize(content)), safetensors.SafetensorError
        )
        assert ours == theirs or (ours is None and has_duplicate(file)), file


def test_an_error_names_file_range_and_reason(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    text = b'{"w":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}'
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(8))
    with pytest.raises(inrush.DataError, match=r"x\.safetensors \[8, \+54\).*F32\[3\] takes 12"):
        inrush.open(path)


def test_a_hostile_name_does_not_reach_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    text = b'{"\\u001b[2J":{"dtype":"U8","shape":[9],"data_offsets":[0,1]}}'
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(1))
    with pytest.raises(inrush.DataError) as caught:
        inrush.open(path)
    assert "\x1b" not in str(caught.value)
