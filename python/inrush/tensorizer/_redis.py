"""A file whose pieces are the values of a Redis server: key ``PREFIX:NAME:OFFSET``."""

from __future__ import annotations

import bisect
import io
import os
import re
import socket
import time
import urllib.parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_TIMEOUT = 30.0  # seconds without a byte
_LARGEST_LINE = 1 << 16  # bytes of an answer's first line
_MOST_ITEMS = 1 << 20  # of an answer's list


class _Connection:
    """Commands in RESP, so that names may hold anything."""

    def __init__(self, uri: str, buffer_size: int | None) -> None:
        parts = urllib.parse.urlsplit(uri)
        self._where = f"redis://{parts.hostname}:{parts.port or 6379}"
        try:
            self._socket = socket.create_connection(
                (parts.hostname, parts.port or 6379), timeout=_TIMEOUT
            )
        except OSError as error:
            raise OSError(f"Failed to open stream: {self._where}: {error}") from None
        if buffer_size:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_size)
        self._file = self._socket.makefile("rb")
        if parts.password is not None:
            user = [urllib.parse.unquote(parts.username)] if parts.username else []
            self.ask("AUTH", *user, urllib.parse.unquote(parts.password))

    def ask(self, *words: str | bytes | int) -> Any:
        """The answer to one command."""
        sent = bytearray(b"*%d\r\n" % len(words))
        for word in words:
            raw = word if isinstance(word, bytes) else str(word).encode("utf-8", "surrogateescape")
            sent += b"$%d\r\n%b\r\n" % (len(raw), raw)
        try:
            self._socket.sendall(sent)
            return self._answer()
        except (OSError, ValueError) as error:
            raise OSError(f"read {self._where}: {words[0]!s}: {error}") from None

    def _answer(self) -> Any:
        line = self._file.readline(_LARGEST_LINE)
        if not line.endswith(b"\r\n"):
            raise OSError("the connection ended")
        kind, rest = line[:1], line[1:-2]
        if kind == b"-":
            raise OSError(rest.decode("utf-8", "replace"))
        if kind == b"+":
            return rest
        number = int(rest)
        if kind == b":":
            return number
        if kind == b"$":
            return self._bytes(number)
        if kind == b"*" and number <= _MOST_ITEMS:
            return [self._answer() for _ in range(number)]
        raise OSError("an answer of a kind that is not known")

    def _bytes(self, size: int) -> bytes | None:
        if size < 0:
            return None
        data = self._file.read(size + 2)
        if len(data) != size + 2:
            raise OSError("the connection ended")
        return bytes(data[:-2])

    def close(self) -> None:
        self._file.close()
        self._socket.close()


class RedisStreamFile(io.BufferedIOBase):
    """What `TensorDeserializer.to_redis` wrote, as one file.

    Parameters
    ----------
    uri : str
        ``redis://[[USER]:PASSWORD@]HOST[:PORT]/PREFIX``
    begin, end : int, optional
        The first byte and the one after the last.
    buffer_size : int, optional
        Of the socket.

    Attributes
    ----------
    setup_latency : float
        Seconds until all keys were known.
    response_latencies : list of float
    bytes_read, bytes_skipped, read_operations : int

    Raises
    ------
    OSError
        If the server cannot be reached, refuses, or has no such keys.
    ValueError
        If the range is none.
    """

    def __init__(
        self,
        uri: str,
        *,
        begin: int | None = None,
        end: int | None = None,
        buffer_size: int | None = None,
    ) -> None:
        begin = begin or 0
        if begin < 0 or (end is not None and end <= begin):
            raise ValueError(f"range [{begin}, {end}): it has no bytes, or begins before the file")
        began = time.monotonic()
        self._uri = uri
        self._end = end
        self._connection = _Connection(uri, buffer_size)
        prefix = urllib.parse.urlsplit(uri).path.lstrip("/")
        self._offsets, self._keys = self._find(prefix)
        self.size = self._offsets[-1] + int(self._connection.ask("STRLEN", self._keys[-1]))
        self._where = begin
        self.setup_latency = time.monotonic() - began
        self.response_latencies: list[float] = []
        self.bytes_read = self.bytes_skipped = self.read_operations = 0

    def _find(self, prefix: str) -> tuple[list[int], list[bytes]]:
        """Keys by offset; those of others under the prefix are passed by."""
        pattern = re.sub(r"([\\*?\[\]])", r"\\\1", prefix) + ":*"
        found: dict[int, bytes] = {}
        cursor: Any = b"0"
        while True:
            cursor, keys = self._connection.ask("SCAN", cursor, "MATCH", pattern, "COUNT", 1000)
            for key in keys:
                offset = key.rpartition(b":")[2]
                if offset.isdigit():
                    found[int(offset)] = key
            if cursor == b"0":
                break
        if 0 not in found:
            self._connection.close()
            raise OSError(f"Failed to open stream: no keys {prefix}:NAME:OFFSET from 0 on")
        offsets = sorted(found)
        return offsets, [found[offset] for offset in offsets]

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer; less only at the end."""
        if self.closed:
            raise OSError("RedisStreamFile closed.")
        target = memoryview(buffer).cast("B")
        stop = self.size if self._end is None else min(self._end, self.size)
        size = max(min(len(target), stop - self._where), 0)
        done = 0
        while done < size:
            number = bisect.bisect_right(self._offsets, self._where) - 1
            first = self._where - self._offsets[number]
            began = time.monotonic()
            last = first + size - done - 1
            data = self._connection.ask("GETRANGE", self._keys[number], first, last)
            self.response_latencies.append(time.monotonic() - began)
            following = self._offsets[number + 1] if number + 1 < len(self._offsets) else self.size
            data = data[: following - self._where]
            if not data:
                raise OSError(f"read {self._keys[number]!r}: byte {self._where} is in no key")
            target[done : done + len(data)] = data
            done += len(data)
            self._where += len(data)
        self.bytes_read += done
        self.read_operations += 1
        return done

    def read(self, size: int | None = -1) -> bytes:
        """`size` bytes, or all there are; fewer only at the end."""
        left = max(self.size - self._where, 0)
        data = bytearray(left if size is None or size < 0 else min(size, left))
        return bytes(data[: self.readinto(data)])

    read1 = read
    readinto1 = readinto

    def tell(self) -> int:
        """The position."""
        return self._where

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        """Go there; it costs nothing."""
        if whence == os.SEEK_CUR:
            position += self._where
        elif whence != os.SEEK_SET:
            raise ValueError("Unsupported `whence`")
        if position < 0:
            raise ValueError(f"position {position} is before the file")
        self._where = position
        return position

    def _fork(self, begin: int | None = None, end: int | None = None) -> RedisStreamFile:
        """Another one of the same keys, with a connection of its own."""
        return RedisStreamFile(self._uri, begin=begin, end=end)

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def fileno(self) -> int:
        """The connection's."""
        return self._connection._socket.fileno()

    def readline(self, size: int | None = -1) -> bytes:
        """It has no lines."""
        raise io.UnsupportedOperation("readline")

    def close(self) -> None:
        """Close the connection."""
        connection = getattr(self, "_connection", None)
        if connection is not None:
            connection.close()
        super().close()
