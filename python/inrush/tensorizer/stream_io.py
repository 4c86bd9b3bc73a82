"""Files to read from and write to, as tensorizer opens them: local ones."""

from __future__ import annotations

import os

from inrush._errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, BinaryIO

_REMOTE = ("http://", "https://", "s3://", "redis://")


def open_stream(path_uri: str | os.PathLike[str], mode: str = "rb", **options: Any) -> BinaryIO:
    """A local file, binary; folders that it is written into are made.

    Parameters
    ----------
    path_uri : str or os.PathLike
    mode : str
        As of `open`, with ``b``.
    **options
        Those of tensorizer for remote places; a local file heeds none.

    Raises
    ------
    ValueError
        For a text mode.
    UsageError
        For a remote place.
    """
    normal = set(mode)
    if "b" not in normal:
        raise ValueError(f"only binary modes are possible, not {mode!r}")
    path = os.fspath(path_uri)
    if isinstance(path_uri, str) and path.lower().startswith(_REMOTE):
        scheme = path.partition(":")[0]
        raise UsageError(f"open {path}: {scheme}:// is not built here yet; copy it to this machine")
    if normal & set("wax"):
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    stream: Any = open(path, mode)  # noqa: SIM115
    return stream  # type: ignore[no-any-return]
