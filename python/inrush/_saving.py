"""What `inrush.torch` and `inrush.numpy` share: files from arrays, and arrays from bytes."""

from __future__ import annotations

import os

from inrush import _core
from inrush._checkpoint import open_source
from inrush._errors import Error, UsageError
from inrush._job import Job
from inrush._memory import Memory
from inrush._options import Options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


def save_file(
    memories: Mapping[str, Memory],
    filename: str | os.PathLike[str],
    metadata: Mapping[str, str] | None,
) -> None:
    """Write a safetensors file through a temporary beside it."""
    _core.save_file(os.fsencode(filename), _save_tensors(memories), _checked(metadata))


def save_bytes(memories: Mapping[str, Memory], metadata: Mapping[str, str] | None) -> bytes:
    """The safetensors file as bytes."""
    return _core.save_bytes(_save_tensors(memories), _checked(metadata))


def _save_tensors(memories: Mapping[str, Memory]) -> list[_core.SaveTensor]:
    tensors = []
    for name, memory in memories.items():
        if memory.dtype in ("", "?"):
            dtype = getattr(memory.owner, "dtype", type(memory.owner).__name__)
            raise UsageError(f"save {name!r}: safetensors has no dtype for {dtype}")
        tensors.append(
            _core.SaveTensor.make(
                name, memory.dtype, list(memory.shape), memory.address, memory.nbytes
            )
        )
    return tensors


def _checked(metadata: Mapping[str, str] | None) -> dict[str, str] | None:
    if metadata is None:
        return None
    for key, value in metadata.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise TypeError(f"metadata: {key!r}: {value!r} is not a pair of strings")
    return dict(metadata)


def load_file(source: Any, framework: str, device: Any, options: Mapping[str, Any]) -> Any:
    """The tensors of a file by name, as arrays of the framework."""
    path = os.fspath(source)
    if "://" not in path and not os.path.exists(path):
        raise FileNotFoundError(f"No such file or directory: {path}")
    chosen = Options({**options, "framework": framework, "device": device})
    with Job(open_source(path), chosen, collect=True) as job:
        return dict(iter(job))


def load_bytes(data: bytes, framework: str) -> Any:
    """The tensors of a file that is in memory, by name, as arrays of the framework."""
    descriptor = os.memfd_create("inrush")
    path = f"/proc/self/fd/{descriptor}"
    try:
        rest = memoryview(data).cast("B")
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        return load_file(path, framework, "cpu", {})
    except Error as error:
        raise type(error)(str(error).replace(path, "<bytes>")) from None
    finally:
        os.close(descriptor)
