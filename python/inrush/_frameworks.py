"""Tensors of Inrush as arrays of the frameworks, sharing memory. Imports them when asked."""

from __future__ import annotations

import sys

from inrush._dtypes import FRAMEWORK_NAMES, PACKED
from inrush._errors import MissingFrameworkError, UsageError, WrongTypeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from inrush._core import Tensor

    Converter = Callable[[Tensor], Any]

_FRAMEWORKS = {
    "np": "np",
    "numpy": "np",
    "pt": "pt",
    "torch": "pt",
    "pytorch": "pt",
    "jax": "jax",
    "flax": "jax",
    "tf": "tf",
    "tensorflow": "tf",
    "mlx": "mlx",
    "paddle": "paddle",
}

# What frameworks take from DLPack as it is. In torch the others go through bytes and a view.
_DLPACK_TYPES = frozenset(
    (
        "BOOL",
        "U8",
        "I8",
        "I16",
        "U16",
        "F16",
        "BF16",
        "I32",
        "U32",
        "F32",
        "C64",
        "F64",
        "I64",
        "U64",
    )
)


_TENSORFLOW_ALIGNMENT = 64


def framework_of(name: str | None) -> str | None:
    """The framework's short name, such as 'np' or 'pt'; None stays None.

    Raises
    ------
    UsageError
        If there is no such framework.
    """
    if name is None:
        return None
    try:
        return _FRAMEWORKS[name]
    except (KeyError, TypeError):
        kind = UsageError if isinstance(name, str) else WrongTypeError
        raise kind(
            f"framework {name} is invalid: expected None or one of {', '.join(_FRAMEWORKS)}; "
            "others take the tensors of framework=None through DLPack"
        ) from None


def converter(framework: str | None, device: Any = None) -> Converter | None:
    """What turns a Tensor into the framework's array, or None where nothing has to be done.

    Parameters
    ----------
    framework : str, optional
    device : optional
        Where torch moves each tensor to; None leaves it in host memory.

    Raises
    ------
    UsageError
        If there is no such framework; a ModuleNotFoundError too if it is not installed.
    """
    short = framework_of(framework)
    if short is None:
        return None
    try:
        convert = _CONVERTERS[short]()
    except ImportError as error:
        raise MissingFrameworkError(f"framework {framework}: {error}") from error
    if device is None:
        return convert
    return lambda tensor: convert(tensor).to(device)


def _not_understood(dtype: str, framework: str) -> UsageError:
    return UsageError(
        f"Dtype not understood: {dtype} has no type in {framework}; framework=None gives its bytes"
    )


def _numpy_dtypes() -> dict[str, Any]:
    import numpy

    dtypes: dict[str, Any] = {}
    for name, word in FRAMEWORK_NAMES.items():
        if name not in PACKED and hasattr(numpy, word):
            dtypes[name] = numpy.dtype(word)
    return dtypes


def numpy_dtype(dtype: str) -> Any:
    """numpy's dtype of safetensors' name.

    Raises
    ------
    UsageError
        If numpy has none, and ml_dtypes neither.
    """
    return _numpy_dtypes().get(dtype) or _ml_dtype(dtype)


def _ml_dtype(dtype: str) -> Any:
    # bfloat16 and float8 live in a package of their own, which numpy users may have.
    if dtype not in FRAMEWORK_NAMES or dtype in PACKED:
        raise _not_understood(dtype, "numpy")
    try:
        import ml_dtypes  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        raise UsageError(
            f"Dtype not understood: numpy has {dtype} only with the package ml_dtypes installed"
        ) from None
    import numpy

    return numpy.dtype(getattr(ml_dtypes, FRAMEWORK_NAMES[dtype]))


def _to_numpy() -> Converter:
    import numpy

    ndarray = numpy.ndarray
    dtypes = _numpy_dtypes()

    def convert(tensor: Tensor) -> Any:
        dtype = tensor.dtype
        numpy_dtype = dtypes.get(dtype)
        if numpy_dtype is None:
            numpy_dtype = dtypes[dtype] = _ml_dtype(dtype)
        return ndarray(tensor.shape, numpy_dtype, tensor)  # type: ignore[arg-type]

    return convert


def _to_torch() -> Converter:
    import torch
    from torch.utils.dlpack import from_dlpack

    # Without the checks of the public function, which looks at the type of its argument first.
    take = getattr(torch._C, "_from_dlpack", from_dlpack)
    direct = _DLPACK_TYPES

    def convert(tensor: Tensor) -> Any:
        dtype = tensor.dtype
        if dtype in direct:
            return take(tensor.__dlpack__())
        torch_dtype = getattr(torch, FRAMEWORK_NAMES.get(dtype, ""), None)
        if torch_dtype is None:
            raise _not_understood(dtype, "torch")
        return take(tensor.as_bytes().__dlpack__()).view(torch_dtype)

    return convert


def _to_jax() -> Converter:
    # Through numpy, which has the dtypes that DLPack lacks; jax brings ml_dtypes with it.
    import jax.numpy

    array = _to_numpy()
    take = jax.numpy.asarray
    return lambda tensor: take(array(tensor))


def _to_tensorflow() -> Converter:
    import tensorflow

    from_dlpack = tensorflow.experimental.dlpack.from_dlpack

    def take(tensor: Tensor) -> Any:
        # TensorFlow takes any address, and ends the process in the first kernel that needs better.
        aligned = tensor.data_ptr % _TENSORFLOW_ALIGNMENT == 0
        return from_dlpack((tensor if aligned else tensor.copy()).__dlpack__())

    return _through_dlpack(take, "tensorflow")


def _to_mlx() -> Converter:
    import mlx.core

    return _through_dlpack(mlx.core.array, "mlx")


def _to_paddle() -> Converter:
    import paddle

    # Paddle takes unsigned integers of 16 bits for bfloat16.
    return _through_dlpack(paddle.utils.dlpack.from_dlpack, "paddle", without=("U16",))


def _through_dlpack(
    take: Callable[[Tensor], Any], framework: str, without: tuple[str, ...] = ()
) -> Converter:
    known = _DLPACK_TYPES.difference(without)

    def convert(tensor: Tensor) -> Any:
        if tensor.dtype not in known:
            raise _not_understood(tensor.dtype, framework)
        return take(tensor)

    return convert


_CONVERTERS: dict[str, Callable[[], Converter]] = {
    "np": _to_numpy,
    "pt": _to_torch,
    "jax": _to_jax,
    "tf": _to_tensorflow,
    "mlx": _to_mlx,
    "paddle": _to_paddle,
}


def described(dtype: str, shape: tuple[int, ...], framework: str | None) -> tuple[Any, Any]:
    """Dtype and shape of a tensor as its framework will have them.

    Raises
    ------
    UsageError
        If the framework has no such dtype.
    """
    word = FRAMEWORK_NAMES.get(dtype, "")
    if framework == "pt":
        import torch

        torch_dtype = getattr(torch, word, None)
        if torch_dtype is None:
            raise _not_understood(dtype, "torch")
        packed = PACKED.get(dtype)
        if packed and shape:
            shape = (*shape[:-1], shape[-1] // packed)
        return torch_dtype, torch.Size(shape)
    if framework == "np":
        return _numpy_dtypes().get(dtype) or _ml_dtype(dtype), shape
    return dtype, shape


def is_torch(value: object) -> bool:
    """Whether `value` is a torch tensor; imports nothing."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def device_index(array: object) -> int | None:
    """The index of the GPU that a torch tensor lies on; None for every other array."""
    device = getattr(array, "device", None)
    if getattr(device, "type", None) == "cuda":
        index: int = device.index  # type: ignore[union-attr]
        return index
    return None
