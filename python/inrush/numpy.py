"""safetensors.numpy's functions, through Inrush: names and arguments are the same."""

from __future__ import annotations

import numpy

from inrush import _saving
from inrush._memory import Memory
from inrush._safe_open import safe_open
from inrush._serialize import TensorSpec, deserialize, serialize, serialize_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Mapping
    from typing import Any

    Array = numpy.ndarray[Any, numpy.dtype[Any]]

__all__ = [
    "TensorSpec",
    "deserialize",
    "load",
    "load_file",
    "safe_open",
    "save",
    "save_file",
    "serialize",
    "serialize_file",
]


def load_file(
    filename: str | os.PathLike[str], *, backend: str | None = "mmap", **options: Any
) -> dict[str, Array]:
    """Load a file (several, a directory, a URI) into numpy arrays.

    Parameters
    ----------
    filename : str, os.PathLike or iterable of them
    backend : str, optional
        A hint, as for `inrush.safe_open`.
    **options
        As for `inrush.open`.

    Returns
    -------
    dict of str to numpy.ndarray
        Writable. BF16 and F8_* need the package ml_dtypes.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    inrush.Error
        If it is malformed or cannot be read, or numpy has no such dtype.
    """
    result: dict[str, Array] = _saving.load_file(filename, "np", options, backend=backend)
    return result


def load(data: bytes) -> dict[str, Array]:
    """Load a file's bytes into numpy arrays."""
    result: dict[str, Array] = _saving.load_bytes(data, "np")
    return result


def save_file(
    tensor_dict: dict[str, Array],
    filename: str | os.PathLike[str],
    metadata: dict[str, str] | None = None,
    *,
    fsync: bool = True,
    storage_options: Mapping[str, Any] | None = None,
) -> None:
    """Save arrays into a file, byte-identical to what safetensors writes, atomically.

    Arrays that are strided or big-endian are saved through a copy. With `fsync` the file is on the
    disk before it takes its name. `filename` may be a URI such as ``s3://bucket/key``, with
    `storage_options` as for `inrush.open`.

    Raises
    ------
    inrush.UsageError
        If safetensors has no dtype for an array.
    inrush.SourceError
        If the file cannot be written.
    """
    _saving.save_file(
        _memories(tensor_dict), filename, metadata, fsync, storage_options=storage_options
    )


def save(tensor_dict: dict[str, Array], metadata: dict[str, str] | None = None) -> bytes:
    """The bytes of the file that `save_file` would write."""
    return _saving.save_bytes(_memories(tensor_dict), metadata)


def _memories(arrays: dict[str, Array]) -> dict[str, Memory]:
    memories = {}
    for name, array in arrays.items():
        plain = numpy.asarray(array, order="C")
        if plain.dtype.byteorder == ">":
            plain = plain.astype(plain.dtype.newbyteorder("<"))
        memories[name] = Memory(plain)
    return memories
