"""safetensors.torch's functions, through Inrush: names, arguments and errors are the same."""

from __future__ import annotations

import torch

from inrush import _saving
from inrush._arguments import WHOLE, device_for, hinted
from inrush._dtypes import FRAMEWORK_NAMES
from inrush._errors import Error
from inrush._memory import Memory
from inrush._modules import Filling, MismatchError, opened_for
from inrush._safe_open import safe_open
from inrush._serialize import TensorSpec, deserialize, serialize, serialize_file
from inrush._sharding import save_sharded
from inrush._sharing import end_ptr as _end_ptr
from inrush._sharing import find_shared_tensors as _find_shared_tensors
from inrush._sharing import is_complete as _is_complete
from inrush._sharing import remove_duplicate_names as _remove_duplicate_names
from inrush._sharing import storage_ptr, storage_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping
    from typing import Any

    from inrush._checkpoint import Checkpoint
    from inrush._keys import Encryption, Key

    Source = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]

# The names with an underscore are those that other packages import from safetensors.torch.
__all__ = [
    "_SIZE",
    "_TYPES",
    "MismatchError",
    "TensorSpec",
    "_end_ptr",
    "_find_shared_tensors",
    "_getdtype",
    "_is_complete",
    "_remove_duplicate_names",
    "deserialize",
    "load",
    "load_file",
    "load_into",
    "load_model",
    "safe_open",
    "save",
    "save_file",
    "save_model",
    "save_sharded",
    "serialize",
    "serialize_file",
    "storage_ptr",
    "storage_size",
]

_TYPES = {
    name: getattr(torch, word) for name, word in FRAMEWORK_NAMES.items() if hasattr(torch, word)
}
_SIZE = {dtype: dtype.itemsize for dtype in _TYPES.values()}
_getdtype = _TYPES.__getitem__


def load_file(
    filename: str | os.PathLike[str],
    device: str | int | torch.device | None = "cpu",
    *,
    backend: str | None = "mmap",
    **options: Any,
) -> dict[str, torch.Tensor]:
    """Load a file (several, a directory, a URI) into torch tensors.

    Parameters
    ----------
    filename : str, os.PathLike or iterable of them
        A file, several, a directory or a URI.
    device : str, int, torch.device or None
        ``'cpu'`` or None: host memory; ``'cuda:0'``, ``'hip:1'``: read straight into its memory.
        Any other: read into host memory, moved by torch.
    backend : str, optional
        A hint, as for `inrush.safe_open`.
    **options
        As for `inrush.open`.

    Returns
    -------
    dict of str to torch.Tensor
        By name.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    inrush.Error
        If it is malformed or cannot be read, or torch has no such dtype.
    """
    result: dict[str, torch.Tensor] = _saving.load_file(
        filename, "pt", options, device=device, backend=backend
    )
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
    encryption: Encryption | Key | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> None:
    """Save tensors into a file, byte-identical to what safetensors writes, atomically.

    Parameters
    ----------
    tensors : dict of str to torch.Tensor
        Contiguous, dense, and sharing no memory with each other.
    filename : str or os.PathLike
        Replaced as a whole, or not at all.
    metadata : dict of str to str, optional
        Kept in the file's header.
    fsync : bool
        Whether the file is on the disk before it takes its name. Without, it is faster, and a
        power failure soon after may leave a file of the right size with other bytes.
    encryption : Key, bytes or str, optional
        Write a sealed file, which only this key opens: 32 bytes, or where to find them, as for
        `inrush.open`.
    storage_options : mapping, optional
        As for `inrush.open`, where `filename` is a URI such as ``s3://bucket/key``.

    Raises
    ------
    ValueError
        If a value is no tensor, is sparse or is not contiguous.
    RuntimeError
        If tensors share memory.
    inrush.SourceError
        If the file cannot be written.
    """
    _saving.save_file(
        _memories(tensors),
        filename,
        metadata,
        fsync,
        encryption=encryption,
        storage_options=storage_options,
    )


def save(tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> bytes:
    """The bytes of the file that `save_file` would write."""
    return _saving.save_bytes(_memories(tensors), metadata)


def load_into(
    model: torch.nn.Module,
    source: Source | Checkpoint,
    strict: bool = True,
    *,
    dtype: str | torch.dtype | None = None,
    slices: Mapping[str, Any] | None = None,
    assign: bool = False,
    **options: Any,
) -> tuple[list[str], list[str]]:
    """Load a checkpoint into the parameters and persistent buffers of a model.

    Names, shapes and dtypes are compared before the first byte is written. Host memory of the
    model is filled in place, so no second copy of the weights exists; what lies elsewhere, is not
    contiguous or changes its dtype is copied one tensor at a time. Tied tensors stay tied, and a
    model may be loaded into again.

    A model that has a say in how it is loaded (hooks of `load_state_dict`, a module's own
    `_load_from_state_dict`, extra state, lazy or wrapped tensors) is handed all tensors by its
    `load_state_dict`, once they are read: then its own code decides about names, shapes and dtypes
    where it has a say, and tensors that are not mapped are in memory twice meanwhile.

    Parameters
    ----------
    model : torch.nn.Module
        What is filled.
    source : str, os.PathLike, iterable of them, or inrush.Checkpoint
        As for `inrush.open`, or what that returned.
    strict : bool
        Whether missing and unexpected names are an error.
    dtype : None, 'model', torch.dtype or the name of one
        None: the checkpoint's dtypes, which must be the model's. ``'model'``: each tensor is cast
        to what the model has. A torch.dtype: floating-point tensors are cast to it, which must be
        what the model has, unless `assign`.
    slices : mapping, optional
        Name or pattern to the part of a tensor that the model has, as for `inrush.open`.
    assign : bool
        Whether the model gets new tensors in place of its own (one built on the meta device has
        no memory to fill); all of them at the end, or none after an error.
    **options
        As for `inrush.open`, but for `out`. What `include`, `exclude` or `order` leave out counts
        as not there.

    Returns
    -------
    missing, unexpected : list of str
        Names that only the model has, and that only the checkpoint has. Of tied names, which are
        one tensor, one is enough, and the checkpoint's others are unexpected.

    Raises
    ------
    MismatchError
        If names (with `strict`), shapes or dtypes differ: nothing was written, unless the model's
        own code found it, as the message then says.
    inrush.Error
        If the load fails halfway. The message says how many tensors were written by then, the
        exception's attribute ``written`` which.
    """
    words = {"strict": strict, "dtype": dtype, "slices": slices, "assign": assign}
    core, chosen = opened_for(source, options)
    filling = Filling(model, core, words, chosen)
    filling.load()
    return filling.missing, filling.unexpected


def load_model(
    model: torch.nn.Module,
    filename: str | os.PathLike[str],
    strict: bool = True,
    device: str | int | torch.device | None = "cpu",
    *,
    backend: str | None = "mmap",
) -> tuple[set[str], list[str]]:
    """Load a file into a model, as `load_into` with ``dtype='model'``.

    Parameters
    ----------
    model : torch.nn.Module
        What is filled.
    filename : str or os.PathLike
        As for `load_file`.
    strict : bool
        Whether missing and unexpected names are an error.
    device : str, int, torch.device or None
        Checked, for safetensors' sake: tensors go straight to where the model has them.
    backend : str, optional
        A hint, as for `inrush.safe_open`.

    Returns
    -------
    missing : set of str
        Names that only the model has.
    unexpected : list of str
        Names that only the file has, those of tied tensors last.

    Raises
    ------
    RuntimeError
        If names (with `strict`) or shapes differ; as of `load_into`.
    FileNotFoundError
        If the file does not exist.
    inrush.Error
        If it is malformed or cannot be read.
    """
    device_for("pt", device)
    words = {**WHOLE, **hinted(backend)}
    missing, unexpected = load_into(model, filename, strict, dtype="model", **words)
    return set(missing), unexpected


def save_model(
    model: torch.nn.Module,
    filename: str | os.PathLike[str],
    metadata: dict[str, str] | None = None,
    force_contiguous: bool = True,
    *,
    fsync: bool = True,
    encryption: Encryption | Key | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> None:
    """Save a model, each shared tensor once; metadata notes which name stands for which.

    Parameters
    ----------
    model : torch.nn.Module
        Whose `state_dict` is saved.
    filename : str or os.PathLike
        As for `save_file`.
    metadata : dict of str to str, optional
        Kept in the header, beside the notes.
    force_contiguous : bool
        Whether strided tensors are saved as their contiguous copies.
    fsync, encryption, storage_options : optional
        As for `save_file`.

    Raises
    ------
    ValueError
        If a tensor is not contiguous and may not be made so.
    RuntimeError
        If of tensors that share a storage none covers it wholly.
    inrush.SourceError
        If the file cannot be written.
    """
    tensors = dict(model.state_dict())
    notes = dict(metadata or {})
    for kept, removed in _remove_duplicate_names(tensors).items():
        for name in removed:
            notes.setdefault(name, kept)
            del tensors[name]
    if force_contiguous:
        tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    try:
        given = notes if notes or metadata is not None else None
        save_file(
            tensors,
            filename,
            given,
            fsync=fsync,
            encryption=encryption,
            storage_options=storage_options,
        )
    except Error:
        raise
    except ValueError as error:
        raise ValueError(
            f"{error} Or use save_model(..., force_contiguous=True), which saves contiguous copies."
        ) from error


def _memories(tensors: Any) -> dict[str, Memory]:
    if not isinstance(tensors, dict):
        raise ValueError(f"Expected a dict of [str, torch.Tensor] but received {type(tensors)}")
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor):
            kind = type(tensor)
            raise ValueError(f"Key `{name}` is invalid, expected torch.Tensor but received {kind}")
    sparse = [name for name, tensor in tensors.items() if tensor.layout != torch.strided]
    if sparse:
        raise ValueError(
            f"You are trying to save a sparse tensors: `{sparse}` which this library does not "
            "support. You can make it a dense tensor before saving with `.to_dense()` but be aware "
            "this might make a much larger file than needed."
        )
    shared = [names for names in _find_shared_tensors(tensors) if len(names) > 1]
    if shared:
        raise RuntimeError(
            f"Some tensors share memory: {[sorted(names) for names in shared]}. Saved, each would "
            "be a copy of its own; save one of them, use save_model, or clone what is meant twice"
        )
    memories = {}
    for name, tensor in tensors.items():
        if not tensor.is_contiguous():
            raise ValueError(f"`{name}` is a non contiguous tensor; save its .contiguous() copy.")
        # What is a conjugate or a negative by a mark only is one in memory first.
        memories[name] = Memory(tensor.detach().resolve_conj().resolve_neg().cpu())
    return memories
