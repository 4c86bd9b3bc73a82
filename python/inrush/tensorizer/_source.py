"""Where a deserializer's bytes come from, made into something that the engine opens.

A real file is opened by its path, a remote one by its URI. What has neither (a file in memory, a
pipe, one that begins in the middle of another) is copied, range by range as it is wanted, into a
file in memory that has holes where nothing was wanted; after a load the holes come back.
"""

from __future__ import annotations

import concurrent.futures
import ctypes
import os
import struct

from inrush._errors import DataError
from inrush._tensors_file import HEAD_SIZE, MAGIC
from inrush.tensorizer._remote import RemoteFile
from inrush.tensorizer.stream_io import open_stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any

_STEP = 8 << 20  # bytes that are fetched at once
_WIDTH = 16  # small reads at once from a remote place
_NEAR = 1 << 18  # bytes between two ranges that are rather fetched with them
_LARGEST_INDEX = 1 << 30  # bytes
_PUNCH = 0x03  # FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE


def open_as_source(file: Any, readers: int | None) -> Source:
    """The source that fits a binary file.

    Parameters
    ----------
    file : binary file
    readers : int, optional
        How many connections may fetch at once, from a remote place.

    Raises
    ------
    ValueError
        If more than one reader is asked for and it cannot be opened again.
    """
    if isinstance(file, RemoteFile) and file.whole and file.fileno() < 0:
        return _Remote(file, readers)
    path = _path_of(file)
    if path is not None and file.tell() == 0:
        return Source(file, path)
    if readers is not None and readers > 1 and not isinstance(file, RemoteFile):
        raise ValueError(
            "num_readers: this kind of file cannot be opened again, and so has one reader"
        )
    return _Copied(file)


def _path_of(file: Any) -> str | None:
    """A path under which the engine finds this very file."""
    try:
        descriptor = file.fileno()
        status = os.fstat(descriptor)
    except (OSError, AttributeError):
        return None
    if not os.path.isfile(f"/proc/self/fd/{descriptor}"):
        return None
    name = getattr(file, "name", None)
    if isinstance(name, str) and os.path.exists(name) and os.path.samestat(os.stat(name), status):
        return name
    return f"/proc/self/fd/{descriptor}"


def readable(file_obj: Any) -> Any:
    """The binary file that `file_obj` is or names.

    Raises
    ------
    TypeError, ValueError
        If it is neither a path nor a binary file that can be read.
    """
    if isinstance(file_obj, (str, os.PathLike)):
        return open_stream(file_obj, "rb")
    if not hasattr(file_obj, "read"):
        raise TypeError(f"file_obj: a {type(file_obj).__name__} is neither a path nor a file")
    mode = getattr(file_obj, "mode", "rb")
    can_read = getattr(file_obj, "readable", None)
    if (isinstance(mode, str) and "b" not in mode) or (can_read is not None and not can_read()):
        raise ValueError("file_obj: expected a binary file that can be read")
    return file_obj


class Source:
    """A file that has a path.

    Attributes
    ----------
    path : str
        What the engine opens.
    options : dict
        Options of `inrush.open` for it.
    stable : bool
        It stays as it is, so that it may be mapped, and opened once for all loads.
    """

    stable = True

    def __init__(self, file: Any, path: str, options: dict[str, Any] | None = None) -> None:
        self.file = file
        self.path = path
        self.options = options or {}

    @property
    def bytes_read(self) -> int | None:
        """Bytes that were fetched; None where the engine reads by itself."""
        return None

    def fetch(self, ranges: Iterable[tuple[int, int]]) -> None:
        """See that these (offset, size) are there."""

    def release(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Nobody needs these (offset, size) any more."""

    def read(self, offset: int, size: int) -> bytes:
        """These bytes."""
        with open(self.path, "rb", buffering=0) as file:
            data = os.pread(file.fileno(), size, offset)
        if len(data) != size:
            raise DataError(f"read {self.path} [{offset}, +{size}): it is truncated")
        return data

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> Iterator[bytes]:
        """The bytes of each (offset, size)."""
        return (self.read(offset, size) for offset, size in ranges)

    def close(self) -> None:
        """Forget what was copied."""


class _Remote(Source):
    """A file of a remote place, which the engine reads."""

    def __init__(self, file: RemoteFile, readers: int | None) -> None:
        options: dict[str, Any] = dict(file.storage_options)
        if readers is not None and not file.place.startswith("redis"):
            options["connections"] = readers
        super().__init__(file, file.place, {"storage_options": options})

    def read(self, offset: int, size: int) -> bytes:
        data: bytes = self.file.read_at(offset, size)
        return data

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> Iterator[bytes]:
        with concurrent.futures.ThreadPoolExecutor(_WIDTH) as pool:
            yield from pool.map(lambda one: self.read(*one), ranges)


class _Copied(Source):
    """Ranges of a stream in a file in memory."""

    stable = False

    def __init__(self, file: Any) -> None:
        self._descriptor = os.memfd_create("inrush", os.MFD_CLOEXEC)
        super().__init__(file, f"/proc/self/fd/{self._descriptor}")
        self._complete = False  # all is here, and cannot be fetched again
        self._index_end = 0  # what is before it stays
        self._fetched = 0
        try:
            self._begin()
        except BaseException:
            os.close(self._descriptor)
            raise

    def _begin(self) -> None:
        """The head and the index go to the beginning, wherever the stream stands."""
        start = self.file.tell() if _seekable(self.file) else 0
        head = self._exactly(HEAD_SIZE, 0)
        self._put(0, head)
        end = len(head)
        if len(head) == HEAD_SIZE and head.startswith(MAGIC):
            size = struct.unpack_from("<Q", head, HEAD_SIZE - 8)[0]
            index = self._exactly(min(size, _LARGEST_INDEX), HEAD_SIZE)
            self._put(HEAD_SIZE, index)
            end += len(index)
        self._index_end = end
        if not _seekable(self.file):
            self._rest(end)
            return
        length = getattr(self.file, "size", None)
        if length is None:
            try:
                length = self.file.seek(0, os.SEEK_END)
            except (OSError, ValueError):
                self.file.seek(start + end)
                self._rest(end)
                return
        os.ftruncate(self._descriptor, max(length, end))

    def _rest(self, offset: int) -> None:
        """All that comes: a stream whose end nobody knows."""
        self._complete = True
        while data := self.file.read(_STEP):
            self._put(offset, data)
            offset += len(data)

    @property
    def bytes_read(self) -> int | None:
        return self._fetched

    def _exactly(self, size: int, offset: int) -> bytes:
        """So many bytes, fewer at the end."""
        parts = []
        while size:
            data = self.file.read(min(size, _STEP))
            if not data:
                break
            parts.append(data)
            size -= len(data)
        return b"".join(parts)

    def _put(self, offset: int, data: Any) -> None:
        rest = memoryview(data)
        while rest:
            done = os.pwrite(self._descriptor, rest, offset)
            rest, offset = rest[done:], offset + done
            self._fetched += done

    def fetch(self, ranges: Iterable[tuple[int, int]]) -> None:
        if not self._complete:
            for piece in _pieces(ranges):
                self._copy(*piece)

    def _copy(self, offset: int, size: int) -> None:
        self.file.seek(offset)
        while size:
            data = self.file.read(min(size, _STEP))
            if not data:
                raise DataError(f"read [{offset}, +{size}): the stream is truncated")
            self._put(offset, data)
            offset += len(data)
            size -= len(data)

    def release(self, ranges: Iterable[tuple[int, int]]) -> None:
        if self._complete:
            return
        punch = ctypes.CDLL(None, use_errno=True).fallocate
        punch.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
        for offset, size in ranges:
            if size:
                punch(self._descriptor, _PUNCH, offset, size)

    def read(self, offset: int, size: int) -> bytes:
        here = offset + size <= self._index_end
        if not here:
            self.fetch([(offset, size)])
        data = os.pread(self._descriptor, size, offset)
        if not here:
            self.release([(offset, size)])
        return data

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _seekable(file: Any) -> bool:
    try:
        return bool(file.seekable())
    except AttributeError:
        return hasattr(file, "seek")


def _pieces(ranges: Iterable[tuple[int, int]]) -> Iterable[tuple[int, int]]:
    """Ranges that lie near one another as one, cut into steps."""
    whole: list[list[int]] = []
    for offset, size in sorted(ranges):
        if whole and offset <= whole[-1][1] + _NEAR:
            whole[-1][1] = max(whole[-1][1], offset + size)
        else:
            whole.append([offset, offset + size])
    for begin, end in whole:
        for offset in range(begin, end, _STEP):
            yield offset, min(_STEP, end - offset)
