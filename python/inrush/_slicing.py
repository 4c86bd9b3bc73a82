"""Indices as slices of each dimension: what can be read without reading the rest."""

from __future__ import annotations

import operator

from inrush._errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


class BasicIndex:
    """An index of slices and integers.

    Attributes
    ----------
    slices : tuple of slice
        One for each leading dimension; an integer is a slice of length 1.
    shape : list of int
        Of the result, in which integers have lost their dimension.
    """

    __slots__ = ("shape", "slices")

    def __init__(self, slices: tuple[slice, ...], shape: list[int]) -> None:
        self.slices = slices
        self.shape = shape


def basic_index(index: Any, shape: Sequence[int]) -> BasicIndex | None:
    """The index as slices, or None where it is of another kind (lists, masks, None).

    Raises
    ------
    IndexError
        If there are too many indices, or an integer is out of bounds.
    ValueError
        If a step is not above zero.
    """
    parts = list(index) if isinstance(index, tuple) else [index]
    if sum(part is Ellipsis for part in parts) > 1:
        raise IndexError("an index can only have a single ellipsis ('...')")
    if any(part is Ellipsis for part in parts):
        at = next(i for i, part in enumerate(parts) if part is Ellipsis)
        parts[at : at + 1] = [slice(None)] * (len(shape) - len(parts) + 1)
    if len(parts) > len(shape):
        raise IndexError(f"too many indices for tensor of dimension {len(shape)}")
    slices: list[slice] = []
    result: list[int] = []
    for dimension, (part, length) in enumerate(zip(parts, shape, strict=False)):
        if isinstance(part, slice):
            start, stop, step = _bounds(part, length)
            slices.append(slice(start, stop, step))
            result.append(len(range(start, stop, step)))
            continue
        try:
            position = operator.index(part)
        except TypeError:
            return None
        if isinstance(part, bool):
            return None
        if not -length <= position < length:
            raise IndexError(
                f"index {position} is out of bounds for dimension {dimension} with size {length}"
            )
        position %= length
        slices.append(slice(position, position + 1, 1))
    return BasicIndex(tuple(slices), [*result, *shape[len(parts) :]])


def _bounds(part: slice, length: int) -> tuple[int, int, int]:
    start, stop, step = part.indices(length)
    if step < 1:
        raise ValueError("step must be greater than zero")
    return start, max(start, stop), step


def parse_slice(text: str) -> tuple[Any, ...]:
    """An index from its text, as written between brackets: ``"0:512, :, -1"``.

    Raises
    ------
    UsageError
        If it is none.
    """
    parts: list[Any] = []
    for part in text.strip().removeprefix("[").removesuffix("]").split(","):
        part = part.strip()
        try:
            if part == "...":
                parts.append(Ellipsis)
            elif ":" in part:
                bounds = [int(bound) if bound.strip() else None for bound in part.split(":")]
                parts.append(slice(*bounds))
            else:
                parts.append(int(part))
        except (ValueError, TypeError):
            raise UsageError(f"slice {text!r}: expected START:STOP[:STEP], ...") from None
    return tuple(parts)
