"""tensorizer's classes on Inrush's engine: ``from inrush.tensorizer import TensorSerializer, ...``.

What differs from tensorizer 2.12, and what is not here yet, stands in docs/tensorizer.md.
"""

from __future__ import annotations

from inrush.tensorizer import serialization, stream_io, utils
from inrush.tensorizer.serialization import (
    CryptographyError,
    DecryptionParams,
    EncryptionParams,
    FilterFuncType,
    TensorDeserializer,
    TensorSerializer,
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
    "serialization",
    "stream_io",
    "utils",
]
