"""Commands that read all of a checkpoint: where from and how, by the same flags."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from conftest import Command, Contents, random_tensor, write_file
from servers import nginx

READING = ("load", "manifest", "verify")


def values(done: object) -> dict:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def arguments(command: str, tmp_path: Path) -> list[object]:
    return ["-o", tmp_path / "manifest.json"] if command == "manifest" else []


@pytest.mark.parametrize("command", READING)
def test_backend_budget_and_mirror_are_obeyed(
    inrush_command: Command, sharded: tuple[Path, Contents], tmp_path: Path, command: str
) -> None:
    folder, contents = sharded
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    flags = ["--backend", "pread", "--budget", "8MiB", "--page-cache", "keep", "--mirror", other]
    done = inrush_command(command, folder, *arguments(command, tmp_path), *flags, "--json")
    stats = values(done)["stats"]
    assert stats["choice"].startswith("pread")
    assert stats["budget"] == 8 << 20
    assert [source["uri"] for source in stats["sources"]] == [str(folder), str(other)]
    assert stats["bytes"] == sum(len(data) for _, _, data in contents.values())
    little = inrush_command(command, folder, *arguments(command, tmp_path), "--budget", "4096")
    assert little.returncode == 4
    shutil.rmtree(other)
    other.mkdir()
    write_file(other / "model.safetensors", {"x": random_tensor("U8", [5])})
    done = inrush_command(command, folder, *arguments(command, tmp_path), "--mirror", other)
    assert done.returncode == 1, done.stderr


@pytest.mark.parametrize("command", READING)
def test_what_is_read_of_a_far_place_is_kept(
    inrush_command: Command, tmp_path: Path, command: str
) -> None:
    root, kept = tmp_path / "served", tmp_path / "kept"
    root.mkdir()
    path = write_file(root / "model.safetensors", {"t": random_tensor("F32", [1024, 512])})
    flags = [*arguments(command, tmp_path), "--cache-dir", kept, "--cache-size", "1GB", "--json"]
    with nginx(root, tmp_path / "nginx") as port:
        uri = f"http://127.0.0.1:{port}/model.safetensors"
        values(inrush_command(command, uri, *flags))
        listed = values(inrush_command("cache", "ls", "--cache-dir", kept, "--json"))
        (checkpoint,) = listed["checkpoints"]
        assert checkpoint["uri"] == uri
        assert [one["present"] for one in checkpoint["files"]] == [path.stat().st_size]


def lines_in_terminal(columns: int, *words: object) -> list[str]:
    """What a command shows in a terminal of so many columns, line by line."""
    parent, child_end = pty.openpty()
    fcntl.ioctl(child_end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    child = subprocess.Popen(
        [sys.executable, "-m", "inrush", *map(str, words)],
        stdout=child_end,
        env={**os.environ, "TERM": "xterm", "COLUMNS": str(columns)},
    )
    os.close(child_end)
    shown = b""
    with contextlib.suppress(OSError):  # the terminal goes with the child
        while chunk := os.read(parent, 65536):
            shown += chunk
    os.close(parent)
    assert child.wait() == 0
    return re.sub(r"\x1b\[[0-9;]*m|\r", "", shown.decode()).splitlines()


def test_nothing_is_cut_off_in_a_narrow_terminal_or_in_a_pipe(
    inrush_command: Command, tmp_path: Path
) -> None:
    long = "model." + "very_long_module_name." * 8 + "weight"
    contents = {
        long: random_tensor("F8_E4M3FNUZ", [3, 5, 7]),
        "n" * 3000: random_tensor("F32", [1] * 30),
        "short": random_tensor("BF16", [2, 3]),
    }
    notes = {"k" * 120: "value", "empty": "", "short": "x" * 5000}
    path = write_file(tmp_path / f"{'file' * 20}.safetensors", contents, metadata=notes)
    lines = lines_in_terminal(60, "inspect", path)
    assert max(map(len, lines)) <= 60
    assert "…" not in "".join(lines)
    names = [line.split(" ")[0] for line in lines]
    assert long in "".join(names)
    assert any("F8_E4M3FNUZ" in line for line in lines)
    assert any("105 B" in line for line in lines)
    assert any("safetensors" in line and line.startswith("format") for line in lines)
    assert any(line.rstrip().endswith("value") for line in lines)
    assert len(lines) < 120, "texts without end are not shown to their end"
    piped = inrush_command("inspect", path).stdout
    (whole,) = [line for line in piped.splitlines() if line.startswith("n" * 3000)]
    assert whole.split()[1:3] == ["F32", "1"]
    assert long in piped


@pytest.mark.parametrize("command", [*READING, "inspect", "doctor"])
def test_several_files_are_one_checkpoint(
    inrush_command: Command, tmp_path: Path, command: str
) -> None:
    tensors = {f"t{i}": random_tensor("F32", [300 + i]) for i in range(4)}
    parts = [
        write_file(tmp_path / f"{n}.safetensors", {f"t{i}": tensors[f"t{i}"] for i in both})
        for n, both in (("one", (0, 1)), ("two", (2, 3)))
    ]
    more = [*arguments(command, tmp_path), "--json"]
    found = values(inrush_command(command, *parts, *more))
    size = sum(len(data) for _, _, data in tensors.values())
    if command == "doctor":
        assert found["facts"]["wanted_bytes"] == size
    elif command == "inspect":
        assert [one["name"] for one in found["tensors"]] == list(tensors)
        assert (found["nbytes"], len(found["files"])) == (size, 2)
    else:
        assert (found["stats"]["tensors"], found["stats"]["bytes"]) == (4, size)
    gone = inrush_command(command, *parts, tmp_path / "gone", *more)
    assert gone.returncode == 3
    assert "gone" in gone.stderr
    twice = inrush_command(command, *parts, parts[0], *more)
    assert twice.returncode != 0, "a tensor in two files"


def test_digests_of_files_that_were_named_are_those_of_their_folder(
    inrush_command: Command, sharded: tuple[Path, Contents], tmp_path: Path
) -> None:
    folder, _ = sharded
    shards = sorted(folder.glob("*.safetensors"))
    manifest = tmp_path / "manifest.json"
    values(inrush_command("manifest", folder, "-o", manifest, "--json"))
    flags = ["--manifest", manifest, "--json"]
    assert values(inrush_command("verify", *reversed(shards), *flags))["ok"] is True
    data = bytearray(shards[1].read_bytes())
    data[-1] ^= 1
    shards[1].write_bytes(data)
    done = inrush_command("verify", *shards, *flags)
    assert done.returncode == 1
    assert [one["what"] for one in json.loads(done.stdout)["differences"]] == ["digest"]


def test_names_of_files_need_not_be_text(inrush_command: Command, tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/f\xff\xc3\xa9\x80"
    os.mkdir(folder)
    for i in range(2):
        write_file(
            Path(os.fsdecode(folder + b"/m\xfe%d.safetensors" % i)),
            {f"t{i}": random_tensor("U8", [9])},
        )
    place, made, trace = os.fsdecode(folder), tmp_path / "m.json", tmp_path / "t.json"
    done = inrush_command("manifest", "-o", made, place)
    assert done.returncode == 0, done.stderr
    names = [file["name"] for file in json.loads(made.read_text("utf-8"))["files"]]
    assert names == [os.fsdecode(b"m\xfe%d.safetensors" % i) for i in range(2)]
    done = inrush_command("verify", "--manifest", made, place)
    assert done.returncode == 0, done.stderr
    done = inrush_command("load", place, "--mapping", "never", "--trace", trace)
    assert done.returncode == 0, done.stderr
    assert "udcfe0.safetensors" in trace.read_text("utf-8")


def test_a_manifest_that_cannot_be_written_costs_no_reading(
    inrush_command: Command, sharded: tuple[Path, Contents], tmp_path: Path
) -> None:
    shard = sharded[0] / "model-00001-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])  # which opening it would find
    done = inrush_command("manifest", sharded[0], "-o", tmp_path / "none" / "x.json")
    assert done.returncode == 3
    assert "there is no folder" in done.stderr


def test_the_flags_of_every_command_are_words_of_loads(inrush_command: Command) -> None:
    for command in READING:
        text = inrush_command(command, "--help").stdout
        for flag in ("backend", "budget", "page-cache", "mirror", "cache-dir", "cache-size"):
            assert f"--{flag}" in text, command
