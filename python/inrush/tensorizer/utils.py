"""Small things that users of tensorizer import from it."""

from __future__ import annotations

import contextlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

_DECIMAL = ("B", "KB", "MB", "GB", "TB")
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB")


def convert_bytes(num: float, decimal: bool = True) -> str:
    """Bytes in words: ``'123.5 MB'``, or ``'117.7 MiB'`` where `decimal` is false."""
    base = 1000 if decimal else 1024
    units = _DECIMAL if decimal else _BINARY
    size = float(num)
    for unit in units[:-1]:
        if abs(size) < base:
            return f"{size:.1f} {unit}"
        size /= base
    return f"{size:.1f} {units[-1]}"


def get_device() -> Any:
    """The torch device that tensors go to by default: cuda where there is one, else the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@contextlib.contextmanager
def _without_initialisation() -> Iterator[None]:
    import torch

    kinds = (torch.nn.Linear, torch.nn.Embedding, torch.nn.LayerNorm)
    kept = [(kind, kind.reset_parameters) for kind in kinds]
    try:
        for kind, _ in kept:
            kind.reset_parameters = lambda *_args, **_options: None  # type: ignore[method-assign]
        with torch.device("meta"):
            yield
    finally:
        for kind, method in kept:
            kind.reset_parameters = method  # type: ignore[method-assign]


def no_init_or_tensor(loading_code: Callable[[], Any] | None = None) -> Any:
    """Make modules without memory for their tensors, which are loaded later.

    Parameters
    ----------
    loading_code : callable, optional
        Makes the module; what it returns is returned. Without it, a context manager in which
        modules are made so.
    """
    if loading_code is None:
        return _without_initialisation()
    with _without_initialisation():
        return loading_code()
