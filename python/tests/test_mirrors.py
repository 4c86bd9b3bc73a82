"""One checkpoint from several places at once."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import random_tensor, write_file

import inrush


@pytest.fixture
def twins(tmp_path: Path) -> tuple[Path, Path, dict[str, bytes]]:
    """Two folders with the same checkpoint."""
    contents = {f"t{i}": random_tensor("BF16", [300, 700]) for i in range(8)}
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    write_file(first / "model.safetensors", contents)
    shutil.copytree(first, second)
    return first, second, {name: data for name, (_, _, data) in contents.items()}


def test_a_checkpoint_is_read_from_both_places(twins: tuple[Path, Path, dict[str, bytes]]) -> None:
    first, second, expected = twins
    with inrush.open(first, mirrors=[second]) as checkpoint, checkpoint.start() as job:
        loaded = {name: bytes(memoryview(tensor).cast("B")) for name, tensor in job}
        stats = job.stats()
    assert loaded == expected
    assert [source["uri"] for source in stats["sources"]] == [str(first), str(second)]
    assert sum(source["bytes"] for source in stats["sources"]) == stats["bytes_read"]


def test_a_place_with_other_bytes_is_refused(twins: tuple[Path, Path, dict[str, bytes]]) -> None:
    first, second, _ = twins
    path = second / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(inrush.DataError, match="it is no mirror of"):
        inrush.open(first, mirrors=[second])


def test_a_place_of_another_size_is_refused(twins: tuple[Path, Path, dict[str, bytes]]) -> None:
    first, second, _ = twins
    write_file(second / "model.safetensors", {"t0": random_tensor("U8", [5])})
    with pytest.raises(inrush.DataError, match="bytes"):
        inrush.open(first, mirrors=second)


def test_a_place_that_is_gone_is_left_out(twins: tuple[Path, Path, dict[str, bytes]]) -> None:
    first, second, expected = twins
    shutil.rmtree(first)
    with inrush.open(first, mirrors=[second]) as checkpoint, checkpoint.start() as job:
        assert set(dict(job)) == set(expected)
        assert str(first) in job.stats()["fallbacks"][0]


def test_mirrors_are_of_one_place(twins: tuple[Path, Path, dict[str, bytes]]) -> None:
    first, second, _ = twins
    with pytest.raises(inrush.UsageError, match="of one place"):
        inrush.open([first, second], mirrors=[second])


def test_the_command_line_takes_mirrors(twins: tuple[Path, Path, dict[str, bytes]]) -> None:
    first, second, _ = twins
    command = [
        sys.executable,
        "-m",
        "inrush",
        "load",
        str(first),
        "--mirror",
        str(second),
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert len(json.loads(done.stdout)["stats"]["sources"]) == 2
