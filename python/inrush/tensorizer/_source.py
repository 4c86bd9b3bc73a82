"""Where a deserializer's bytes come from, made into something that the engine opens.

A real file is opened by its path. What has none (a stream from a server, a file in memory, one
that begins in the middle of another) is copied, range by range as it is wanted, into a file in
memory that has holes where nothing was wanted; after a load the holes come back.
"""

from __future__ import annotations

import concurrent.futures
import ctypes
import os
import struct
import threading

from inrush._errors import DataError
from inrush._tensors_file import HEAD_SIZE, MAGIC
from inrush.tensorizer.stream_io import open_stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

_STEP = 8 << 20  # bytes that one reader fetches at once
_NEAR = 1 << 18  # bytes between two ranges that are rather fetched with them
_LARGEST_INDEX = 1 << 30  # bytes
_PUNCH = 0x03  # FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE


def open_as_source(file: Any, readers: int | None) -> Source:
    """The source that fits a binary file.

    Parameters
    ----------
    file : binary file
    readers : int, optional
        How many may fetch at once, where the file can be opened again; by default 4.

    Raises
    ------
    ValueError
        If more than one reader is asked for and it cannot be opened again.
    """
    path = _path_of(file)
    if path is not None and file.tell() == 0:
        return Source(file, path)
    if readers is not None and readers > 1 and not hasattr(file, "_fork"):
        raise ValueError(
            "num_readers: this kind of file cannot be opened again, and so has one reader"
        )
    return _Copied(file, readers or 4)


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
    stable : bool
        It stays as it is, so that it may be mapped, and opened once for all loads.
    """

    stable = True

    def __init__(self, file: Any, path: str) -> None:
        self.file = file
        self.path = path

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

    def close(self) -> None:
        """Forget what was copied."""


class _Copied(Source):
    """Ranges of a stream in a file in memory."""

    stable = False

    def __init__(self, file: Any, readers: int) -> None:
        self._descriptor = os.memfd_create("inrush", os.MFD_CLOEXEC)
        super().__init__(file, f"/proc/self/fd/{self._descriptor}")
        self._readers = readers if hasattr(file, "_fork") else 1
        self._lock = threading.Lock()
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
        self._readers = 0
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
            with self._lock:
                self._fetched += done

    def fetch(self, ranges: Iterable[tuple[int, int]]) -> None:
        if self._readers == 0:
            return
        pieces = list(_pieces(ranges))
        if self._readers == 1 or len(pieces) <= 1:
            for piece in pieces:
                self._copy(self.file, *piece)
            return
        waiting = iter(pieces)
        failed = threading.Event()

        def work() -> None:
            stream: Any = None
            try:
                while not failed.is_set():
                    with self._lock:
                        piece = next(waiting, None)
                    if piece is None:
                        return
                    if stream is None:
                        stream = self.file._fork(begin=piece[0])
                    self._copy(stream, *piece)
            except BaseException:
                failed.set()
                raise
            finally:
                if stream is not None:
                    stream.close()

        count = min(self._readers, len(pieces))
        with concurrent.futures.ThreadPoolExecutor(count) as pool:
            for done in [pool.submit(work) for _ in range(count)]:
                done.result()

    def _copy(self, stream: Any, offset: int, size: int) -> None:
        stream.seek(offset)
        while size:
            data = stream.read(min(size, _STEP))
            if not data:
                raise DataError(f"read [{offset}, +{size}): the stream is truncated")
            self._put(offset, data)
            offset += len(data)
            size -= len(data)

    def release(self, ranges: Iterable[tuple[int, int]]) -> None:
        if self._readers == 0:  # it cannot be fetched again
            return
        punch = ctypes.CDLL(None, use_errno=True).fallocate
        punch.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
        for offset, size in ranges:
            if size:
                punch(self._descriptor, _PUNCH, offset, size)

    def read(self, offset: int, size: int) -> bytes:
        self.fetch([(offset, size)])
        data = os.pread(self._descriptor, size, offset)
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
