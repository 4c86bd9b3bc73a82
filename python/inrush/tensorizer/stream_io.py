"""Files to read from and write to, as tensorizer opens them: local, http, S3, Redis."""

from __future__ import annotations

import io
import os
import warnings
from io import SEEK_CUR, SEEK_END, SEEK_SET

from inrush.tensorizer import _s3
from inrush.tensorizer._remote import (
    CAInfo,
    CURLStreamFile,
    RedisStreamFile,
    certificate_words,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, BinaryIO

__all__ = ["CAInfo", "CURLStreamFile", "RedisStreamFile", "open_stream"]

# Beyond tensorizer's own list, what its users take from here.
_ALSO = (SEEK_CUR, SEEK_END, SEEK_SET)

# CoreWeave's; only this module knows them.
default_s3_read_endpoint = "accel-object.ord1.coreweave.com"
default_s3_write_endpoint = "object.ord1.coreweave.com"

_s3_default_config_paths: tuple[str, ...] = (os.path.expanduser("~/.s3cfg"),)
_warned: set[str] = set()


def _enforce_scheme(endpoint: str, allow_http: bool = False, force_http: bool = False) -> str:
    scheme, found, rest = endpoint.partition("://")
    if not found:
        return ("http://" if force_http else "https://") + endpoint
    if scheme.lower() == "https":
        return "http://" + rest if force_http else endpoint
    if scheme.lower() == "http" and (allow_http or force_http):
        return endpoint
    raise ValueError("Non-HTTPS endpoint URLs are not allowed.")


def _default_endpoint(writing: bool) -> str:
    endpoint = default_s3_write_endpoint if writing else default_s3_read_endpoint
    if endpoint not in _warned:
        _warned.add(endpoint)
        warnings.warn(
            f"no S3 endpoint is configured: tensorizer's default is taken, {endpoint}",
            stacklevel=4,
        )
    return endpoint


def _s3_words(words: dict[str, Any], *, writing: bool) -> dict[str, Any]:
    """The engine's words for what open_stream() was told of S3."""
    given = words["s3_config_path"]
    if given is not None and not os.path.exists(given):
        raise FileNotFoundError(f"s3_config_path: {given!r} is not there")
    key, secret = words["s3_access_key_id"], words["s3_secret_access_key"]
    found = _s3.Configured()
    if key is None or secret is None:
        found = _s3.from_s3cfg(_s3_default_config_paths if given is None else (given,))
        key = found.access_key if key is None else key
        secret = found.secret_key if secret is None else secret
    keys = _signing_keys((key, secret), words["s3_signature_version"])
    endpoint = words["s3_endpoint"] or found.endpoint
    force = words["force_http"]
    if force is None:
        force = found.use_https is False
    configured = None if endpoint else _s3.configured_endpoint()
    endpoint = endpoint or configured or _default_endpoint(writing)
    endpoint = _enforce_scheme(endpoint, configured is not None, bool(force)).rstrip("/")
    return _s3.storage_options(keys, endpoint, words["s3_region_name"])


def _signing_keys(
    keys: tuple[str | None, str | None], signature: str | None
) -> tuple[str | None, str | None]:
    if signature == "unsigned":
        return "", ""
    if signature not in (None, "s3v4", "v4"):
        raise ValueError(f"s3_signature_version={signature!r}: only s3v4 and unsigned are spoken")
    key, secret = keys
    if bool(key) != bool(secret):
        missing = "s3_secret_access_key" if key else "s3_access_key_id"
        raise ValueError(f"{missing} is missing: it was not given, and no file of s3cmd's has it")
    return keys


def _open_s3(uri: str, mode: str, words: dict[str, Any], begin: int | None, end: int | None) -> Any:
    letters = "".join(sorted(mode))
    if letters not in ("br", "bw", "+bw"):
        raise ValueError(f"{mode!r}: only rb, wb and wb+ are possible with s3://")
    _s3.check_uri(uri)
    options = _s3_words(words, writing="w" in mode)
    certificates = words["certificate_handling"]
    if "w" in mode:
        return _s3.Upload(uri, options | certificate_words(certificates))
    return CURLStreamFile(uri, begin, end, certificate_handling=certificates, _options=options)


def open_stream(
    path_uri: str | os.PathLike[str],
    mode: str = "rb",
    s3_access_key_id: str | None = None,
    s3_secret_access_key: str | None = None,
    s3_endpoint: str | None = None,
    s3_config_path: str | bytes | os.PathLike[str] | None = None,
    buffer_size: int | None = None,
    force_http: bool | None = None,
    *,
    begin: int | None = None,
    end: int | None = None,
    s3_region_name: str | None = None,
    s3_signature_version: str | None = None,
    certificate_handling: CAInfo | None = None,
) -> BinaryIO:
    """A binary file that lies here, behind http, in S3 or in Redis.

    Parameters
    ----------
    path_uri : str or os.PathLike
        A path, or a text that begins with ``http://``, ``https://``, ``s3://``, ``redis://`` or
        ``hf://``; those are read only, but for S3. What is on the Hub is downloaded into
        huggingface_hub's cache first. Folders that a local file is written into are made.
    mode : str
        As of `open`, with ``b``.
    s3_access_key_id, s3_secret_access_key : str, optional
        Empty for a public bucket. Default: those of ``.s3cfg``, then those that AWS's tools take.
    s3_endpoint : str, optional
        Default: that of ``.s3cfg``, then of AWS's configuration, then CoreWeave's, with a warning.
    s3_config_path : str or os.PathLike, optional
        A ``.s3cfg`` that is not in the home folder.
    buffer_size : int, optional
        Bytes of a local file's buffer; remote ones have none of this size.
    force_http : bool, optional
        Do without TLS.
    begin, end : int, optional
        The first byte, and, but for local files, the one after the last.
    s3_region_name, s3_signature_version : str, optional
    certificate_handling : CAInfo, optional

    Raises
    ------
    ValueError
        For a mode that is not possible there; for an endpoint without TLS; for half of a pair of
        S3's keys; for a URI of Redis without a server.
    OSError
        If it cannot be opened.
    """
    local = isinstance(path_uri, os.PathLike)
    path: Any = os.fspath(path_uri)
    scheme = path.partition("://")[0].lower() if not local and "://" in path else ""
    if scheme in ("hf", "http", "https", "redis") and "".join(sorted(mode)) != "br":
        raise ValueError(f'Only the mode "rb" is valid when opening {scheme}:// streams.')
    stream: Any
    if scheme in ("http", "https"):
        stream = CURLStreamFile(path, begin, end, certificate_handling=certificate_handling)
    elif scheme == "redis":
        stream = RedisStreamFile(path, begin=begin, end=end, buffer_size=buffer_size)
    elif scheme == "s3":
        words = {
            "s3_access_key_id": s3_access_key_id, "s3_secret_access_key": s3_secret_access_key,
            "s3_endpoint": s3_endpoint, "s3_config_path": s3_config_path,
            "force_http": force_http, "s3_region_name": s3_region_name,
            "s3_signature_version": s3_signature_version,
            "certificate_handling": certificate_handling,
        }  # fmt: skip
        stream = _open_s3(path, mode, words, begin, end)
    else:
        if scheme == "hf":
            path = _here(path)
        stream = _open_local(path, mode, buffer_size)
        stream.seek(begin or 0)
    return stream  # type: ignore[no-any-return]


def s3_download(
    path_uri: str,
    s3_access_key_id: str | None,
    s3_secret_access_key: str | None,
    s3_endpoint: str | None = default_s3_read_endpoint,
    s3_region_name: str | None = None,
    s3_signature_version: str | None = None,
    buffer_size: int | None = None,
    begin: int | None = None,
    end: int | None = None,
    certificate_handling: CAInfo | None = None,
) -> CURLStreamFile:
    """An object of S3, by these words alone: no file of s3cmd's is looked into.

    Parameters are those of `open_stream`; an endpoint without TLS is one that begins with
    ``http://``.
    """
    _s3.check_uri(path_uri)
    keys = _signing_keys((s3_access_key_id, s3_secret_access_key), s3_signature_version)
    options = _s3.storage_options(keys, _named_endpoint(s3_endpoint, False), s3_region_name)
    return CURLStreamFile(
        path_uri,
        begin,
        end,
        buffer_size=buffer_size,
        certificate_handling=certificate_handling,
        _options=options,
    )


def s3_upload(
    path: str,
    target_uri: str,
    s3_access_key_id: str | None,
    s3_secret_access_key: str | None,
    s3_endpoint: str | None = default_s3_write_endpoint,
    s3_region_name: str | None = None,
    s3_signature_version: str | None = None,
) -> None:
    """Make a file an object of S3; as for `s3_download`.

    Raises
    ------
    OSError
        If the file cannot be read, or the server refuses; there is no object then.
    """
    _s3.check_uri(target_uri)
    keys = _signing_keys((s3_access_key_id, s3_secret_access_key), s3_signature_version)
    options = _s3.storage_options(keys, _named_endpoint(s3_endpoint, True), s3_region_name)
    with open(path, "rb") as file:
        _s3.upload(file.fileno(), target_uri, options)


def _named_endpoint(endpoint: str | None, writing: bool) -> str:
    default = default_s3_write_endpoint if writing else default_s3_read_endpoint
    if not endpoint:
        endpoint = _s3.configured_endpoint() or default
    if endpoint == default:
        endpoint = _default_endpoint(writing)
    return _enforce_scheme(endpoint, allow_http=True).rstrip("/")


def _here(uri: str) -> str:
    """The file of the Hub in huggingface_hub's cache, downloaded if it is not there."""
    from inrush._hub import file_here  # few need it, and importing it takes time

    return file_here(uri)


def _open_local(path: Any, mode: str, buffer_size: int | None) -> Any:
    if "b" not in mode:
        raise ValueError(f"only binary modes are possible, not {mode!r}")
    if set(mode) & set("wax"):
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    return open(path, mode, io.DEFAULT_BUFFER_SIZE if buffer_size is None else buffer_size)
