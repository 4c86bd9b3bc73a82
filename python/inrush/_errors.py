"""What Inrush raises. The codes are the exit codes of the command line."""

from __future__ import annotations


class Error(Exception):
    """Base of all errors of Inrush; its text says what, where and why.

    Attributes
    ----------
    code : int
        1 data, 2 usage, 3 source, 4 memory, 130 cancelled.
    """

    code = 1


class DataError(Error, ValueError):
    """The bytes are wrong: malformed, truncated, changed while they were read, digest mismatch."""

    code = 1


class UsageError(Error, ValueError):
    """What was asked for cannot be."""

    code = 2


class SourceError(Error, OSError):
    """The source is unreachable or refuses."""

    code = 3


class MemoryBudgetError(Error, MemoryError):
    """Over the budget, or out of memory."""

    code = 4


class Cancelled(Error):
    """The caller stopped the load. Ctrl-C raises KeyboardInterrupt, not this."""

    code = 130
