"""S3 as tensorizer's users know it: s3cmd's credentials, its endpoints, uploads at the end."""

from __future__ import annotations

import configparser
import io
import mmap
import os
import re
import tempfile
import typing
import urllib.parse
import warnings

from inrush import _core
from inrush._errors import Error
from inrush._options import aws_environment
from inrush._storage import storage_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_STEP = 16 << 20  # bytes of an upload that are handed over at once
# Where buckets are names of hosts and nothing else.
_VIRTUAL_HOSTS = ("cwobject.com", "cwlota.com")


class Configured(typing.NamedTuple):
    """What a file of s3cmd's says. Never printed."""

    access_key: str | None = None
    secret_key: str | None = None
    endpoint: str | None = None
    use_https: bool | None = None

    def __repr__(self) -> str:
        return "<Configured>"


def check_uri(uri: str) -> None:
    """Whether it names an object.

    Raises
    ------
    ValueError
        If there is no bucket or no key.
    """
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme.lower() != "s3" or not bucket or not key.lstrip("/"):
        raise ValueError(f"Invalid S3 URI: {uri}: expected s3://BUCKET/KEY")


def from_s3cfg(paths: Any) -> Configured:
    """The first of these files that has a pair of keys."""
    for path in paths:
        values = _core.read_s3cfg(os.fsencode(path))
        if values.get("access_key") and values.get("secret_key"):
            return Configured(
                values["access_key"],
                values["secret_key"],
                values.get("host_base"),
                {"True": True, "False": False}.get(values.get("use_https", "")),
            )
    return Configured()


def configured_endpoint() -> str | None:
    """The endpoint that the environment or AWS's configuration names."""
    named = aws_environment("ENDPOINT_URL_S3") or aws_environment("ENDPOINT_URL")
    if named:
        return named
    parser = configparser.ConfigParser(interpolation=None)
    path = aws_environment("CONFIG_FILE") or os.path.expanduser("~/.aws/config")
    profile = aws_environment("PROFILE") or "default"
    try:
        parser.read(path, encoding="utf-8")
    except (UnicodeDecodeError, configparser.Error):
        return None
    section = profile if profile == "default" else f"profile {profile}"
    nested = parser.get(section, "s3", fallback="")
    for line in nested.splitlines():
        name, _, value = line.partition("=")
        if name.strip() == "endpoint_url":
            return value.strip()
    return parser.get(section, "endpoint_url", fallback=None)


def storage_options(
    keys: tuple[str | None, str | None], endpoint: str, region: str | None
) -> dict[str, Any]:
    """The engine's words for it.

    Parameters
    ----------
    keys : (str or None, str or None)
        Both empty: nothing is signed. Where one is missing, what AWS's own tools would take; and
        where there is nothing of that either, nothing is signed.
    endpoint : str
        With its scheme.
    region : str, optional
    """
    host = urllib.parse.urlsplit(endpoint).hostname or ""
    virtual = host.lower().endswith(_VIRTUAL_HOSTS)
    words: dict[str, Any] = {
        "endpoint": endpoint,
        "addressing": "virtual" if virtual else "path",
    }
    named = re.search(r"\bs3[.-]([a-z0-9-]+)\.amazonaws\.com$", host)
    asked = aws_environment("REGION") or aws_environment("DEFAULT_REGION")
    region = region or asked or (named.group(1) if named else None)
    if region:
        words["region"] = region
    if keys == ("", ""):
        words["anon"] = True
    elif keys[0] and keys[1]:
        words["key"], words["secret"] = keys
    else:
        words["anon"] = "auto"
    return words


def upload(descriptor: int, uri: str, options: Mapping[str, Any]) -> None:
    """Make the bytes of an open file an object.

    Raises
    ------
    OSError
        If the server refuses; there is no object then.
    """
    place = os.fsencode(uri)
    try:
        writer = _core.Writer.open(place, storage_for([place], options))
        try:
            _write(writer, descriptor)
        except BaseException:
            writer.abort()
            raise
    except Error as error:
        raise OSError(str(error)) from None


def _write(writer: _core.Writer, descriptor: int) -> None:
    size = os.fstat(descriptor).st_size
    writer.create(size)
    if size:
        with mmap.mmap(descriptor, size, prot=mmap.PROT_READ) as content:
            address = _core.buffer_address(content)
            for at in range(0, size, _STEP):
                writer.write(at, address + at, min(_STEP, size - at))
    writer.finish()


class Upload(io.BufferedRandom):
    """A file without a name on this machine, which becomes the object when it is closed.

    Left by an exception, or never closed, it becomes nothing.
    """

    def __init__(self, uri: str, options: Mapping[str, Any]) -> None:
        self._uri = uri
        self._options = options
        self._wanted = True
        # Unbuffered: the raw file, which this object then owns.
        file: Any = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
        super().__init__(file)

    @property
    def name(self) -> str:
        """Where it goes."""
        return self._uri

    def __exit__(self, *error: Any) -> None:
        self._wanted = self._wanted and error[0] is None
        self.close()

    def __del__(self) -> None:
        if not self.closed:
            self._wanted = False
            warnings.warn(
                f"{self.name} was never closed: nothing was uploaded", ResourceWarning, stacklevel=2
            )
            self.close()

    def close(self) -> None:
        """Upload it.

        Raises
        ------
        OSError
            If the server refuses; there is no object then.
        """
        if self.closed:
            return
        try:
            if self._wanted:
                self.flush()
                upload(self.fileno(), self._uri, self._options)
        finally:
            super().close()
