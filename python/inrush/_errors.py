"""What Inrush raises. The codes are the exit codes of the command line."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from typing_extensions import Self


class _Plain(Exception):
    """What errors are where safetensors is not imported; see `join_safetensors`."""


class Error(_Plain):
    """Base of all errors of Inrush; its text says what, where and why.

    Once safetensors is imported, its `SafetensorError` is the base of this class, so that code that
    catches that one goes on to.

    Attributes
    ----------
    code : int
        1 data, 2 usage, 3 source, 4 memory, 130 cancelled.
    """

    code = 1

    def __new__(cls, *arguments: Any) -> Self:
        join_safetensors()
        # OSError's instances are larger than those of the other bases.
        make: Any = OSError.__new__ if issubclass(cls, OSError) else Exception.__new__
        made: Self = make(cls, *arguments)
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


def join_safetensors() -> type[Error]:
    """Make errors those of safetensors too, if that is imported by now.

    Returns
    -------
    type
        `Error`: what code written for safetensors catches.
    """
    # Not by attribute: where Inrush stands in safetensors' place that would ask here again.
    theirs = getattr(sys.modules.get("safetensors"), "__dict__", {}).get("SafetensorError")
    if isinstance(theirs, type) and not issubclass(Error, theirs) and not issubclass(theirs, Error):
        Error.__bases__ = (theirs,)
    return Error


join_safetensors()

# For our own modules; `inrush.SafetensorError` joins anew.
SafetensorError = Error
