"""safetensors' lowest functions: files from addresses, and bytes from files."""

from __future__ import annotations

import operator
import os

from inrush import _core
from inrush._arguments import WHOLE
from inrush._dtypes import PACKED, SAFETENSORS_NAMES
from inrush._errors import SafetensorError
from inrush._job import Job
from inrush._options import Options
from inrush._saving import checked_metadata, opened_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any


class TensorSpec:
    """A tensor for `serialize` and `serialize_file`: where its bytes lie and what they are.

    Parameters
    ----------
    dtype : str
        As torch and numpy call it: ``'float32'``, ``'bfloat16'``, ``'float4_e2m1fn_x2'``.
    shape : sequence of int
        As the framework has it; of packed dtypes, the last extent counts bytes there.
    data_ptr : int
        Address of a contiguous buffer, which the caller keeps while it is serialised.
    data_len : int
        Its size in bytes.

    Raises
    ------
    SafetensorError
        If there is no such dtype.
    """

    __slots__ = ("_address", "_dtype", "_nbytes", "_shape")

    def __init__(self, *, dtype: str, shape: Sequence[int], data_ptr: int, data_len: int) -> None:
        name = SAFETENSORS_NAMES.get(dtype)
        if name is None:
            known = ", ".join(SAFETENSORS_NAMES)
            raise SafetensorError(f"Unknown dtype {dtype!r}. Supported dtypes: {known}")
        extents = [operator.index(extent) for extent in shape]
        if name in PACKED and extents:
            extents[-1] *= PACKED[name]
        self._dtype = name
        self._shape = extents
        self._address = operator.index(data_ptr)
        self._nbytes = operator.index(data_len)
        if min([self._address, self._nbytes, *extents]) < 0:
            raise OverflowError("a TensorSpec has no negative numbers")

    @property
    def dtype(self) -> str:
        """Element type as safetensors names it, such as ``'F32'``."""
        return self._dtype

    @property
    def shape(self) -> list[int]:
        """Extents in elements, as the header has them."""
        return list(self._shape)

    @property
    def data_ptr(self) -> int:
        """Address of the first byte."""
        return self._address

    @property
    def data_len(self) -> int:
        """Size in bytes."""
        return self._nbytes

    def __repr__(self) -> str:
        return (
            f"TensorSpec(dtype={self._dtype!r}, shape={self._shape}, data_ptr={self._address}, "
            f"data_len={self._nbytes})"
        )


def serialize(
    tensor_dict: Mapping[str, TensorSpec], metadata: Mapping[str, str] | None = None
) -> bytes:
    """The bytes of a file with these tensors.

    Raises
    ------
    TypeError
        If a value is no `TensorSpec`, or metadata is not of strings.
    SafetensorError
        If dtype, shape and size of a tensor contradict each other.
    """
    return _core.save_bytes(_tensors(tensor_dict), checked_metadata(metadata))


def serialize_file(
    tensor_dict: Mapping[str, TensorSpec],
    filename: str | os.PathLike[str],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a file with these tensors, whole or not at all. Other threads run meanwhile.

    Raises
    ------
    TypeError
        If a value is no `TensorSpec`, or metadata is not of strings.
    SafetensorError
        If dtype, shape and size of a tensor contradict each other, or the file cannot be written.
    """
    options = _core.SaveOptions()
    options.metadata = checked_metadata(metadata)
    _core.save_file(os.fsencode(filename), _tensors(tensor_dict), options)


def deserialize(bytes: bytes) -> list[tuple[str, dict[str, Any]]]:
    """The tensors of a file that is in memory, by offset.

    Returns
    -------
    list of (str, dict)
        Each tensor's name with its ``shape`` (list of int), ``dtype`` (safetensors' name) and
        ``data`` (bytearray, a copy).

    Raises
    ------
    SafetensorError
        If the bytes are no such file.
    """
    with opened_bytes(bytes) as checkpoint, Job(checkpoint, Options(WHOLE), collect=True) as job:
        return [(name, _described(tensor)) for name, tensor in job]


def _described(tensor: _core.Tensor) -> dict[str, Any]:
    data = bytearray(memoryview(tensor.as_bytes()))  # type: ignore[arg-type]
    return {"shape": list(tensor.shape), "dtype": tensor.dtype, "data": data}


def _tensors(specs: Mapping[str, TensorSpec]) -> list[_core.SaveTensor]:
    tensors = []
    for name, spec in specs.items():
        if not isinstance(spec, TensorSpec):
            raise TypeError(f"{name!r}: expected a TensorSpec, got a {type(spec).__name__}")
        tensors.append(
            _core.SaveTensor.make(name, spec.dtype, spec.shape, spec.data_ptr, spec.data_len)
        )
    return tensors
