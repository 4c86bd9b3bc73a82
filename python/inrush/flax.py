"""safetensors.flax's functions for arrays of jax, through Inrush: names and arguments are the same.

As anywhere in jax, types of 64 bits become those of 32 unless ``jax_enable_x64`` is set.
"""

from __future__ import annotations

import jax
import numpy as np

from inrush import _saving, numpy
from inrush._safe_open import safe_open

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Mapping
    from typing import Any

    from inrush._keys import Encryption, Key

__all__ = ["load", "load_file", "safe_open", "save", "save_file"]


def load_file(
    filename: str | os.PathLike[str], *, backend: str | None = "mmap", **options: Any
) -> dict[str, jax.Array]:
    """Load a file (several, a directory, a URI) into jax arrays.

    Parameters
    ----------
    filename : str, os.PathLike or iterable of them
    backend : str, optional
        A hint, as for `inrush.safe_open`.
    **options
        As for `inrush.open`.

    Returns
    -------
    dict of str to jax.Array
        On jax's default device.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    inrush.Error
        If it is malformed or cannot be read, or jax has no such dtype.
    """
    result: dict[str, jax.Array] = _saving.load_file(filename, "jax", options, backend=backend)
    return result


def load(data: bytes) -> dict[str, jax.Array]:
    """Load a file's bytes into jax arrays."""
    result: dict[str, jax.Array] = _saving.load_bytes(data, "jax")
    return result


def save_file(
    tensors: dict[str, jax.Array],
    filename: str | os.PathLike[str],
    metadata: dict[str, str] | None = None,
    *,
    fsync: bool = True,
    encryption: Encryption | Key | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> None:
    """Save arrays into a file, byte-identical to what safetensors writes, atomically.

    `fsync`, `encryption` and `storage_options` are those of `inrush.numpy.save_file`.

    Raises
    ------
    inrush.UsageError
        If safetensors has no dtype for an array.
    inrush.SourceError
        If the file cannot be written.
    """
    numpy.save_file(
        _arrays(tensors),
        filename,
        metadata,
        fsync=fsync,
        encryption=encryption,
        storage_options=storage_options,
    )


def save(tensors: dict[str, jax.Array], metadata: dict[str, str] | None = None) -> bytes:
    """The bytes of the file that `save_file` would write."""
    return numpy.save(_arrays(tensors), metadata)


def _arrays(tensors: dict[str, jax.Array]) -> dict[str, numpy.Array]:
    return {name: np.asarray(tensor) for name, tensor in tensors.items()}
