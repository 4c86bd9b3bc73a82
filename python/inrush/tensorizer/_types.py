"""What tensorizer's files say of a tensor, in torch's words."""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from inrush._dtypes import FRAMEWORK_NAMES
from inrush._tensors_file import LONG_VERSION, PLAIN

FilterFuncType = Callable[[str | tuple[str | int, ...]], bool]

_PLAIN_CODES = {getattr(torch, FRAMEWORK_NAMES[name]): code for name, code in PLAIN.items()} | {
    torch.complex128: "<c16"
}
_TORCH_TYPES = {code: dtype for dtype, code in _PLAIN_CODES.items()}

# Their tensors have a scale, for which a file has no place.
_QUANTISED = {torch.qint8, torch.quint8, torch.qint32, torch.quint4x2, torch.quint2x4}


class HashMismatchError(Exception):
    """A tensor's bytes are not those that its checksums were made of."""


class HashType(enum.IntEnum):
    """What a checksum was made by."""

    CRC32 = 0
    SHA256 = 1


@dataclasses.dataclass(order=True, slots=True)
class TensorHash:
    """A checksum of a record's header."""

    type: HashType
    hash: bytes


class TensorType(enum.IntEnum):
    """What a tensor of a file was."""

    PARAM = 0
    BUFFER = 1
    STATE_DICT = 2


@dataclasses.dataclass(order=True, slots=True)
class TensorEntry:
    """A line of the index, for those who make or annotate with tensorizer's; Inrush makes none."""

    metadata_version: int
    name: Any
    type: TensorType
    dtype: str
    shape: tuple[int, ...]
    offset: int
    data_offset: int
    data_length: int
    hashes: list[TensorHash] | None
    header_hashes: dict[HashType, Any] | None

    @property
    def deserialized_length(self) -> int:
        """Bytes in memory: a meta tensor has some there and none in the file."""
        import numpy

        return self.data_length or numpy.dtype(self.dtype).itemsize * math.prod(self.shape)

    @property
    def is_long_tensor(self) -> bool:
        """Its lengths have 64 bits."""
        return self.metadata_version >= LONG_VERSION


class FileFeatureFlags(enum.IntFlag):
    """What a file's head says."""

    encrypted = 1
    versioned_metadata_entries = 2


class FileHeader(NamedTuple):
    """Of a file's head, what tensorizer's tests look at."""

    version_number: int
    feature_flags: FileFeatureFlags


def code_of(dtype: torch.dtype) -> str:
    """How a file names this dtype.

    Raises
    ------
    NotImplementedError
        For a quantised one.
    """
    if dtype in _QUANTISED:
        raise NotImplementedError(f"tensors of {dtype} cannot be written")
    order = "|" if dtype.itemsize == 1 else "<"
    return _PLAIN_CODES.get(dtype) or f"{order}V{dtype.itemsize}\0{dtype}"


def type_of(code: str) -> torch.dtype:
    """The dtype that a file names so."""
    name = code.partition("\0")[2].removeprefix("torch.")
    dtype = getattr(torch, name, None) if name else _TORCH_TYPES.get(code)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"Invalid torch_dtype: {name or code!r}")
    return dtype
