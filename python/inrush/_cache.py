"""What lies in a cache folder: read, checked, removed. inrush/base/cache_file.h fills it.

Nothing here is needed to load; it is what `inrush cache` shows.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
import zlib
from pathlib import Path

from inrush import _core
from inrush._errors import DataError, SourceError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_HEAD = "inrush cache 1 "
_BLOCK = 4 << 20


class Copy:
    """One file's copy.

    Attributes
    ----------
    name : str
        What it is a copy of.
    size, present : int
        Bytes of the whole, and those that are here.
    sealed : bool
        Whether it is whole and known to be on disk.
    """

    def __init__(self, ledger: Path) -> None:
        self.path = ledger.with_suffix(".bytes")
        text = ledger.read_text()
        head, _, body = text.partition("\n")
        if not head.startswith(_HEAD):
            raise DataError(f"{ledger}: no ledger of this version")
        _core.Ledger.parse(body)  # its checksum
        self.sealed = head == _HEAD + "sealed"
        self.name, self.size, self.present = "", 0, 0
        self.digests: list[tuple[int, int, str]] = []
        for line in body.splitlines():
            words = line.split(" ")
            if words[0] == "blob":
                self.name, self.size = _unescaped(words[1]), int(words[4])
            elif words[0] == "done":
                self.present += int(words[2])
            elif words[0] == "digest":
                self.digests.append((int(words[1]), int(words[2]), words[3]))

    def wrong(self) -> Iterator[str]:
        """What of it is not as it came, one sentence each."""
        try:
            file = self.path.open("rb")
        except OSError as error:
            yield f"{self.name}: {error.strerror}: {self.path}"
            return
        with file:
            for offset, size, digest in self.digests:
                file.seek(offset)
                crc, left = 0, size
                while left > 0 and (block := file.read(min(left, _BLOCK))):
                    crc = zlib.crc32(block, crc)
                    left -= len(block)
                if left or f"{crc:08x}" != digest:
                    yield f"{self.name} [{offset}, +{size}): its bytes are others than those read"


class Kept:
    """All that is kept of one checkpoint."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.uri = (folder / "uri").read_text(errors="surrogateescape")
        self.used = (folder / "uri").stat().st_mtime
        self.bytes = sum(path.lstat().st_blocks * 512 for path in folder.iterdir())
        self.copies: list[Copy] = []
        self.broken: list[str] = []
        for path in sorted(folder.glob("*.ledger")):
            try:
                self.copies.append(Copy(path))
            except (DataError, OSError, ValueError) as error:
                self.broken.append(f"{path}: {error}")

    def is_filled_now(self) -> bool:
        """Whether some process fills one of its files."""
        for path in self.folder.glob("*.lock"):
            with path.open("rb") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    return True
        return False

    def remove(self) -> None:
        """Remove it. What has its files open keeps them until it closes them.

        Raises
        ------
        SourceError
            If it may not be removed.
        """
        try:
            shutil.rmtree(self.folder)
        except OSError as error:
            raise SourceError(f"cache rm {self.folder}: {error.strerror}") from None


def kept(cache_dir: str | os.PathLike[str] | bytes) -> list[Kept]:
    """Everything in a cache folder, what was used last first.

    Raises
    ------
    UsageError
        If there is no such folder.
    """
    root = Path(os.fsdecode(cache_dir))
    if not root.is_dir():
        raise UsageError(f"cache folder {root}: there is none")
    found = []
    for folder in root.iterdir():
        with contextlib.suppress(OSError):
            found.append(Kept(folder))
    return sorted(found, key=lambda one: one.used, reverse=True)


def age_text(then: float) -> str:
    """How long ago, in words: '3 h'."""
    seconds = max(0.0, time.time() - then)
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _unescaped(word: str) -> str:
    from urllib.parse import unquote

    return "" if word == "%" else unquote(word, errors="surrogateescape")
