"""The names of tensorizer's module of this name."""

from __future__ import annotations

import logging

from inrush._tensors_file import MAGIC
from inrush.tensorizer._crypto import CryptographyError, DecryptionParams, EncryptionParams
from inrush.tensorizer._deserializer import TensorDeserializer
from inrush.tensorizer._devices import current_cuda_device as _resolve_cuda_device
from inrush.tensorizer._serializer import TensorSerializer
from inrush.tensorizer._types import FileFeatureFlags as _FileFeatureFlags
from inrush.tensorizer._types import (
    FilterFuncType,
    HashMismatchError,
    HashType,
    TensorEntry,
    TensorHash,
    TensorType,
)

__all__ = [
    "CryptographyError",
    "DecryptionParams",
    "EncryptionParams",
    "FilterFuncType",
    "TensorDeserializer",
    "TensorSerializer",
    "TensorType",
]

# Beyond tensorizer's own list, what its users and tests take from here.
_ALSO = (
    HashMismatchError, HashType, TensorEntry, TensorHash, _FileFeatureFlags, _resolve_cuda_device,
)  # fmt: skip

logger = logging.getLogger(__name__)

# Versions of files: the least that has plain tensors, opaque ones, encryption, meta tensors, and
# lengths of 64 bits.
NON_OPAQUE_TENSORIZER_VERSION = 1
OPAQUE_TENSORIZER_VERSION = 2
ENCRYPTION_TENSORIZER_VERSION = 3
META_TENSOR_TENSORIZER_VERSION = 4
LONG_TENSOR_TENSORIZER_VERSION = 5
TENSORIZER_VERSION = 5

TENSORIZER_MAGIC = MAGIC
OPAQUE_DTYPE_SEP = "\0"  # in the name of an opaque dtype, before torch's name
