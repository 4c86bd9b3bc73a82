"""Casting of tensors' bytes between floating-point types, by numpy."""

from __future__ import annotations

from inrush._dtypes import SAFETENSORS_NAMES
from inrush._errors import UsageError
from inrush._frameworks import numpy_dtype
from inrush._layouts import Item

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# What is cast, and what may be cast to.
_FLOATS = ("F64", "F32", "F16", "BF16", "F8_E5M2", "F8_E4M3", "F8_E4M3FNUZ", "F8_E5M2FNUZ")


class Cast:
    """Floating-point tensors to one type; the others stay as they are.

    Parameters
    ----------
    dtype : str
        safetensors' name, or torch's.

    Raises
    ------
    UsageError
        If it is no floating-point type, or numpy lacks it and ml_dtypes is not installed.
    """

    def __init__(self, dtype: str) -> None:
        name = SAFETENSORS_NAMES.get(dtype.removeprefix("torch."), dtype)
        if name not in _FLOATS:
            raise UsageError(f"dtype={dtype!r}: expected one of {', '.join(_FLOATS)}")
        self._name = name
        self._type = numpy_dtype(name)

    def changes(self, dtype: str) -> bool:
        """Whether tensors of this type are cast."""
        return dtype in _FLOATS and dtype != self._name

    def item(self, item: Item) -> Item:
        """The tensor as it will be written."""
        if item.encoding.startswith("torch.") or not self.changes(item.dtype):
            return item
        count = item.nbytes // numpy_dtype(item.dtype).itemsize
        size = count * self._type.itemsize
        cast = Item(item.name, self._name, item.shape, size, item.encoding)
        if item.kept is not None:
            cast.kept = item.kept
            cast.kept.dtype = ""
        return cast

    def data(self, data: memoryview, dtype: str) -> memoryview:
        """These bytes, which are of `dtype`, cast."""
        import numpy

        if not len(data):
            return data
        source: Any = numpy.frombuffer(data, dtype=numpy_dtype(dtype))
        with numpy.errstate(over="ignore", invalid="ignore"):  # infinity and NaN, as torch has them
            made = source.astype(self._type)
            raw: Any = made.view(numpy.uint8)
            if self._name == "F8_E4M3":
                _saturate(raw, source)
        return memoryview(raw)


def _saturate(raw: Any, source: Any) -> None:
    """Have the largest number, not NaN, where float8_e4m3fn has none for a number or infinity.

    So does torch 2.13, for this type alone: e5m2 has infinity, and the fnuz types become NaN.
    """
    import numpy

    (lost,) = numpy.nonzero((raw & 0x7F) == 0x7F)
    numbers = lost[~numpy.isnan(source[lost])]
    raw[numbers] -= 1  # the largest is the code before NaN's, of either sign
