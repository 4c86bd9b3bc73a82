"""Model weights from wherever they lie into memory, at the speed of the narrowest link.

>>> import inrush
>>> checkpoint = inrush.open("/models/llama")  # a mapping: name -> TensorInfo
>>> for name, tensor in checkpoint.tensors(): ...  # streamed while reading
>>> everything = checkpoint.load()

Importing it imports neither numpy nor torch; arrays are made by the framework asked for.
"""

from __future__ import annotations

import importlib

from inrush import _engine  # noqa: F401 - the first of them
from inrush._checkpoint import Checkpoint, TensorStream
from inrush._core import Tensor, TensorInfo
from inrush._errors import (
    Cancelled,
    DataError,
    Error,
    MemoryBudgetError,
    SourceError,
    UsageError,
    join_safetensors,
)
from inrush._job import Job
from inrush._options import Backend, BackendPolicy
from inrush._safe_open import _safe_open_handle, safe_open

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Iterable
    from typing import Any

    from typing_extensions import Unpack

    from inrush._convert import convert
    from inrush._errors import SafetensorError
    from inrush._keys import Key
    from inrush._options import OptionWords
    from inrush._serialize import TensorSpec, deserialize, serialize, serialize_file

__version__ = "0.1.0"

__all__ = [
    "Backend",
    "BackendPolicy",
    "Cancelled",
    "Checkpoint",
    "DataError",
    "Error",
    "Job",
    "Key",
    "MemoryBudgetError",
    "SafetensorError",
    "SourceError",
    "Tensor",
    "TensorInfo",
    "TensorSpec",
    "TensorStream",
    "UsageError",
    "_safe_open_handle",
    "convert",
    "deserialize",
    "open",
    "safe_open",
    "serialize",
    "serialize_file",
]


def open(
    source: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    **options: Unpack[OptionWords],
) -> Checkpoint:
    """Open a checkpoint: read its headers, nothing else.

    Parameters
    ----------
    source : str, os.PathLike or iterable of them
        A directory, a file, a URI, the id of a model of the Hugging Face Hub where nothing here is
        called so, or several files that make one checkpoint.
    framework : {None, 'np', 'pt', 'jax', 'tf', 'mlx', 'paddle'}
        What tensors are delivered as: `inrush.Tensor` (DLPack and buffer protocol), numpy
        arrays, torch tensors, ... They share memory with what was read where the framework can.
    device : str, int, torch.device or mapping of them
        Where tensors are delivered: ``'cpu'``, ``'cuda:0'``, ``'hip:1'``; a mapping goes from
        names, or what they begin with, to devices.
    backend : Backend, BackendPolicy, str or list of them, optional
        Ways to read, tried in order; None chooses by itself. ``strict=True`` allows no other.
    budget : int, str or mapping, optional
        Most bytes of staging, ``'512MiB'``, ``{'host': ...}`` or ``'host=8MiB,pinned=1GiB'``.
        Default: 256 MiB, less where little memory is granted.
    page_cache : {'auto', 'keep', 'drop'}
        What becomes of pages that the load brought into the page cache.
    mapping : {'auto', 'never'}
        Whether tensors may be the file's own pages.
    copy : bool or None
        None: they may, as `mapping` says. True: tensors own their memory. False: `tensors` yields
        views of a buffer whose memory is used again once a view has died, and raises
        `MemoryBudgetError` at once where the caller keeps so many that nothing is left for the
        next; what the other methods return owns its memory.
    buffer_size : int or str, optional
        Bytes of that buffer; at least what the largest tensors need. Default: 256 MiB.
    order : {'file', 'ready'} or list of str
        Delivery by file name and offset, as bytes come, or as listed: names or patterns, and
        nothing that none of them matches.
    include, exclude : str, re.Pattern, callable or list of them, optional
        Names, globs (``'*.bias'``), regular expressions (``'re:...'``, or compiled: some part of
        the name must match) or predicates of a name.
    slices : mapping, optional
        Pattern to slice: only these bytes are read. ``{'*.weight': (slice(0, 512), slice(None))}``
        or ``'0:512, :'``.
    out : mapping, optional
        Name to tensor or array that is filled: writable, C-contiguous, of the tensor's dtype and
        shape, or flat. In place where its address allows what reads it, else by one copy.
    verify : {'none', 'crc', 'full'}
        Check the format's own checksums while reading: none, those that cost next to nothing, all.
    manifest : str, os.PathLike or Manifest, optional
        What `inrush manifest` wrote, or where it lies: every tensor is compared with it while it
        is read, and of a slice the leaves that it lies in.
    encryption : Key, bytes or str, optional
        The key of an encrypted checkpoint: 32 bytes, or where it is: ``'file:PATH'``,
        ``'passphrase-file:PATH'``, ``'exec:COMMAND'``.
    mirrors : str, os.PathLike or iterable of them, optional
        Other places of the same bytes, read together with the first. Those that differ are a
        `DataError`, those that cannot be reached are left out.
    cache_dir : str or os.PathLike, optional
        A private folder in which what is read of remote places is kept for the next time.
    cache_size : int or str, optional
        Most bytes of all that is kept there, such as ``'500GB'``.
    progress : callable, optional
        Called with (bytes done, bytes in all, seconds) by the thread that waits or iterates,
        at most 10 times a second; one that requires a fourth parameter also gets
        ``stats()["sources"]``: the rate, retries and hedges of each place.
    trace : bool
        Record what each lane does, for `Job.trace`.
    storage_options : mapping, optional
        Of a remote place: ``{'endpoint': 'http://localhost:9000', 'region': 'eu-west-1'}``.

    Returns
    -------
    Checkpoint
        A mapping of names to `TensorInfo`, with the methods that load.

    Raises
    ------
    SourceError
        Nothing is there, or it may not be read.
    DataError
        The headers are malformed, truncated or contradict each other.
    UsageError
        An option has no such value.
    """
    return Checkpoint(source, **options)


# These come when they are asked for: some need their frameworks, the others are rarely used.
_MODULES = ("flax", "instanttensor", "numpy", "tensorizer", "torch")
_HOMES = {
    "Key": "inrush._keys",
    "TensorSpec": "inrush._serialize",
    "convert": "inrush._convert",
    "deserialize": "inrush._serialize",
    "serialize": "inrush._serialize",
    "serialize_file": "inrush._serialize",
}


def __getattr__(name: str) -> Any:
    if name == "SafetensorError":
        return join_safetensors()  # safetensors may have been imported since
    if name in _MODULES:
        return importlib.import_module(f"inrush.{name}")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'inrush' has no attribute {name!r}")
