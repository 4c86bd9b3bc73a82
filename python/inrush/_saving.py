"""What `inrush.torch` and `inrush.numpy` share: files from arrays, and arrays from bytes."""

from __future__ import annotations

import contextlib
import os

from inrush import _core
from inrush._arguments import WHOLE, collects, device_for, existing, hinted
from inrush._checkpoint import open_source
from inrush._errors import Error, MissingDtypeError, UsageError
from inrush._job import Job
from inrush._memory import Memory
from inrush._options import Options
from inrush._storage import storage_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from inrush._keys import Encryption, Key


def save_file(
    memories: Mapping[str, Memory],
    filename: str | os.PathLike[str],
    metadata: Mapping[str, str] | None,
    fsync: bool = True,
    *,
    encryption: Encryption | Key | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> None:
    """Write a safetensors file, or a sealed one: a file through a temporary, or a remote object."""
    place = _target(filename)
    chosen = _core.SaveOptions()
    chosen.metadata = checked_metadata(metadata)
    chosen.sync = fsync
    chosen.storage = storage_for([place], storage_options)
    chosen.seal = seal_of(encryption)
    _core.save_file(place, _save_tensors(memories), chosen)


def check_place(
    filename: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None
) -> None:
    """Raise where `save_file` would: before the work whose result it shall take.

    What a remote place refuses only when bytes come is not seen yet.
    """
    place = _target(filename)
    _core.Writer.open(place, storage_for([place], storage_options)).abort()


def _target(place: str | os.PathLike[str]) -> bytes:
    target = os.fsencode(place)
    if target.lower().startswith(b"hf://"):
        raise UsageError(
            f"save {os.fsdecode(target)}: to the Hub files go by commits: save here, then use "
            "huggingface_hub.upload_file or `hf upload`"
        )
    return target


def seal_of(encryption: Encryption | Key | None) -> _core.SealOptions | None:
    """How to seal with this key, if there is one."""
    if encryption is None:
        return None
    from inrush._keys import key_of  # few need it, and importing it takes time

    key = key_of(encryption)
    return None if key is None else _core.SealOptions.make(key.key, key.passphrase)


def save_sharded(
    memories: Mapping[str, Memory],
    save_directory: str | os.PathLike[str],
    options: Mapping[str, Any],
    storage_options: Mapping[str, Any] | None = None,
) -> list[str]:
    """Write files of at most `max_shard_size` bytes of tensors, and their index.

    `options` has the words of `_core.ShardOptions`; those that are None keep its defaults.
    """
    chosen = _core.ShardOptions()
    for word, value in options.items():
        if value is not None:
            setattr(chosen, word, value)
    place = _target(save_directory)
    chosen.storage = storage_for([place], storage_options)
    return _core.save_sharded(place, _save_tensors(memories), chosen)


def shard_size(size: int | str) -> int:
    """Bytes of ``"5GB"`` as huggingface_hub reads it: powers of 1000, and no fractions.

    Raises
    ------
    ValueError
        If it is no number with KB, MB, GB, TB or PB behind it.
    """
    if isinstance(size, int):
        return size
    number, unit = size.strip()[:-2].strip(), size.strip()[-2:].upper()
    powers = {"KB": 1, "MB": 2, "GB": 3, "TB": 4, "PB": 5}
    if unit not in powers or not number.isdecimal():
        raise ValueError(f"max_shard_size={size!r}: expected bytes, or a text such as '5GB'")
    return int(number) * int(1000 ** powers[unit])


def save_bytes(memories: Mapping[str, Memory], metadata: Mapping[str, str] | None) -> bytes:
    """The safetensors file as bytes."""
    return _core.save_bytes(_save_tensors(memories), checked_metadata(metadata))


def _save_tensors(memories: Mapping[str, Memory]) -> list[_core.SaveTensor]:
    tensors = []
    for name, memory in memories.items():
        if not isinstance(name, str):
            raise TypeError(f"save {name!r}: the name of a tensor is a str")
        if not is_text(name):
            raise UsageError(f"save {name!r}: no text that UTF-8 can hold")
        if memory.dtype in ("", "?"):
            dtype = getattr(memory.owner, "dtype", type(memory.owner).__name__)
            raise MissingDtypeError(f"save {name!r}: safetensors has no dtype for {dtype}")
        tensors.append(
            _core.SaveTensor.make(
                name, memory.dtype, list(memory.shape), memory.address, memory.nbytes
            )
        )
    return tensors


def is_text(text: str) -> bool:
    """Whether UTF-8 can hold it: it has no half of a surrogate pair."""
    return text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text)


def checked_metadata(metadata: Mapping[str, str] | None) -> dict[str, str] | None:
    """The metadata; TypeError where a key or a value is no string."""
    if metadata is None:
        return None
    if not hasattr(metadata, "items"):
        raise TypeError(f"metadata: expected a mapping, not {type(metadata).__name__}")
    for key, value in metadata.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise TypeError(f"metadata: {key!r}: {value!r} is not a pair of strings")
        if not is_text(key) or not is_text(value):
            raise UsageError(f"metadata: {key!r}: {value!r} is no text that UTF-8 can hold")
    return dict(metadata)


def load_file(
    source: Any, framework: str, options: Mapping[str, Any], *, device: Any = None, backend: Any
) -> Any:
    """The tensors of a file by name, as arrays of the framework; `backend` is safetensors' hint."""
    place = device_for(framework, device)
    path = existing(source)
    words = {**WHOLE, **options, **hinted(backend), "framework": framework}
    chosen = Options(words).moving_to(place)
    with Job(open_source(path, chosen), chosen, collect=collects(place), keep=True) as job:
        job.confirms = True
        return dict(iter(job))


def load_bytes(data: bytes, framework: str) -> Any:
    """The tensors of a file that is in memory, by name, as arrays of the framework."""
    with (
        opened_bytes(data) as checkpoint,
        Job(checkpoint, Options({**WHOLE, "framework": framework}), collect=True) as job,
    ):
        return dict(iter(job))


@contextlib.contextmanager
def opened_bytes(data: bytes) -> Iterator[_core.Checkpoint]:
    """A file that is in memory, opened; errors call it ``<bytes>``."""
    descriptor = os.memfd_create("inrush")
    path = f"/proc/self/fd/{descriptor}"
    try:
        rest = memoryview(data).cast("B")
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        yield open_source(path)
    except Error as error:
        raise type(error)(str(error).replace(path, "<bytes>")) from None
    finally:
        os.close(descriptor)
