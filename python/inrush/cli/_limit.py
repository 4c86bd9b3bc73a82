"""The rate that a place allows, measured on the checkpoint's own files."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from inrush import _core


def measure_limit(checkpoint: _core.Checkpoint) -> dict[str, Any] | None:
    """Bytes per second and how they were reached; None where nothing could be measured."""
    return None
