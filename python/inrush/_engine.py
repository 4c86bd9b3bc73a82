"""Imports the engine, for every other module, with Python's handlers of signals held back.

Its set-up calls into Python, and ends the process where an exception comes of that: so would a
Ctrl-C, and every other handler that raises.
"""

from __future__ import annotations

import contextlib
import importlib
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any


def _import_engine() -> None:
    called: dict[int, Any] = {number: signal.getsignal(number) for number in signal.valid_signals()}
    held = {number: function for number, function in called.items() if callable(function)}
    came: list[tuple[int, FrameType | None]] = []
    # Only the main thread handles signals, and no other may ask for it.
    with contextlib.suppress(ValueError):
        for number in held:
            signal.signal(number, lambda *what: came.append(what))
    try:
        importlib.import_module("inrush._core")
    finally:
        with contextlib.suppress(ValueError):
            for number, function in held.items():
                signal.signal(number, function)
    for number, frame in came:
        held[number](number, frame)


_import_engine()
