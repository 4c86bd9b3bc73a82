"""`save_sharded`: a state dict in files of a given size, with huggingface_hub's arguments."""

from __future__ import annotations

import torch

from inrush import _saving
from inrush._errors import UsageError
from inrush._memory import Memory

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Mapping
    from typing import Any

    from inrush._keys import Encryption, Key


def save_sharded(
    state_dict: dict[str, torch.Tensor],
    save_directory: str | os.PathLike[str],
    *,
    filename_pattern: str | None = None,
    force_contiguous: bool = True,
    max_shard_size: int | str = "5GB",
    metadata: dict[str, str] | None = None,
    is_main_process: bool = True,
    safe_serialization: bool = True,
    shared_tensors_to_discard: list[str] | None = None,
    fsync: bool = True,
    encryption: Encryption | Key | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> list[str]:
    """Save a state dict as one safetensors file, or as several with an index.

    The arguments are those of ``huggingface_hub.save_torch_state_dict``. Files take their names
    when all are written: a process that is killed leaves what was there, or an index that names
    missing files, never a part that looks whole.

    Parameters
    ----------
    state_dict : dict of str to torch.Tensor
        Tensors that share all their memory are written once, under the name that comes first;
        the metadata then has each other name with the one that was kept.
    save_directory : str or os.PathLike
        A folder, made if it is not there, or a URI: ``'s3://bucket/llama/'``. Files that an
        earlier save with this pattern left are removed.
    filename_pattern : str, optional
        A name with ``{suffix}`` in it; ``'model{suffix}.safetensors'``.
    force_contiguous : bool
        Save a contiguous copy of a strided tensor, rather than refuse it.
    max_shard_size : int or str
        Most bytes of tensors in a file: a number, or ``'5GB'`` (powers of 1000). A tensor that is
        larger has a file of its own.
    metadata : dict of str to str, optional
        Of the file, or of the index of several; each file has ``{'format': 'pt'}``.
    is_main_process : bool
        Others write nothing.
    safe_serialization : bool
        True: no other format is written.
    shared_tensors_to_discard : list of str, optional
        Which names of shared tensors not to keep.
    fsync : bool
        Whether files are on the disk before they take their names.
    encryption : Key, bytes or str, optional
        Seal the files, as for `save_file`; the index stays plain.
    storage_options : mapping, optional
        Of a remote place, as for `inrush.open`.

    Returns
    -------
    list of str
        Names of the files, the index last; empty where `is_main_process` is false.

    Raises
    ------
    ValueError
        If a value is no dense tensor, or is strided and `force_contiguous` is false.
    RuntimeError
        If tensors share a part of their memory, or all names of one are to be discarded.
    inrush.SourceError
        If a file cannot be written.
    """
    if not safe_serialization:
        raise UsageError("safe_serialization=False: only safetensors are written, not pickles")
    if not is_main_process:
        return []
    kept, dropped = _one_of_each(state_dict, shared_tensors_to_discard or [])
    from inrush.torch import _memories

    memories: dict[str, Memory] = _memories(
        {name: _dense(tensor, force_contiguous) for name, tensor in kept.items()}
    )
    options = {
        "filename_pattern": filename_pattern,
        "max_shard_size": _saving.shard_size(max_shard_size),
        "metadata": {**dropped, **(metadata or {})},
        "file_metadata": {"format": "pt"},
        "sync": fsync,
        "seal": _saving.seal_of(encryption),
    }
    return _saving.save_sharded(memories, save_directory, options, storage_options)


def _dense(tensor: torch.Tensor, force: bool) -> torch.Tensor:
    return tensor.contiguous() if force and tensor.layout == torch.strided else tensor


def _one_of_each(
    state_dict: dict[str, torch.Tensor], unwanted: list[str]
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors without second names, and each second name with the one kept."""
    groups: dict[object, list[str]] = {}
    for name, tensor in state_dict.items():
        plain = isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided
        same: object = name
        if plain and tensor.nbytes:
            same = (
                tensor.device,
                tensor.data_ptr(),
                tensor.dtype,
                tuple(tensor.shape),
                tensor.stride(),
            )
        groups.setdefault(same, []).append(name)
    dropped: dict[str, str] = {}
    for names in groups.values():
        wanted = [name for name in names if name not in unwanted] if len(names) > 1 else names
        if not wanted:
            raise RuntimeError(f"all of {names} share memory and are to be discarded")
        keep = min(wanted)
        dropped.update({name: keep for name in names if name != keep})
    return {name: each for name, each in state_dict.items() if name not in dropped}, dropped
