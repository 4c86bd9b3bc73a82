"""Indices as slices of each dimension: what can be read without reading the rest; strides."""

from __future__ import annotations

import operator

from inrush._errors import SafetensorError, UsageError

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


def checked_index(index: Any, shape: Sequence[int]) -> tuple[slice | int, ...]:
    """The index as safetensors takes it for numpy and its like: nothing outside the tensor.

    Raises
    ------
    SafetensorError
        If it is not made of integers, slices and one ellipsis, or reaches beyond the tensor.
    """
    if isinstance(index, list):
        if index:
            raise SafetensorError("Non empty lists are not implemented")
        return (slice(0, 0),)
    parts = list(index) if isinstance(index, tuple) else [index]
    if (ellipses := sum(part is Ellipsis for part in parts)) > 1:
        raise SafetensorError("Only one ellipsis (...) is allowed in slice index")
    if ellipses:
        at = next(i for i, part in enumerate(parts) if part is Ellipsis)
        parts[at : at + 1] = [slice(None)] * max(0, len(shape) - len(parts) + 1)
    checked = [
        _checked_part(part, dimension, shape[dimension] if dimension < len(shape) else 0)
        for dimension, part in enumerate(parts)
    ]
    place = f"Error during slicing [{', '.join(_part_text(part) for part in checked)}]"
    place += f" with shape {list(shape)}"
    if len(checked) > len(shape):
        raise SafetensorError(f"{place}: more slicing indexes than dimensions in tensor")
    for dimension, (part, length) in enumerate(zip(checked, shape, strict=False)):
        last = part if isinstance(part, int) else max(part.start or 0, (part.stop or 0) - 1)
        if last > length or (last == length and (isinstance(part, int) or part.stop)):
            raise SafetensorError(
                f"{place}: index {last} out of bounds for tensor dimension #{dimension} of size "
                f"{length}"
            )
    return tuple(checked)


def _checked_part(part: Any, dimension: int, length: int) -> slice | int:
    if isinstance(part, slice):
        step = 1 if part.step is None else operator.index(part.step)
        if step < 1:
            raise SafetensorError(f"Slice step must be a positive integer, got {step}")
        bounds = [
            None if bound is None else _from_end(operator.index(bound), length)
            for bound in (part.start, part.stop)
        ]
        return slice(bounds[0], bounds[1], part.step)
    try:
        position = operator.index(part)
    except TypeError:
        raise SafetensorError(
            f"Unsupported slice index at position {dimension}: expected slice, int, or ellipsis"
        ) from None
    if position < -length:
        raise SafetensorError(
            f"Invalid index {position} for dimension {dimension} of size {length}"
        )
    return position + length if position < 0 else position


def _from_end(bound: int, length: int) -> int:
    return max(0, bound + length) if bound < 0 else bound


def _part_text(part: slice | int) -> str:
    if isinstance(part, int):
        return str(part)
    text = ":".join("" if bound is None else str(bound) for bound in (part.start, part.stop))
    return text if part.step in (None, 1) else f"{text}:{part.step}"


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


def strides_of(shape: Sequence[int]) -> list[int]:
    """Elements from one index to the next of each dimension, where tensors lie without gaps."""
    strides = [1] * len(shape)
    for i in range(len(shape) - 1, 0, -1):
        strides[i - 1] = strides[i] * max(shape[i], 1)
    return strides
