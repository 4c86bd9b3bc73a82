"""tensorizer's classes on Inrush's engine: ``from inrush.tensorizer import TensorSerializer, ...``.

What differs from tensorizer 2.12 stands in docs/tensorizer.md.
"""

from __future__ import annotations

from inrush.tensorizer import serialization as serialization
from inrush.tensorizer import stream_io, torch_compat, utils
from inrush.tensorizer.serialization import (
    CryptographyError,
    DecryptionParams,
    EncryptionParams,
    FilterFuncType,
    TensorDeserializer,
    TensorSerializer,
    TensorType,
)

# The version whose classes these are.
__version__ = "2.12.1"

# `protobuf` and `tensors_pb2` need Protocol Buffers, and are imported when somebody asks for them.
__all__ = [
    "CryptographyError",
    "DecryptionParams",
    "EncryptionParams",
    "FilterFuncType",
    "TensorDeserializer",
    "TensorSerializer",
    "TensorType",
    "protobuf",
    "stream_io",
    "tensors_pb2",
    "torch_compat",
    "utils",
]
