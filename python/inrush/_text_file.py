"""Files of text that the caller names: written whole or not at all."""

from __future__ import annotations

import os
import stat

from inrush import _core
from inrush._errors import SourceError

TYPE_CHECKING = False
if TYPE_CHECKING:
    Path = str | os.PathLike[str]


def check_folder(path: Path) -> None:
    """Raise SourceError where the folder that a file shall be written in is none."""
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise SourceError(f"write {os.fspath(path)}: there is no folder {folder}")


def write_text(path: Path, text: str) -> None:
    """Write a file through a temporary beside it; links are followed, devices written straight.

    A new file has the mode that the umask leaves, one that is replaced keeps its own.

    Raises
    ------
    SourceError
        If it cannot be written; what was there is unchanged then.
    """
    try:
        target = os.path.realpath(path)
        data = text.encode()
        if _is_special(target):
            with open(os.open(target, os.O_WRONLY | os.O_CLOEXEC), "wb") as file:
                file.write(data)
        else:
            _replace(target, data)
    except SourceError:
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SourceError(f"write {os.fspath(path)}: {reason}") from None


def _is_special(target: str) -> bool:
    try:
        return not stat.S_ISREG(os.stat(target).st_mode)
    except FileNotFoundError:
        return False


def _replace(target: str, data: bytes) -> None:
    writer = _core.Writer.open(os.fsencode(target))
    try:
        writer.create(len(data))
        writer.write(0, _core.buffer_address(data), len(data))
        writer.finish()
    finally:
        writer.abort()
