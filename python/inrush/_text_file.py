"""Files of text that the caller names, here or far away: written whole or not at all."""

from __future__ import annotations

import os
import re
import stat

from inrush import _core
from inrush._errors import DataError, SourceError
from inrush._options import preset_storage_options
from inrush._storage import storage_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    Path = str | os.PathLike[str]

_URI = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_LARGEST = 1 << 28  # bytes of a far text: a hundred times those of the largest manifest there is


def is_uri(path: Path) -> bool:
    """Whether it is no path of this machine."""
    return isinstance(path, str) and _URI.match(path) is not None


def read_far_text(uri: str, storage_options: Mapping[str, Any] | None = None) -> tuple[str, str]:
    """A file of a remote place: its name as errors show it, and what it says.

    Raises
    ------
    SourceError
        If it cannot be read.
    DataError
        If it is no text, or longer than any that is looked for.
    """
    place = os.fsencode(uri)
    words = preset_storage_options() if storage_options is None else dict(storage_options)
    if place.lower().startswith((b"http:", b"https:")):
        words = {"whole": True, **words}  # also from servers that give no parts
    file = _core.File.open(place, storage_for([place], words))
    if file.size > _LARGEST:
        raise DataError(f"read {file.name}: it has {file.size} bytes, more than {_LARGEST}")
    data = bytearray(file.size)
    if data:
        file.read(0, _core.buffer_address(data), len(data))
    try:
        return file.name, data.decode()
    except UnicodeDecodeError as error:
        raise DataError(f"read {file.name}: {error}") from None


def check_folder(path: Path) -> None:
    """Raise SourceError where the folder that a file shall be written in is none."""
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise SourceError(f"write {os.fspath(path)}: there is no folder {folder}")


def write_text(path: Path, text: str, storage_options: Mapping[str, Any] | None = None) -> None:
    """Write a file through a temporary beside it; links are followed, devices written straight.

    Or an object of a remote place, whose options these are.

    A new file has the mode that the umask leaves, one that is replaced keeps its own.

    Raises
    ------
    SourceError
        If it cannot be written; what was there is unchanged then.
    """
    if is_uri(path):
        place = os.fsencode(path)
        _write(_core.Writer.open(place, storage_for([place], storage_options)), text.encode())
        return
    try:
        data = text.encode()
        if _is_special(path):  # /dev/stdout: what it links to may have no path
            with open(os.open(path, os.O_WRONLY | os.O_CLOEXEC), "wb") as file:
                file.write(data)
        else:
            _write(_core.Writer.open(os.fsencode(os.path.realpath(path))), data)
    except SourceError:
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SourceError(f"write {os.fspath(path)}: {reason}") from None


def _is_special(path: Path) -> bool:
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except FileNotFoundError:
        return False


def _write(writer: _core.Writer, data: bytes) -> None:
    try:
        writer.create(len(data))
        writer.write(0, _core.buffer_address(data), len(data))
        writer.finish()
    finally:
        writer.abort()
