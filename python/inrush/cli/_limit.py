"""The rate that a place allows, measured by raw loops on the checkpoint's own files."""

from __future__ import annotations

from inrush import _core
from inrush._errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Seconds of one measurement.
_SECONDS = 2.0


def measure_limit(checkpoint: _core.Checkpoint, state: str = "cold") -> dict[str, Any]:
    """What moving the files' bytes reaches, as JSON.

    Parameters
    ----------
    checkpoint
    state : {'cold', 'warm'}
        Around the page cache, or out of it into fresh memory.

    Returns
    -------
    dict
        ``state``, ``bytes_per_second`` (0: not measured), ``bytes``, ``seconds``, and
        ``method``: how, or why not.
    """
    kind = _core.LimitKind.cold if state == "cold" else _core.LimitKind.warm
    try:
        result = _core.measure_limit(checkpoint, kind, _SECONDS)
    except Error as error:
        return _values(state, 0.0, 0, 0.0, method=str(error))
    return _values(
        state, result.bytes_per_second, result.bytes, result.seconds, method=result.method
    )


def _values(state: str, rate: float, size: int, seconds: float, *, method: str) -> dict[str, Any]:
    return {
        "state": state,
        "bytes_per_second": rate,
        "bytes": size,
        "seconds": seconds,
        "method": method,
    }
