"""The page cache under a measurement: who is in it, and how to put it into a wanted state.

A file is called cold only after the kernel has said so.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import random
import time
from collections.abc import Callable, Iterable
from pathlib import Path

PAGE = os.sysconf("SC_PAGE_SIZE")
CACHESTAT = 451  # the same number on every architecture
RANDOM_RUN = 1 << 20
TRIES = 3
# Puts files into a state and says what share of them it should have left resident.
Shape = Callable[[list[Path]], float]
libc = ctypes.CDLL(None, use_errno=True)


class CachestatRange(ctypes.Structure):
    _fields_ = [("offset", ctypes.c_uint64), ("size", ctypes.c_uint64)]


class Cachestat(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_uint64)
        for name in ("cached", "dirty", "writeback", "evicted", "recently_evicted")
    ]


class Unexpected(RuntimeError):
    """The pages are not in the state that the measurement is named after."""


def resident_bytes(path: Path, offset: int = 0, size: int = 0) -> int:
    """Bytes of the file in the page cache. On an overlay ask the lower file: the kernel says 0.

    Raises
    ------
    OSError
        Where the kernel has no cachestat (before Linux 6.5) or refuses it to this user.
    """
    asked, answer = CachestatRange(offset, size), Cachestat()
    fd = os.open(path, os.O_RDONLY)
    try:
        if libc.syscall(CACHESTAT, fd, ctypes.byref(asked), ctypes.byref(answer), 0) != 0:
            code = ctypes.get_errno()
            raise OSError(code, f"cachestat {path}: {os.strerror(code)}")
    finally:
        os.close(fd)
    return int(answer.cached) * PAGE


def mapped_bytes(path: Path) -> int:
    """The same by mincore, which every kernel has.

    Raises
    ------
    OSError
        For a file of somebody else: the kernel would say that all of it is there.
    """
    status = path.stat()
    if status.st_uid != os.geteuid():
        raise OSError(errno.EPERM, f"mincore {path}: the kernel tells only the file's owner")
    states = (ctypes.c_ubyte * -(-status.st_size // PAGE))()
    libc.mmap.restype = ctypes.c_void_p
    fd = os.open(path, os.O_RDONLY)
    try:
        size = ctypes.c_size_t(status.st_size)
        address = libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, fd, ctypes.c_long(0))
        if libc.mincore(ctypes.c_void_p(address), size, states) != 0:
            code = ctypes.get_errno()
            raise OSError(code, f"mincore {path}: {os.strerror(code)}")
        libc.munmap(ctypes.c_void_p(address), size)
    finally:
        os.close(fd)
    return sum(state & 1 for state in states) * PAGE


def resident_share(files: Iterable[Path]) -> float:
    files = list(files)
    total = sum(path.stat().st_size for path in files)
    return sum(resident_bytes(path) for path in files) / max(total, 1)


def told_share(files: Iterable[Path]) -> float:
    """`resident_share` by whichever call is allowed here."""
    files = list(files)
    try:
        return resident_share(files)
    except OSError:
        total = sum(path.stat().st_size for path in files)
        return sum(mapped_bytes(path) for path in files) / max(total, 1)


def advise(path: Path, advice: int, ranges: Iterable[tuple[int, int]] = ((0, 0),)) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        for offset, size in ranges:
            os.posix_fadvise(fd, offset, size, advice)
    finally:
        os.close(fd)


def evict(files: Iterable[Path]) -> None:
    for path in files:
        advise(path, os.POSIX_FADV_DONTNEED)


def read_ranges(path: Path, ranges: Iterable[tuple[int, int]], small_pages: bool = False) -> None:
    """Bring ranges into the page cache, and nothing beside them when ``small_pages``."""
    fd = os.open(path, os.O_RDONLY)
    memory = memoryview(bytearray(RANDOM_RUN))
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM if small_pages else os.POSIX_FADV_NORMAL)
        for offset, size in ranges:
            end = offset + size
            while offset < end:
                got = os.preadv(fd, [memory[: min(RANDOM_RUN, end - offset)]], offset)
                if got == 0:
                    break
                offset += got
    finally:
        os.close(fd)


def cold(files: list[Path]) -> float:
    evict(files)
    return 0.0


def warm(files: list[Path]) -> float:
    """All of it, read in order, so that the pages are as large as the kernel makes them."""
    if resident_share(files) >= 1.0:
        return 1.0
    evict(files)
    for path in files:
        read_ranges(path, [(0, path.stat().st_size)])
    return 1.0


def halves(files: list[Path]) -> float:
    """The first half of every file is resident."""
    evict(files)
    for path in files:
        read_ranges(path, [(0, path.stat().st_size // 2 // PAGE * PAGE)], small_pages=True)
    return 0.5


def alternating(step: int) -> Shape:
    """Every other run of ``step`` bytes is resident."""

    def shape(files: list[Path]) -> float:
        evict(files)
        total = kept = 0
        for path in files:
            size = path.stat().st_size
            runs = [(at, min(step, size - at)) for at in range(0, size, 2 * step)]
            read_ranges(path, runs, small_pages=True)
            total += size
            kept += sum(run for _, run in runs)
        return kept / total

    return shape


def random_half(files: list[Path]) -> float:
    """Every page is resident with a chance of one half, alike in every run.

    Reading page by page would take minutes; everything is read as small pages, and half of them
    is given back.
    """
    evict(files)
    choice = random.Random(1)
    for path in files:
        size = path.stat().st_size
        read_ranges(path, [(0, size)], small_pages=True)
        pages = (at for at in range(0, size, PAGE) if choice.random() < 0.5)
        advise(path, os.POSIX_FADV_DONTNEED, ((at, PAGE) for at in pages))
    return 0.5


SHAPES: dict[str, Shape] = {
    "cold": cold,
    "warm": warm,
    "halves": halves,
    "random": random_half,
    "alternating 64 KiB": alternating(64 << 10),
    "alternating 1 MiB": alternating(1 << 20),
    "alternating 16 MiB": alternating(16 << 20),
}


def put(files: list[Path], residency: str, check: list[Path] | None = None) -> float:
    """Bring the files into the named state; the resident share that the kernel then reports.

    ``check`` are the files to ask about where they differ from those to act on (an overlay's lower
    files).

    Raises
    ------
    Unexpected
        If more than 1 % is resident where it should be cold, or the share is off by 3 %, thrice.
    """
    for _ in range(TRIES):
        wanted = SHAPES[residency](files)
        share = resident_share(check or files)
        if abs(share - wanted) <= (0.01 if wanted == 0.0 else 0.03):
            return share
        time.sleep(0.2)  # somebody else still maps the pages
    raise Unexpected(f"{residency}: {share:.1%} of {files[0].parent} is resident")
