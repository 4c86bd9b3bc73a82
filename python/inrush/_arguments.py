"""Arguments as safetensors has them, and what they are here."""

from __future__ import annotations

import os

from inrush._errors import SafetensorError, WrongTypeError
from inrush._frameworks import framework_of
from inrush._options import parse_device

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    Source = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


# safetensors' functions have no words for these: INRUSH_INCLUDE and the like are of loads that do,
# and what one handle gives is whole, and in one place, whichever of its methods is asked.
WHOLE: dict[str, Any] = {
    "device": "cpu",
    "include": None,
    "exclude": None,
    "slices": None,
    "order": "file",
}


def existing(source: Source) -> Source:
    """The source, all of whose files exist as far as that can be seen here.

    Raises
    ------
    FileNotFoundError
        As safetensors words it.
    """
    if isinstance(source, (str, bytes, os.PathLike)):
        if "://" not in os.fsdecode(source) and not os.path.exists(source):
            from inrush._hub import is_installed, is_model_id  # few need it

            if isinstance(source, str) and is_model_id(source) and is_installed():
                return source
            raise FileNotFoundError(f"No such file or directory: {os.fsdecode(source)}")
        return source
    try:
        paths = [os.fspath(path) for path in source]
    except TypeError:
        raise WrongTypeError(f"filename {source!r}: expected a path or paths") from None
    for path in paths:
        existing(path)
    return paths


def hinted(backend: Any) -> dict[str, Any]:
    """The options that safetensors' argument `backend` stands for."""
    if backend is None:
        return {}
    # Not those of the enumeration, which are texts too, and name the ways to read of that name.
    hint = backend if type(backend) is str else ""
    if hint == "mmap":
        return {}
    return {"mapping": "never"} if hint == "pread" else {"backend": backend}


def device_for(framework: str | None, device: Any) -> Any:
    """Where torch moves tensors to, None for host memory.

    Raises
    ------
    UsageError
        If no device is called that, or the framework's tensors are not moved there.
    """
    place = parse_device(device)
    if place is not None and framework_of(framework) != "pt":
        raise SafetensorError(f"Device {device} is not supported for framework {framework}")
    return place


def collects(device: Any) -> bool:
    """Whether a load that delivers to `device` may hold all of its tensors there.

    What torch moves elsewhere need not be in host memory all at once.
    """
    if device is None:
        return True
    from inrush._devices import native_name  # few need it, and importing it takes time

    return native_name(device) is not None
