"""safetensors.torch's functions, through Inrush: names, arguments and errors are the same."""

from __future__ import annotations

import torch

from inrush import _saving
from inrush._memory import Memory
from inrush._sharding import save_sharded

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from typing import Any

__all__ = ["load", "load_file", "save", "save_file", "save_sharded"]


def load_file(
    filename: str | os.PathLike[str],
    device: str | int | torch.device = "cpu",
    **options: Any,
) -> dict[str, torch.Tensor]:
    """Load a file (a directory, a URI) into torch tensors.

    Parameters
    ----------
    filename : str or os.PathLike
    device : str
        ``'cpu'``.
    **options
        As for `inrush.open`.

    Returns
    -------
    dict of str to torch.Tensor

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    inrush.Error
        If it is malformed or cannot be read.
    """
    result: dict[str, torch.Tensor] = _saving.load_file(filename, "pt", device, dict(options))
    return result


def load(data: bytes) -> dict[str, torch.Tensor]:
    """Load a file's bytes into torch tensors."""
    result: dict[str, torch.Tensor] = _saving.load_bytes(data, "pt")
    return result


def save_file(
    tensors: dict[str, torch.Tensor],
    filename: str | os.PathLike[str],
    metadata: dict[str, str] | None = None,
    *,
    fsync: bool = True,
) -> None:
    """Save tensors into a file, byte-identical to what safetensors writes, atomically.

    Parameters
    ----------
    tensors : dict of str to torch.Tensor
        Contiguous, dense, and sharing no memory with each other.
    filename : str or os.PathLike
    metadata : dict of str to str, optional
    fsync : bool
        Whether the file is on the disk before it takes its name. Without, it is faster, and a
        power failure soon after may leave a file of the right size with other bytes.

    Raises
    ------
    ValueError
        If a value is no tensor, is sparse or is not contiguous.
    RuntimeError
        If tensors share memory.
    inrush.SourceError
        If the file cannot be written.
    """
    _saving.save_file(_memories(tensors), filename, metadata, fsync)


def save(tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> bytes:
    """The bytes of the file that `save_file` would write."""
    return _saving.save_bytes(_memories(tensors), metadata)


def _memories(tensors: Any) -> dict[str, Memory]:
    if not isinstance(tensors, dict):
        raise ValueError(f"Expected a dict of [str, torch.Tensor] but received {type(tensors)}")
    memories = {}
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor):
            kind = type(tensor)
            raise ValueError(f"Key `{name}` is invalid, expected torch.Tensor but received {kind}")
        if tensor.layout != torch.strided:
            raise ValueError(f"`{name}` is a sparse tensor; make it dense with .to_dense()")
        if not tensor.is_contiguous():
            raise ValueError(f"`{name}` is a non contiguous tensor; save its .contiguous() copy")
        memories[name] = Memory(tensor.detach().cpu())
    _refuse_shared(memories, tensors)
    return memories


def _refuse_shared(memories: dict[str, Memory], tensors: dict[str, torch.Tensor]) -> None:
    # On a device the copies to the host are apart, so the tensors themselves are asked.
    spans = sorted(
        (str(tensor.device), tensor.data_ptr(), name) for name, tensor in tensors.items()
    )
    end, last, last_device = 0, "", ""
    for device, start, name in spans:
        size = memories[name].nbytes
        if size and device == last_device and start < end:
            raise RuntimeError(
                f"Some tensors share memory: {last!r} and {name!r}. Saved, they would be two "
                "copies; save one of them, or clone one if two are meant"
            )
        if size and (device != last_device or start + size > end):
            end, last, last_device = start + size, name, device
