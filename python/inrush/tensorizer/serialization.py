"""The names of tensorizer's module of this name."""

from __future__ import annotations

from inrush.tensorizer._crypto import CryptographyError, DecryptionParams, EncryptionParams
from inrush.tensorizer._deserializer import TensorDeserializer
from inrush.tensorizer._serializer import TensorSerializer
from inrush.tensorizer._types import FilterFuncType, HashMismatchError, TensorType

__all__ = [
    "CryptographyError",
    "DecryptionParams",
    "EncryptionParams",
    "FilterFuncType",
    "HashMismatchError",
    "TensorDeserializer",
    "TensorSerializer",
    "TensorType",
]
