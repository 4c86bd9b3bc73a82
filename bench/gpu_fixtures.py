"""Checkpoints for the loads to a GPU: how large they may be here, and making them fast.

They are made anew on each machine, at most once for each place and kind, by as many threads as
there are processors. Nothing is called cold or warm that the kernel does not say is so.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import gpu_storage, pages

MIB = 1 << 20
GIB = 1 << 30
PIECE = 4 * MIB
SHARDS = 4
EXPERTS = 20_000
LEAST = 256 * MIB  # what is smaller measures nothing but the start
HOST_RESERVE = (
    16 * GIB
)  # at most, or a quarter, for processes, pinned memory and the page cache's own
READ_S, WRITE_S = 8, 30  # that a disk may take for one load, and to write what is loaded
DEVICE_SHARE = 0.55  # a peer may need much more than its tensors


class NotInState(RuntimeError):
    """The page cache does not hold what the cell is named after."""


class NoRoom(RuntimeError):
    """A checkpoint of a size that says something does not fit here."""


@dataclass(frozen=True)
class Room:
    """Bytes that are free, and bytes a second of the disk (None: not asked)."""

    folder: int
    memory: int
    device: int
    read_rate: float | None = None
    write_rate: float | None = None


def size_for(wanted: int, room: Room) -> tuple[int, str]:
    """Bytes of a checkpoint, in whole 64 MiB, and what limits them.

    Raises
    ------
    NoRoom
        If that is too little.
    """
    reserve = min(HOST_RESERVE, room.memory // 4)
    limits = [
        (wanted, "what was asked for"),
        (int(room.folder * 0.9), "free space of the folder"),
        ((room.memory - reserve) // 2, "free memory of the host"),
        (int(room.device * DEVICE_SHARE), "free memory of the GPU"),
    ]
    if room.read_rate is not None:
        limits.append((int(room.read_rate * READ_S), f"{READ_S} s of reading the disk"))
    if room.write_rate is not None:
        limits.append((int(room.write_rate * WRITE_S), f"{WRITE_S} s of writing to the disk"))
    size, reason = min(limits)
    size = size // (64 * MIB) * 64 * MIB if size >= LEAST else size
    if size < min(wanted, LEAST):
        raise NoRoom(f"no room: {reason} leaves {max(size, 0) // MIB} MiB")
    return size, reason


def free_bytes(folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def available_memory() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def filesystem_of(folder: Path) -> str:
    """The type of the mount with the longest path above the folder."""
    here = folder.resolve()
    mounts = (line.split()[1:3] for line in Path("/proc/self/mounts").read_text().splitlines())
    above = [(place, kind) for place, kind in mounts if here.is_relative_to(place)]
    return max(above, key=lambda mount: len(mount[0]), default=("", "unknown"))[1]


def shapes(kind: str, size: int) -> Iterator[tuple[str, int]]:
    """Name and bytes of each tensor: a dense model's, or 20,000 small ones."""
    if kind == "dense":
        each = 64 * MIB
        for i in range(max(size // each, 1)):
            yield f"layers.{i}.weight", each
            yield f"layers.{i}.norm", 16384
    else:
        for i in range(EXPERTS):
            yield f"experts.{i}.weight", max(size // EXPERTS // 256 * 256, 256)


def write_header(path: Path, tensors: list[tuple[str, int]]) -> tuple[int, int]:
    """Where the data begins in the shard, and where it ends."""
    header: dict[str, Any] = {}
    end = 0
    for name, nbytes in tensors:
        span = [end, end + nbytes]
        header[name] = {"dtype": "BF16", "shape": [nbytes // 2], "data_offsets": span}
        end += nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    return 8 + len(text), 8 + len(text) + end


def make(folder: Path, kind: str, size: int) -> int:
    """Write a checkpoint of four shards of random bytes unless it is there; its bytes.

    Raises
    ------
    OSError
        If it does not fit after all; nothing of it is left then.
    """
    tensors = list(shapes(kind, size))
    if (folder / ".done").exists():
        return sum(nbytes for _, nbytes in tensors)
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(parents=True)
        with ThreadPoolExecutor(max(os.cpu_count() or 1, 2)) as threads:
            for shard in range(SHARDS):
                path = folder / f"model-{shard}.safetensors"
                begin, end = write_header(path, tensors[shard::SHARDS])
                fill(path, begin, end, threads)
        (folder / ".done").touch()
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return sum(nbytes for _, nbytes in tensors)


def fill(path: Path, begin: int, end: int, threads: ThreadPoolExecutor) -> None:
    """Random bytes, which the kernel makes without Python's lock."""
    fd = os.open(path, os.O_WRONLY)

    def write(offset: int) -> None:
        piece = memoryview(os.urandom(min(PIECE, end - offset)))
        while piece:
            count = os.pwrite(fd, piece, offset)
            offset, piece = offset + count, piece[count:]

    try:
        for _ in threads.map(write, range(begin, end, PIECE)):
            pass
        os.fsync(fd)
    finally:
        os.close(fd)


def probe(folder: Path, size: int = 512 * MIB) -> tuple[float, float]:
    """Bytes a second that the disk reads and writes, roughly."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "probe"
    try:
        began = time.perf_counter()
        path.touch()
        with ThreadPoolExecutor(4) as threads:
            fill(path, 0, size, threads)
        write_rate = size / (time.perf_counter() - began)
        pages.evict([path])
        found = gpu_storage.read_rate([path], gpu_storage.Way(8, 4 * MIB, True), seconds=1.0)
        return found.bytes_per_s, write_rate
    finally:
        path.unlink(missing_ok=True)


def told_share(files: list[Path]) -> float:
    """The share in the page cache, by the call that tells the truth on this filesystem."""
    if filesystem_of(files[0]) != "overlay":
        return pages.told_share(files)
    total = sum(path.stat().st_size for path in files)
    return sum(pages.mapped_bytes(path) for path in files) / max(total, 1)


def set_state(files: list[Path], state: str) -> None:
    """Make files cold or warm, and ask the kernel whether they are.

    Raises
    ------
    NotInState
        If they are not, or the kernel does not tell.
    """
    if state == "memory":
        return
    share = 0.0
    for _ in range(pages.TRIES):
        try:
            if state == "cold":
                pages.evict(files)
            elif told_share(files) < 0.99:
                gpu_storage.read_rate(files, gpu_storage.Way(16, 4 * MIB, False))
            share = told_share(files)
        except OSError as error:
            raise NotInState(f"whether it is {state} cannot be said: {error}") from None
        if (share <= 0.01) if state == "cold" else (share >= 0.99):
            return
        time.sleep(0.2)  # somebody else still maps the pages
    raise NotInState(f"not {state}: {share:.0%} of it is in the page cache")
