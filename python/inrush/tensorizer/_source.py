"""Where a deserializer's bytes come from, made into something that the engine opens.

A real file is opened by its path, a remote one by its URI. What has neither (a file in memory, one
that begins in the middle of another) is copied for each load into a file in memory which has the
tensors of that load only; a pipe, which cannot be read twice, is copied once as a whole.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import io
import os
import struct
import weakref

from inrush._errors import DataError
from inrush._tensors_file import HEAD_SIZE, MAGIC
from inrush.tensorizer._remote import RemoteFile
from inrush.tensorizer.stream_io import open_stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

    from inrush._tensors_file import Line
    from inrush._tensors_paths import Path

_STEP = 8 << 20  # bytes that are fetched at once
_WIDTH = 16  # small reads at once from a remote place
_GROUP = 8 << 20  # bytes of tensors that are copied before the first is given
_NEAR = 1 << 18  # bytes between two ranges that are rather fetched with them
_LARGEST_INDEX = 1 << 30  # bytes


def open_as_source(file: Any, readers: int | None) -> Source:
    """The source that fits a binary file.

    Parameters
    ----------
    file : binary file
    readers : int, optional
        How many connections may fetch at once, from a remote place.
    """
    if isinstance(file, RemoteFile) and file.whole and file.fileno() < 0:
        return _Remote(file, readers)
    descriptor = _descriptor_of(file)
    if descriptor is None or file.tell() != 0:
        return _Copied(file)
    name = getattr(file, "name", None)
    if isinstance(name, str) and _leads_to(name, descriptor):
        return Source(file, name)
    return _Nameless(file, descriptor)


def _leads_to(path: str, descriptor: int) -> bool:
    return os.path.exists(path) and os.path.samestat(os.stat(path), os.fstat(descriptor))


def _descriptor_of(file: Any) -> int | None:
    """That of a regular file, which the engine can open again."""
    try:
        descriptor: int = file.fileno()
        os.fstat(descriptor)
    except (OSError, AttributeError):
        return None
    return descriptor if os.path.isfile(_path_of_descriptor(descriptor)) else None


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
    text = isinstance(file_obj, io.TextIOBase) or (isinstance(mode, str) and "b" not in mode)
    if text or (can_read is not None and not can_read()):
        raise ValueError("file_obj: expected a binary file that can be read")
    return file_obj


class Source:
    """A file that has a path. What it says stays to be had when the file is closed.

    Attributes
    ----------
    path : str
        What the engine opens.
    options : dict
        Options of `inrush.open` for it.
    stable : bool
        It stays as it is, so that it may be mapped, and opened once for all loads.
    alone : bool
        It cannot be opened again, and so has one reader.
    """

    stable = True
    alone = False

    def __init__(self, file: Any, path: str, options: dict[str, Any] | None = None) -> None:
        self.file = file
        self.path = path
        self.options = options or {}

    @property
    def bytes_read(self) -> int | None:
        """Bytes that were fetched; None where the engine reads by itself."""
        return None

    @contextlib.contextmanager
    def holding(self, lines: Iterable[Line]) -> Iterator[str]:
        """The path under which the engine finds these tensors at least."""
        del lines
        yield self.path

    def read(self, offset: int, size: int) -> bytes:
        """These bytes."""
        with open(self.path, "rb", buffering=0) as file:
            return _pread(file.fileno(), offset, size, self.path)

    def header(self, line: Line) -> bytes:
        """What stands before the tensor's bytes."""
        return self.read(line.header, line.data - line.header)

    def headers(self, lines: Iterable[Line]) -> Iterator[bytes]:
        """The same of each."""
        return map(self.header, lines)

    def close(self) -> None:
        """Forget what was copied."""


class _Nameless(Source):
    """A file that no path leads to any more: it is kept by a descriptor of its own."""

    def __init__(self, file: Any, descriptor: int) -> None:
        own = os.dup(descriptor)
        self._closing = weakref.finalize(self, os.close, own)
        super().__init__(file, _path_of_descriptor(own))

    def close(self) -> None:
        self._closing()


class _Remote(Source):
    """A file of a remote place, which the engine reads."""

    def __init__(self, file: RemoteFile, readers: int | None) -> None:
        options: dict[str, Any] = dict(file.storage_options)
        if readers is not None and not file.place.startswith("redis"):
            options["connections"] = readers
        super().__init__(file, file.place, {"storage_options": options})
        self._reader = file.reader()

    def read(self, offset: int, size: int) -> bytes:
        return self._reader(offset, size)

    def headers(self, lines: Iterable[Line]) -> Iterator[bytes]:
        with concurrent.futures.ThreadPoolExecutor(_WIDTH) as pool:
            yield from pool.map(self.header, lines)

    def close(self) -> None:
        self._reader = _closed


class _Copied(Source):
    """A stream: its head and index in a file in memory, or all of it if it is read only once."""

    def __init__(self, file: Any) -> None:
        self._descriptor = os.memfd_create("inrush", os.MFD_CLOEXEC)
        self._closing = weakref.finalize(self, os.close, self._descriptor)
        super().__init__(file, _path_of_descriptor(self._descriptor))
        self.stable = False
        self.alone = not isinstance(file, RemoteFile)
        self._index_end = 0
        self._fetched = 0
        self._headers: dict[int, bytes] = {}  # of what was copied, by their offsets
        try:
            self._begin()
        except BaseException:
            self.close()
            raise

    def _begin(self) -> None:
        """The head and the index go to the beginning, wherever the stream stands."""
        start = self.file.tell() if _seekable(self.file) else 0
        head = self._exactly(HEAD_SIZE)
        _put(self._descriptor, 0, head)
        end = len(head)
        if len(head) == HEAD_SIZE and head.startswith(MAGIC):
            size = struct.unpack_from("<Q", head, HEAD_SIZE - 8)[0]
            index = self._exactly(min(size, _LARGEST_INDEX))
            _put(self._descriptor, HEAD_SIZE, index)
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
        self._length = max(length, end)
        os.ftruncate(self._descriptor, self._length)

    def _rest(self, offset: int) -> None:
        """All that comes: a stream whose end nobody knows."""
        self.stable = True
        while data := self.file.read(_STEP):
            self._fetched += len(data)
            _put(self._descriptor, offset, data)
            offset += len(data)

    @property
    def bytes_read(self) -> int | None:
        return self._fetched

    def _exactly(self, size: int) -> bytes:
        """So many bytes from where the stream stands, fewer at the end."""
        parts = []
        while size:
            data = self.file.read(min(size, _STEP))
            if not data:
                break
            parts.append(data)
            size -= len(data)
            self._fetched += len(data)
        return b"".join(parts)

    @contextlib.contextmanager
    def holding(self, lines: Iterable[Line]) -> Iterator[str]:
        if self.stable:
            yield self.path
            return
        wanted = list(lines)
        excerpt = os.memfd_create("inrush", os.MFD_CLOEXEC)
        try:
            os.ftruncate(excerpt, self._length)
            head = _pread(self._descriptor, 0, HEAD_SIZE, self.path)
            count = struct.pack("<Q", len(wanted))
            _put(excerpt, 0, head[: HEAD_SIZE - 16] + count + head[HEAD_SIZE - 8 :])
            _put(excerpt, HEAD_SIZE, b"".join(line.raw for line in wanted))
            for offset, size in _pieces([_record_of(line) for line in wanted]):
                _put(excerpt, offset, self._from_stream(offset, size))
            for line in wanted:
                size = line.data - line.header
                self._headers[line.header] = _pread(excerpt, line.header, size, "the stream")
            yield _path_of_descriptor(excerpt)
        finally:
            os.close(excerpt)

    def _from_stream(self, offset: int, size: int) -> bytes:
        self.file.seek(offset)
        data = self._exactly(size)
        if len(data) != size:
            raise DataError(f"read [{offset}, +{size}): the stream is truncated")
        return data

    def read(self, offset: int, size: int) -> bytes:
        if self.stable or offset + size <= self._index_end:
            return _pread(self._descriptor, offset, size, "the stream")
        return self._from_stream(offset, size)

    def header(self, line: Line) -> bytes:
        return self._headers.get(line.header) or super().header(line)

    def close(self) -> None:
        self._descriptor = -1
        self._closing()


def _closed(offset: int, size: int) -> bytes:
    raise ValueError("I/O operation on closed file.")


def _path_of_descriptor(descriptor: int) -> str:
    return f"/proc/self/fd/{descriptor}"


def _pread(descriptor: int, offset: int, size: int, name: str) -> bytes:
    """All of these bytes: one call gives 2 GiB at most, and fewer on some filesystems."""
    data = os.pread(descriptor, size, offset)
    parts = [data]
    while data and size > len(data):
        size, offset = size - len(data), offset + len(data)
        data = os.pread(descriptor, size, offset)
        parts.append(data)
    if size != len(data):
        raise DataError(f"read {name} [{offset}, +{size}): it is truncated")
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _put(descriptor: int, offset: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        done = os.pwrite(descriptor, rest, offset)
        rest, offset = rest[done:], offset + done


def _record_of(line: Line) -> tuple[int, int]:
    return line.header, line.data + line.size - line.header


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


def in_groups(paths: list[Path], lines: Mapping[Path, Line]) -> Iterator[list[Path]]:
    """Neighbours that are copied out of a stream together."""
    group: list[Path] = []
    size = 0
    for path in paths:
        if group and size + lines[path].size > _GROUP:
            yield group
            group, size = [], 0
        group.append(path)
        size += lines[path].size
    yield group
