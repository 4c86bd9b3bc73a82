"""Files of text that the caller names: written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import stat

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
        mode = _mode_of(target)
        if mode is not None and not stat.S_ISREG(mode):
            _write(os.open(target, os.O_WRONLY | os.O_CLOEXEC), text)
        else:
            _replace(target, mode, text)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SourceError(f"write {os.fspath(path)}: {reason}") from None


def _mode_of(target: str) -> int | None:
    try:
        return os.stat(target).st_mode
    except FileNotFoundError:
        return None


def _replace(target: str, mode: int | None, text: str) -> None:
    folder, name = os.path.split(target)
    end = f".{os.urandom(8).hex()}.inrush-partial"
    temporary = os.path.join(folder, f".{name[: 128 - len(end)]}{end}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        if mode is not None:
            os.fchmod(descriptor, stat.S_IMODE(mode))
        _write(descriptor, text, sync=True)
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_folder(folder)


def _write(descriptor: int, text: str, *, sync: bool = False) -> None:
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        if sync:
            os.fsync(descriptor)


def _sync_folder(folder: str) -> None:
    # Some filesystems have no fsync of a folder; there the name is as durable as it gets.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
