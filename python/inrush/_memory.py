"""The caller's arrays as memory: what `out=` fills and what saving reads."""

from __future__ import annotations

from inrush import _frameworks
from inrush._dtypes import FRAMEWORK_NAMES, PACKED, SAFETENSORS_NAMES
from inrush._errors import UsageError
from inrush._frameworks import is_torch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Memory:
    """Where an array's bytes lie, and what keeps them there.

    Attributes
    ----------
    address : int
    nbytes : int
    dtype : str
        As safetensors names it; '' where the array does not say (plain bytes).
    shape : tuple of int
        In elements of `dtype`.
    writable, contiguous : bool
    owner : object
    device : int
        Index of the GPU; -1 for host memory.
    """

    __slots__ = ("address", "contiguous", "device", "dtype", "nbytes", "owner", "shape", "writable")
    shape: tuple[int, ...]

    def __init__(self, array: Any) -> None:
        self.owner = array
        self.device = -1
        if is_torch(array):
            self._of_torch(array)
        elif hasattr(array, "__array_interface__"):
            self._of_numpy(array)
        else:
            self._of_buffer(array)
        if self.dtype in PACKED and self.shape:
            self.shape = (*self.shape[:-1], self.shape[-1] * PACKED[self.dtype])

    def _of_torch(self, tensor: Any) -> None:
        index = _frameworks.device_index(tensor)
        if index is not None:
            self.device = index
        elif tensor.device.type != "cpu":
            raise UsageError(f"the tensor is on {tensor.device}, not in host memory")
        self.address = tensor.data_ptr()
        self.nbytes = tensor.nbytes
        self.dtype = SAFETENSORS_NAMES.get(str(tensor.dtype).rpartition(".")[2], "?")
        self.shape = tuple(tensor.shape)
        self.writable = True
        self.contiguous = tensor.is_contiguous()

    def _of_numpy(self, array: Any) -> None:
        self.address, read_only = array.__array_interface__["data"]
        self.nbytes = array.nbytes
        self.dtype = SAFETENSORS_NAMES.get(array.dtype.name, "?")
        if array.dtype.byteorder == ">":
            self.dtype = "?"
        self.shape = tuple(array.shape)
        self.writable = not read_only
        self.contiguous = array.flags.c_contiguous

    def _of_buffer(self, buffer: Any) -> None:
        from inrush._core import Tensor, buffer_address

        try:
            view = memoryview(buffer)
        except BufferError as error:
            raise UsageError(str(error)) from None
        except TypeError:
            raise UsageError(
                f"a {type(buffer).__name__} has no host memory to use: expected a tensor, an "
                "ndarray or a buffer"
            ) from None
        self.owner = view
        self.nbytes = view.nbytes
        self.writable = not view.readonly
        self.contiguous = view.c_contiguous
        self.address = buffer_address(view) if view.c_contiguous else 0
        self.dtype = buffer.dtype if isinstance(buffer, Tensor) else ""
        self.shape = buffer.shape if isinstance(buffer, Tensor) else (self.nbytes,)


def destination(name: str, array: Any, dtype: str, nbytes: int, shape: tuple[int, ...]) -> Memory:
    """The memory of `out[name]`, checked against what will be placed there.

    Raises
    ------
    UsageError
        If it is read-only, strided, of another dtype, size or shape; flat memory is of any, and
        dimensions of one element count for nothing.
    """
    try:
        memory = Memory(array.detach() if is_torch(array) else array)
    except UsageError as error:
        raise UsageError(f"out[{name!r}]: {error}") from None
    wanted = FRAMEWORK_NAMES.get(dtype, dtype)
    problem = ""
    if not memory.contiguous:
        problem = "is not contiguous"
    elif not memory.writable:
        problem = "is read-only"
    elif memory.dtype not in ("", dtype):
        problem = f"has dtype {getattr(array, 'dtype', memory.dtype)}, the tensor {wanted}"
    elif memory.nbytes != nbytes:
        problem = f"holds {memory.nbytes} bytes, the tensor {nbytes}"
    elif memory.dtype and not _is_alike(memory.shape, shape):
        problem = f"has shape {tuple(array.shape)}, the tensor {shape}"
    elif is_torch(array) and (array.is_conj() or array.is_neg()):
        problem = "is a conjugate or a negative of what its memory holds"
    if problem:
        raise UsageError(f"out[{name!r}] {problem}")
    return memory


def _is_alike(given: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    if len(given) <= 1:
        return True
    return [n for n in given if n != 1] == [n for n in wanted if n != 1]
