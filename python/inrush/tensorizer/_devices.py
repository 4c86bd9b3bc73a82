"""Where tensors go, and their bytes on the CPU."""

from __future__ import annotations

import torch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def bytes_of(tensor: torch.Tensor) -> memoryview:
    """A tensor's bytes, contiguous and on the CPU; a view where it is both already."""
    whole = tensor.detach()
    if whole.element_size() == 1:  # of such types torch copies some by no other name
        whole = whole.view(torch.uint8)
    flat = whole.cpu().contiguous()
    # A single element is contiguous whatever its stride is; views want a stride of 1.
    flat = flat.as_strided((flat.numel(),), (1,))
    array: Any = flat.view(torch.uint8).numpy()
    return memoryview(array)


def tensor_of(array: Any) -> torch.Tensor:
    """A numpy array or scalar as a tensor, a view where it is contiguous.

    Raises
    ------
    TypeError
        If it is neither, or torch lacks its dtype.
    """
    import numpy

    if isinstance(array, (numpy.ndarray, numpy.generic)):
        whole = numpy.asarray(array, order="C")
        # There and back, as a single element is contiguous with a negative stride, too.
        array = whole.reshape(-1).reshape(whole.shape)
    return torch.from_numpy(array)


def raw_array(tensor: torch.Tensor, code: str) -> Any:
    """A tensor's bytes as a numpy array of this dtype."""
    import numpy

    data = numpy.frombuffer(bytes_of(tensor), dtype=numpy.dtype(code))
    return data.reshape(tuple(tensor.shape))


def chosen_device(device: torch.device | str | int | None) -> torch.device:
    """What `device` means.

    Raises
    ------
    RuntimeError
        If there is no such device.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    chosen = torch.device(device)
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise RuntimeError("Cannot deserialize to CUDA device: CUDA is not available")
    return chosen


def current_cuda_device() -> torch.device:
    """The device of an enclosing ``with torch.device('cuda:1')``, else torch's current one."""
    around = torch.get_default_device()
    if around.type == "cuda" and around.index is not None:
        return around
    return torch.device("cuda", torch.cuda.current_device())


def settled_device(device: torch.device) -> torch.device:
    """The same with its number, as of now."""
    return current_cuda_device() if device.type == "cuda" and device.index is None else device
