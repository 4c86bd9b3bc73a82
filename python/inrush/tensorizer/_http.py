"""Files behind http and https as tensorizer's users see them, on Python's own client."""

from __future__ import annotations

import http.client
import io
import os
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, NoReturn

_TIMEOUT = 30.0  # seconds without a byte
_ATTEMPTS = 5  # of a request that breaks off; each goes on where the one before ended
_SKIPPED = 1 << 20  # bytes that are rather read and dropped than asked for anew
_STEP = 1 << 20  # bytes read at once
_TRANSIENT = (408, 429, 500, 502, 503, 504)


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
            return ("--cacert", self._cacert)
        return ("--insecure",) if self._capath is None else ("--capath", self._capath)

    def tls(self) -> ssl.SSLContext:
        """The same in Python's words."""
        made = ssl.create_default_context(cafile=self._cacert, capath=self._capath)
        if self._allow_untrusted:
            made.check_hostname = False
            made.verify_mode = ssl.CERT_NONE
        return made

    def __hash__(self) -> int:
        return hash(self.curl_flags)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CAInfo) and self.curl_flags == other.curl_flags


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows, but takes secrets to no other host and never from https to http."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, *answer: Any
    ) -> urllib.request.Request | None:
        source = urllib.parse.urlsplit(req.full_url)
        target = urllib.parse.urlsplit(answer[-1])
        if source.scheme == "https" and target.scheme != "https":
            raise OSError(f"{public(req.full_url)} redirects away from https")
        made = super().redirect_request(req, fp, *answer)
        if made is not None and source[:2] != target[:2]:
            kept = {"Range", "User-agent", "Accept-encoding"}
            made.headers = {name: v for name, v in made.headers.items() if name in kept}
        return made


def public(url: str) -> str:
    """The URL without what may be secret in it: user, password, signature."""
    parts = urllib.parse.urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urllib.parse.urlunsplit((parts.scheme, host, parts.path, "", ""))


class _Https(urllib.request.HTTPSHandler):
    """https with these certificates, which are only read where it is https."""

    def __init__(self, certificates: CAInfo | None) -> None:
        super().__init__()
        self._certificates = certificates

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        tls = self._certificates.tls() if self._certificates else ssl.create_default_context()
        answer: Any = self.do_open(http.client.HTTPSConnection, req, context=tls)
        return answer  # type: ignore[no-any-return]


def opener(certificates: CAInfo | None) -> urllib.request.OpenerDirector:
    """What sends requests; it heeds the environment's proxies."""
    return urllib.request.build_opener(_Redirects, _Https(certificates))


class _Broken(Exception):
    """A transfer that may be tried again."""


class CURLStreamFile(io.BufferedIOBase):
    """A file behind http or https, read from front to back; sought in by new requests.

    A transfer that breaks off goes on where it was, if the file is still the same. The name is
    tensorizer's; no curl is involved.

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
    response_headers : http.client.HTTPMessage
        Of the last answer.
    http_response_latencies, popen_latencies : list of float
        Seconds until each answer; the second stays empty.
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
    ) -> None:
        del buffer_size
        self._answer: http.client.HTTPResponse | None = None
        begin = 0 if begin is None else begin
        if begin < 0 or (end is not None and end <= begin):
            raise ValueError(f"range [{begin}, {end}): it has no bytes, or begins before the file")
        self._uri = uri
        self._end = end
        self._headers = dict(headers or {})
        self._certificates = certificate_handling
        self._opener = opener(certificate_handling)
        self._tag: str | None = None  # what tells this file from another one of its name
        self._where = begin
        self.size: int | None = None  # bytes of the whole file, where the server says it
        self.response_headers: Any = None
        self.popen_latencies: list[float] = []
        self.http_response_latencies: list[float] = []
        self.bytes_read = self.bytes_skipped = self.read_operations = 0
        self._again(self._request)

    def _fail(self, why: object) -> NoReturn:
        raise OSError(f"Failed to open stream: {public(self._uri)}: {why}") from None

    def _again(self, step: Any) -> Any:
        """Run a step until it succeeds, with pauses; `_ATTEMPTS` times without a byte between."""
        for attempt in range(_ATTEMPTS):
            try:
                return step()
            except _Broken as broken:
                if attempt == _ATTEMPTS - 1:
                    self._fail(f"{broken}, {_ATTEMPTS} times")
                time.sleep(0.1 * 2**attempt)
        return None

    def _request(self) -> None:
        self._drop()
        last = "" if self._end is None else str(self._end - 1)
        headers = {"User-Agent": "Inrush", "Accept-Encoding": "identity", **self._headers}
        if self._where or last:
            headers["Range"] = f"bytes={self._where}-{last}"
        began = time.monotonic()
        try:
            answer = self._opener.open(
                urllib.request.Request(self._uri, headers=headers), timeout=_TIMEOUT
            )
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416:  # behind the end
                self.response_headers = error.headers
                return
            if error.code in _TRANSIENT:
                raise _Broken(f"HTTP {error.code} {error.reason}") from None
            self._fail(f"HTTP {error.code} {error.reason}")
        except urllib.error.URLError as error:
            reason = error.reason
            if isinstance(reason, ssl.SSLCertVerificationError):
                self._fail(f"its certificate is not trusted: {reason.verify_message}")
            raise _Broken(str(reason)) from None
        except (http.client.HTTPException, TimeoutError, ConnectionError) as error:
            raise _Broken(str(error) or type(error).__name__) from None
        self.http_response_latencies.append(time.monotonic() - began)
        self.response_headers = answer.headers
        self._answer = answer
        self._check(answer, ranged="Range" in headers)

    def _check(self, answer: http.client.HTTPResponse, *, ranged: bool) -> None:
        """The answer is of the range and of the file that are wanted."""
        length = answer.headers.get("Content-Length")
        tag = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
        if self._tag is not None and tag != self._tag:
            self._drop()
            self._fail("the file changed while it was read")
        self._tag = tag
        if answer.status == 206:
            said = answer.headers.get("Content-Range", "")
            span, _, total = said.removeprefix("bytes ").partition("/")
            if span.partition("-")[0] != str(self._where):
                self._drop()
                self._fail(f"asked for bytes from {self._where} on, it answers {said!r}")
            self.size = int(total) if total.isdecimal() else None
            return
        self.size = int(length) if length is not None and length.isdecimal() else None
        if ranged:  # the server takes no ranges: what is before has to be dropped
            left = self._where
            while left:
                got = answer.read(min(left, _STEP))
                if not got:
                    raise _Broken("it ends early")
                self.bytes_skipped += len(got)
                left -= len(got)

    def _drop(self) -> None:
        if self._answer is not None:
            self._answer.close()
            self._answer = None

    def _some(self, most: int) -> bytes:
        """At least one byte, unless it is the end."""
        stop = self._end if self.size is None else min(self._end or self.size, self.size)
        if stop is not None:
            most = min(most, stop - self._where)
        if most <= 0:
            return b""
        if self._answer is None:
            self._request()
        if self._answer is None:
            return b""
        try:
            data = self._answer.read(most)
        except (http.client.HTTPException, TimeoutError, OSError) as error:
            self._drop()
            raise _Broken(f"byte {self._where}: {error or type(error).__name__}") from None
        if not data and stop is not None:
            self._drop()
            raise _Broken(f"byte {self._where}: it ends early")
        return data

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer; less only at the end."""
        target = memoryview(buffer).cast("B")
        return self._take(len(target), lambda at, data: target.__setitem__(slice(*at), data))

    def read(self, size: int | None = -1) -> bytes:
        """`size` bytes, or all there are; fewer only at the end."""
        parts: list[bytes] = []
        self._take(-1 if size is None else size, lambda _, data: parts.append(data))
        return b"".join(parts)

    read1 = read
    readinto1 = readinto

    def _take(self, size: int, put: Any) -> int:
        if self.closed:
            raise OSError("CURLStreamFile closed.")
        done = 0
        while size < 0 or done < size:
            most = _STEP if size < 0 else min(size - done, _STEP)
            data = self._again(lambda most=most: self._some(most))
            if not data:
                break
            put((done, done + len(data)), data)
            done += len(data)
            self._where += len(data)
        self.bytes_read += done
        self.read_operations += 1
        return done

    def tell(self) -> int:
        """The position, from the file's beginning."""
        return self._where

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        """Go there: a little forward by reading, else by a new request."""
        if whence == os.SEEK_CUR:
            position += self._where
        elif whence != os.SEEK_SET:
            raise ValueError("Unsupported `whence`")
        if position < 0:
            raise ValueError(f"position {position} is before the file")
        ahead = position - self._where
        if ahead and self._answer is not None and 0 < ahead <= _SKIPPED:
            self.bytes_skipped += ahead
            self.read(ahead)
        if position != self._where:
            self._drop()
            self._where = position
        return position

    def _fork(self, begin: int | None = None, end: int | None = None) -> CURLStreamFile:
        """Another one of the same file."""
        made = CURLStreamFile(
            self._uri, begin, end, self._headers, certificate_handling=self._certificates
        )
        if made._tag != self._tag:
            made.close()
            self._fail("the file changed while it was read")
        return made

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def fileno(self) -> int:
        """There is none: -1, as tensorizer says."""
        return -1

    def readline(self, size: int | None = -1) -> bytes:
        """It has no lines."""
        raise io.UnsupportedOperation("readline")

    def close(self) -> None:
        """End the transfer."""
        self._drop()
        super().close()
