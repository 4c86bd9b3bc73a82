"""What Inrush raises. The codes are the exit codes of the command line."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from typing_extensions import Self


class Error(Exception):
    """Base of all errors of Inrush; its text says what, where and why.

    Where safetensors is imported already, an error is one of its `SafetensorError` too, so that
    code that catches that one goes on to.

    Attributes
    ----------
    code : int
        1 data, 2 usage, 3 source, 4 memory, 130 cancelled.
    """

    code = 1

    def __new__(cls, *arguments: Any) -> Self:
        # OSError's instances are larger than those of the other bases.
        make: Any = OSError.__new__ if issubclass(cls, OSError) else Exception.__new__
        made: Self = make(_joined(cls), *arguments)
        return made


class DataError(Error, ValueError):
    """The bytes are wrong: malformed, truncated, changed while they were read, digest mismatch."""

    code = 1


class UsageError(Error, ValueError):
    """What was asked for cannot be."""

    code = 2


class MissingFrameworkError(UsageError, ModuleNotFoundError):
    """A framework is asked for that is not installed."""


class WrongTypeError(UsageError, TypeError):
    """An argument is of a type that nothing can be made of."""


class MissingDtypeError(UsageError, KeyError):
    """An array has a dtype that the format has no name for."""

    __str__ = Exception.__str__  # a KeyError's is the repr of its text


class SourceError(Error, OSError):
    """The source is unreachable or refuses."""

    code = 3


class MemoryBudgetError(Error, MemoryError):
    """Over the budget, or out of memory."""

    code = 4


class Cancelled(Error):
    """The caller stopped the load. Ctrl-C raises KeyboardInterrupt, not this."""

    code = 130


# What code written for safetensors catches.
SafetensorError = Error

_JOINS: dict[tuple[type, type], type] = {}


def _joined(cls: Any) -> Any:
    # The class, as a subclass of safetensors' error where that is imported.
    theirs = getattr(sys.modules.get("safetensors"), "SafetensorError", None)
    if not isinstance(theirs, type) or issubclass(cls, theirs):
        return cls
    joined = _JOINS.get((cls, theirs))
    if joined is None:
        names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
        # Another process may not have imported safetensors: what is pickled is the class itself.
        names |= {"__doc__": cls.__doc__, "__reduce__": lambda error: (cls, error.args)}
        joined = _JOINS[cls, theirs] = type(cls.__name__, (cls, theirs), names)
    return joined
