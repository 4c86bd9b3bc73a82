"""Small things that users of tensorizer import from it: memory reports, modules without memory."""

from __future__ import annotations

import os
import resource
from typing import TYPE_CHECKING, NamedTuple, Optional

import torch
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Device = torch.device | str | int | None

__all__ = [
    "CPUMemoryUsage",
    "GlobalGPUMemoryUsage",
    "MemoryUsage",
    "TorchGPUMemoryUsage",
    "convert_bytes",
    "get_device",
    "get_gpu_name",
    "get_mem_usage",
    "no_init_or_tensor",
]

_DECIMAL = ("bytes", "KB", "MB", "GB", "TB", "PB")
_BINARY = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")


def convert_bytes(num: float, decimal: bool = True) -> str:
    """Bytes in words: ``'123.5 MB'``, or ``'117.7 MiB'`` where `decimal` is false."""
    base = 1000 if decimal else 1024
    units = _DECIMAL if decimal else _BINARY
    size = float(num)
    for unit in units[:-1]:
        if size < base:
            return f"{size:.1f} {unit}"
        size /= base
    return f"{size:.1f} {units[-1]}"


def get_device() -> torch.device:
    """The torch device that tensors go to by default: cuda where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def get_gpu_name() -> str:
    """The current GPU's name, or ``'N/A'``."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "N/A"


def _mib(size: int) -> str:
    return f"{size >> 20:,}MiB"


class GlobalGPUMemoryUsage(NamedTuple):
    """Memory of one GPU, whoever uses it.

    Attributes
    ----------
    total, free, used : int
        Bytes.
    """

    total: int
    free: int
    used: int

    @classmethod
    def now(cls, device: Device = None) -> GlobalGPUMemoryUsage | None:
        """As it is now on `device`, by default the current one; None without a GPU."""
        if not torch.cuda.is_available():
            return None
        free, total = torch.cuda.mem_get_info(device)
        return cls(total, free, total - free)

    def __str__(self) -> str:
        return f"GPU: (U: {_mib(self.used)} F: {_mib(self.free)} T: {_mib(self.total)})"


class TorchGPUMemoryUsage(NamedTuple):
    """Memory of one GPU that torch holds in this process.

    Attributes
    ----------
    reserved, reserved_max, used, used_max : int
        Bytes, now and at most so far.
    """

    reserved: int
    reserved_max: int
    used: int
    used_max: int

    @classmethod
    def now(cls, device: Device = None) -> TorchGPUMemoryUsage | None:
        """As it is now on `device`, by default the current one; None without a GPU."""
        if not torch.cuda.is_available():
            return None
        kept = torch.cuda.memory_stats(device)
        words = ("reserved_bytes", "allocated_bytes")
        return cls(*(kept.get(f"{w}.all.{at}", 0) for w in words for at in ("current", "peak")))

    def __str__(self) -> str:
        return (
            f"TORCH: (R: {_mib(self.reserved)}/{_mib(self.reserved_max)}, "
            f"A: {_mib(self.used)}/{_mib(self.used_max)})"
        )


class CPUMemoryUsage(NamedTuple):
    """Memory of this machine.

    Attributes
    ----------
    maxrss : int
        Bytes that this process and those it has waited for had resident at most.
    free : int
        Bytes that could be had without swapping.
    """

    maxrss: int
    free: int

    @classmethod
    def now(cls) -> CPUMemoryUsage:
        """As it is now."""
        whose = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        return cls(sum(resource.getrusage(who).ru_maxrss for who in whose) << 10, _available())

    def __str__(self) -> str:
        return f"CPU: (maxrss: {_mib(self.maxrss)} F: {_mib(self.free)})"


def _available() -> int:
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) << 10
    except OSError:
        pass
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGESIZE")


class MemoryUsage(NamedTuple):
    """The three reports at once; those of a GPU are None without one."""

    cpu: CPUMemoryUsage
    gpu: Optional[GlobalGPUMemoryUsage]  # noqa: UP045
    torch: Optional[TorchGPUMemoryUsage]  # noqa: UP045

    @classmethod
    def now(cls, device: Device = None) -> MemoryUsage:
        """As it is now; `device` is the GPU's, by default the current one."""
        return cls(
            CPUMemoryUsage.now(),
            GlobalGPUMemoryUsage.now(device),
            TorchGPUMemoryUsage.now(device),
        )

    def __str__(self) -> str:
        return " ".join(str(part) for part in self if part is not None)


def get_mem_usage() -> str:
    """``str(MemoryUsage.now())``."""
    return str(MemoryUsage.now())


class _EmptyIsMeta(TorchFunctionMode):
    """`torch.empty` makes meta tensors, and what initialises them costs nothing. This thread's."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        words = dict(kwargs or {})
        if func is torch.empty:
            words["device"] = "meta"
        return func(*args, **words)


def no_init_or_tensor(loading_code: Callable[[], Any] | None = None) -> Any:
    """Make modules whose parameters have no memory yet: they are loaded later.

    Only what `torch.empty` makes has none, which is what torch's layers begin with; tensors that
    are computed, such as a table of frequencies, are as ever. Other threads notice nothing.

    Parameters
    ----------
    loading_code : callable, optional
        Makes the module; what it returns is returned. Without it, a context manager in which
        modules are made so.

    Raises
    ------
    TypeError
        If it is neither.
    """
    if loading_code is None:
        return _EmptyIsMeta()
    if not callable(loading_code):
        raise TypeError(
            f"no_init_or_tensor: a {type(loading_code).__name__} is neither a callable nor None"
        )
    with _EmptyIsMeta():
        return loading_code()
