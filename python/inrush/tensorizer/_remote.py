"""Files of remote places as tensorizer's users see them, over the engine's stores."""

from __future__ import annotations

import errno
import io
import os
import socket
import time
import urllib.parse
from email.message import Message

from inrush import _core
from inrush._errors import Error
from inrush._storage import storage_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

_TIMEOUT = 30  # seconds without a byte
_LEAST_AHEAD = 1 << 18  # bytes that are fetched at once: what comes with the first look
_MOST_AHEAD = 16 << 20
_STEP = 64 << 20  # bytes of a file that is read as a whole


# What the system says, and the exceptions that Python's own sockets make of it.
_REFUSALS = (
    errno.ECONNREFUSED, errno.ECONNRESET, errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH,
)  # fmt: skip
_UNRESOLVED = {
    "Name or service not known": socket.EAI_NONAME,
    "No address associated with hostname": socket.EAI_NODATA,
    "Temporary failure in name resolution": socket.EAI_AGAIN,
}


def _os_error(text: str) -> OSError:
    """An error of reading, of the class that a socket of Python's would have raised."""
    for code in _REFUSALS:
        if text.endswith(os.strerror(code)):
            return OSError(code, text)
    for ending, code in _UNRESOLVED.items():
        if text.endswith(ending):
            return socket.gaierror(code, text)
    return OSError(text)


class CAInfo:
    """How the certificate of a server is checked; exactly one of the three.

    Parameters
    ----------
    cacert : str, optional
        A file of trusted certificates (PEM).
    capath : str, optional
        A folder of them.
    allow_untrusted : bool
        Believe any server.

    Raises
    ------
    ValueError
        If not exactly one is given, or the file or folder is not there.
    """

    __slots__ = ("_allow_untrusted", "_cacert", "_capath")

    def __init__(
        self,
        *,
        cacert: str | None = None,
        capath: str | None = None,
        allow_untrusted: bool = False,
    ) -> None:
        if (cacert is not None) + (capath is not None) + bool(allow_untrusted) != 1:
            raise ValueError("CAInfo: expected exactly one of cacert, capath, allow_untrusted")
        if cacert is not None and not os.path.isfile(cacert):
            raise ValueError(f"CAInfo: cacert {cacert!r} is no file")
        if capath is not None and not os.path.isdir(capath):
            raise ValueError(f"CAInfo: capath {capath!r} is no folder")
        self._cacert = cacert
        self._capath = capath
        self._allow_untrusted = bool(allow_untrusted)

    @property
    def curl_flags(self) -> tuple[str, ...]:
        """The same in curl's words."""
        if self._cacert is not None:
            return ("--cacert", str(self._cacert))
        return ("--insecure",) if self._capath is None else ("--capath", str(self._capath))

    @property
    def words(self) -> dict[str, Any]:
        """The same as storage options."""
        if self._cacert is not None:
            return {"ca_file": os.fspath(self._cacert)}
        if self._capath is not None:
            return {"ca_folder": os.fspath(self._capath)}
        return {"allow_invalid_certificates": True}

    def __hash__(self) -> int:
        return hash(self.curl_flags)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CAInfo) and self.curl_flags == other.curl_flags


def certificate_words(certificates: CAInfo | None) -> dict[str, Any]:
    """Storage options for this handling of certificates.

    Raises
    ------
    TypeError
        If it is something else.
    """
    if certificates is None:
        return {}
    if not isinstance(certificates, CAInfo):
        raise TypeError(
            f"certificate_handling: expected a CAInfo or None, not {type(certificates).__name__}"
        )
    return certificates.words


class RemoteFile(io.BufferedIOBase):
    """A file of a remote place: sought in freely, and read ahead where it is read in order.

    Parameters
    ----------
    uri : str
    options : mapping
        Storage options.
    begin, end : int, optional
        The first byte and the one after the last; positions count from the file's beginning.

    Attributes
    ----------
    size : int
        Bytes of the whole file.
    bytes_read, bytes_skipped, read_operations : int
        What was handed over, sought over, and in how many calls.

    Raises
    ------
    ValueError
        If the range is none.
    OSError
        If it cannot be opened.
    """

    def __init__(
        self, uri: str, options: Mapping[str, Any], begin: int | None, end: int | None
    ) -> None:
        self._file: _core.File | None = None
        begin = begin or 0
        if begin < 0 or (end is not None and end <= begin):
            raise ValueError(f"range [{begin}, {end}): it has no bytes, or begins before the file")
        self.place = uri
        self.storage_options = dict(options)
        self._end = end
        self._where = begin
        self._ahead = memoryview(b"")  # bytes that are here, and where they begin
        self._ahead_at = 0
        self._window = _LEAST_AHEAD
        self._notes: list[str] = []  # of errors
        self.bytes_read = self.bytes_skipped = self.read_operations = 0
        began = time.monotonic()
        place = os.fsencode(uri)
        try:
            self._file = _core.File.open(place, storage_for([place], self.storage_options))
        except Error as error:
            raise _os_error(f"Failed to open stream: {error}") from None
        self._seconds_to_open = time.monotonic() - began
        self.size = self._file.size
        if begin and begin >= self.size:
            raise OSError(
                f"Failed to open stream: it has {self.size} bytes, and byte {begin} is asked for"
            )

    @property
    def whole(self) -> bool:
        """Nobody asked for a part of it, and nothing of it was read."""
        return self._where == 0 and self._end is None

    def reader(self) -> Callable[[int, int], bytes]:
        """What gives (offset, size), wherever it stands, and when it is closed, too."""
        file = self._file

        def read(offset: int, size: int) -> bytes:
            data = bytearray(size)
            self._fetch(offset, memoryview(data), file)
            return bytes(data)

        return read

    def _fetch(self, offset: int, target: memoryview, kept: _core.File | None = None) -> None:
        file = self._file if kept is None else kept
        if file is None:
            raise OSError(f"{type(self).__name__} closed.")
        if not len(target):
            return
        try:
            file.read(offset, _core.buffer_address(target), len(target))
        except Error as error:
            raise _os_error("; ".join([str(error), *self._notes])) from None

    def readinto(self, ba: Any) -> int:
        """Fill the buffer; less only at the end."""
        if self._file is None:
            raise OSError(f"{type(self).__name__} closed.")
        target = memoryview(ba).cast("B")
        stop = self.size if self._end is None else min(self._end, self.size)
        size = max(min(len(target), stop - self._where), 0)
        target = target[:size]
        while len(target):
            here = self._where - self._ahead_at
            if 0 <= here < len(self._ahead):
                found = self._ahead[here : here + len(target)]
                target[: len(found)] = found
                count = len(found)
            elif len(target) >= self._window:
                self._fetch(self._where, target)
                count = len(target)
            else:
                self._read_ahead(stop)
                continue
            self._where += count
            target = target[count:]
        self.bytes_read += size
        self.read_operations += 1
        return size

    def _read_ahead(self, stop: int) -> None:
        # Twice as much as before where it goes on where it was, else little.
        if self._where == self._ahead_at + len(self._ahead) and len(self._ahead):
            self._window = min(self._window * 2, _MOST_AHEAD)
        else:
            self._window = _LEAST_AHEAD
        data = memoryview(bytearray(min(self._window, stop - self._where)))
        self._fetch(self._where, data)
        self._ahead, self._ahead_at = data, self._where

    def read(self, size: int | None = None) -> bytes:
        """`size` bytes, or all there are; fewer only at the end."""
        stop = self.size if self._end is None else min(self._end, self.size)
        left = max(stop - self._where, 0)
        # What BytesIO was given, and nobody else holds, is what it is written into and gives back.
        data = io.BytesIO(bytes(left if size is None or size < 0 else min(size, left)))
        with data.getbuffer() as whole:
            done = 0 if whole else self.readinto(whole)
            while done < len(whole):
                done += self.readinto(whole[done : done + _STEP])
        return data.getvalue()

    read1 = read
    readinto1 = readinto

    def tell(self) -> int:
        """The position, from the file's beginning."""
        return self._where

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        """Go there; it costs nothing before something is read."""
        if whence == os.SEEK_CUR:
            position += self._where
        elif whence != os.SEEK_SET:
            raise ValueError("Unsupported `whence`")
        if position < 0:
            raise ValueError(f"position {position} is before the file")
        self.bytes_skipped += max(position - self._where, 0)
        self._where = position
        return position

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def writable(self) -> bool:
        """False."""
        return False

    def fileno(self) -> int:
        """There is none: -1; but of a file that a server could only give as a whole."""
        return -1 if self._file is None else self._file.fileno()

    def readline(self, size: int | None = -1) -> bytes:
        """It has no lines."""
        raise io.UnsupportedOperation("readline")

    def close(self) -> None:
        """Let go of it."""
        self._file = None
        self._ahead = memoryview(b"")
        super().close()


class CURLStreamFile(RemoteFile):
    """A file behind http or https, or in S3.

    A transfer that breaks off goes on where it was, if the file is still the same. The name is
    tensorizer's.

    Parameters
    ----------
    uri : str
    begin, end : int, optional
        The first byte and the one after the last; positions count from the file's beginning.
    headers : mapping, optional
        Sent with every request, to this host only.
    buffer_size : int, optional
        Accepted; there is no pipe whose size it could be.
    certificate_handling : CAInfo, optional

    Attributes
    ----------
    response_headers : email.message.Message
        Of the first answer; sizes are those of the stream.
    http_response_latencies, popen_latencies : list of float
        Seconds until the first answer; the second stays empty.
    bytes_read, bytes_skipped, read_operations : int

    Raises
    ------
    ValueError
        If the range is none.
    OSError
        If it cannot be read.
    """

    def __init__(
        self,
        uri: str,
        begin: int | None = None,
        end: int | None = None,
        headers: Mapping[str, Any] | None = None,
        *,
        buffer_size: int | None = None,
        certificate_handling: CAInfo | None = None,
        _options: Mapping[str, Any] | None = None,
    ) -> None:
        del buffer_size
        # A server that takes no ranges gives the whole; it is kept in memory.
        options: dict[str, Any] = {"timeout": _TIMEOUT, "whole": True, **(_options or {})}
        certificates = certificate_words(certificate_handling)
        if options.get("endpoint", uri).lower().startswith("https:"):
            options |= certificates
        if headers:
            options["headers"] = headers
        super().__init__(uri, options, begin, end)
        self.response_headers = self._answered()
        self.popen_latencies: list[float] = []
        self.http_response_latencies = [self._seconds_to_open]

    def _answered(self) -> Message:
        """The first answer's headers, with the size of the stream and not of the engine's part."""
        found = Message()
        for name, value in (self._file.headers if self._file is not None else {}).items():
            if name.lower() not in ("content-length", "content-range"):
                found[name] = value
        stop = self.size if self._end is None else min(self._end, self.size)
        found["Content-Length"] = str(max(stop - self._where, 0))
        if not self.whole:
            found["Content-Range"] = f"bytes {self._where}-{stop - 1}/{self.size}"
        return found

    def register_error_context(self, msg: str) -> None:
        """Something that errors of reading shall say, too."""
        self._notes.append(msg)


def check_redis_uri(uri: str) -> None:
    """Whether it names a server.

    Raises
    ------
    ValueError
        If it does not. Logins are not repeated.
    """
    parts = urllib.parse.urlsplit(uri)
    try:
        port = parts.port
    except ValueError:
        port = -1
    if parts.scheme.lower() != "redis" or not parts.hostname or port == -1:
        raise ValueError("Invalid Redis URI: expected redis://[[USER]:PASSWORD@]HOST[:PORT]/PREFIX")


class RedisStreamFile(RemoteFile):
    """What `TensorDeserializer.to_redis` wrote, as one file.

    Parameters
    ----------
    uri : str
        ``redis://[[USER]:PASSWORD@]HOST[:PORT]/PREFIX``
    begin, end : int, optional
        The first byte and the one after the last.
    buffer_size : int, optional
        Accepted; the engine has its own.

    Attributes
    ----------
    setup_latency : float
        Seconds until all keys were known.
    response_latencies : list of float
        Seconds of each reading.
    bytes_read, bytes_skipped, read_operations : int

    Raises
    ------
    OSError
        If the server cannot be reached, refuses, or has no such keys.
    ValueError
        If the range is none, or this is no URI of Redis.
    """

    def __init__(
        self,
        uri: str,
        *,
        begin: int | None = None,
        end: int | None = None,
        buffer_size: int | None = None,
    ) -> None:
        del buffer_size
        check_redis_uri(uri)
        super().__init__(uri, {}, begin, end)
        self.setup_latency = self._seconds_to_open
        self.response_latencies: list[float] = []

    def _fetch(self, offset: int, target: memoryview, kept: _core.File | None = None) -> None:
        began = time.monotonic()
        super()._fetch(offset, target, kept)
        self.response_latencies.append(time.monotonic() - began)
