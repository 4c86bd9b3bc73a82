"""The limit of storage: every byte once, by threads, into memory that is used again.

Needs neither a compiler nor a package; fio, where it is there, has its say too.
"""

from __future__ import annotations

import errno
import mmap
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import limits, pages

MIB = 1 << 20
POINT_S = 1.5


@dataclass(frozen=True)
class Way:
    """How many threads read how much at a time, and whether around the page cache."""

    threads: int
    block: int
    direct: bool

    @property
    def name(self) -> str:
        how = "direct" if self.direct else "page cache"
        return f"{self.threads} threads, {self.block // MIB} MiB, {how}"


WAYS = (
    Way(8, 4 * MIB, True),
    Way(16, 4 * MIB, True),
    Way(32, 4 * MIB, True),
    Way(32, MIB, True),
)
THROUGH_CACHE = (Way(8, 4 * MIB, False), Way(16, 4 * MIB, False))


@dataclass(frozen=True)
class Read:
    """What a way of reading reached, and the piece that would come next."""

    bytes_per_s: float
    end: int


def pieces(files: list[Path], block: int) -> list[tuple[Path, int]]:
    return [(path, at) for path in files for at in range(0, path.stat().st_size, block)]


def read_rate(files: list[Path], way: Way, seconds: float = 1e9, start: float = 0.0) -> Read:
    """Read from a share of the pieces on, each at most once, no longer than some seconds.

    Raises
    ------
    OSError
        As open(2) and pread(2): EINVAL where the filesystem has no direct reads.
    """
    todo = pieces(files, way.block)
    first = int(start * len(todo))
    source: Iterator[tuple[Path, int]] = iter(todo[first:] + todo[:first])
    flags = os.O_RDONLY | (os.O_DIRECT if way.direct else 0)
    opened = {path: os.open(path, flags) for path in files}
    lock = threading.Lock()
    began = time.perf_counter()

    def run(_: int) -> tuple[int, int]:
        memory = mmap.mmap(-1, way.block)
        count = size = 0
        while time.perf_counter() - began < seconds:
            with lock:
                piece = next(source, None)
            if piece is None:
                break
            size += os.preadv(opened[piece[0]], [memory], piece[1])
            count += 1
        return count, size

    try:
        with ThreadPoolExecutor(way.threads) as threads:
            done = list(threads.map(run, range(way.threads)))
        rate = sum(size for _, size in done) / max(time.perf_counter() - began, 1e-9)
    finally:
        for fd in opened.values():
            os.close(fd)
    return Read(rate, first + sum(count for count, _ in done))


def rates(files: list[Path], state: str) -> dict[str, Any]:
    """The best that some ways reach, each on its own part of the files."""
    found: dict[str, float] = {}
    ways = WAYS if state == "cold" else THROUGH_CACHE
    said = ""
    for i, way in enumerate(ways):
        if state == "cold":
            pages.evict(files)
        start = i / len(ways)
        try:
            found[way.name] = read_rate(files, way, POINT_S, start).bytes_per_s / 1e9
        except OSError as error:
            if not way.direct or error.errno != errno.EINVAL:
                raise
            said = "no direct reads on this filesystem"
            other = Way(way.threads, way.block, False)
            found[other.name] = read_rate(files, other, POINT_S, start).bytes_per_s / 1e9
    if state == "cold":
        for point in limits.fio_grid(max(files, key=lambda path: path.stat().st_size), quick=True):
            if "gb_per_s" in point:
                name = f"fio {point['engine']}, {point['block']}"
                found[name] = point["gb_per_s"]
            else:
                said = f"fio: {point['error']}"
        said = said or ("" if any("fio" in name for name in found) else "fio is not there")
    return {"gb_per_s": max(found.values()), "by_way": found, **({"note": said} if said else {})}
