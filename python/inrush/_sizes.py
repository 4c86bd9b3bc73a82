"""Sizes as people write them."""

from __future__ import annotations

import operator
import re

from inrush._errors import UsageError

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_UNITS |= {"ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?\s*", re.IGNORECASE)


def parse_size(text: int | str, word: str = "budget") -> int:
    """Bytes of a size such as ``"512MiB"``, ``"2 GB"`` or ``4194304``.

    Raises
    ------
    UsageError
        If it is no size, or not above zero.
    """
    size = -1
    if isinstance(text, str):
        match = _SIZE.fullmatch(text)
        if match and match[2].lower() in _UNITS:
            size = int(float(match[1]) * _UNITS[match[2].lower()])
    elif hasattr(text, "__index__") and not isinstance(text, bool):
        size = operator.index(text)
    if not 0 < size < 1 << 63:
        raise UsageError(f"{word} {text!r}: expected bytes, or a size such as '512MiB'")
    return size
