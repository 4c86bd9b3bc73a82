"""The page cache of some files: dropped, filled, and looked at."""

from __future__ import annotations

import os

from inrush import _core

_CHUNK = 8 << 20

# Resident bytes that still count as none: a header that was just read, a page of read-ahead.
_COLD_SHARE = 0.01


def drop(files: list[str]) -> None:
    """Drop the files' pages, as far as nobody else holds them."""
    for name in files:
        descriptor = os.open(name, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def fill(files: list[str]) -> None:
    """Read the files, so that they are in the page cache where memory allows."""
    buffer = bytearray(_CHUNK)
    for name in files:
        with open(name, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def state(checkpoint: _core.Checkpoint) -> str:
    """'cold', 'warm', or what else the probes say: 'mixed', 'unknown'."""
    facts = _core.Facts.gather(checkpoint)
    if facts.unknown_bytes > 0:
        return "unknown"
    if facts.warm_bytes == facts.wanted_bytes:
        return "warm"
    resident = facts.warm_bytes + facts.mixed_bytes + facts.speckled_bytes
    return "cold" if resident <= _COLD_SHARE * facts.wanted_bytes else "mixed"
