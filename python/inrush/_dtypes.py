"""Element types: safetensors' names and what numpy and torch call them."""

from __future__ import annotations

# The frameworks' word for each safetensors dtype. F6_* has none in any of them.
FRAMEWORK_NAMES = {
    "BOOL": "bool",
    "F4": "float4_e2m1fn_x2",
    "U8": "uint8",
    "I8": "int8",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "I16": "int16",
    "U16": "uint16",
    "F16": "float16",
    "BF16": "bfloat16",
    "I32": "int32",
    "U32": "uint32",
    "F32": "float32",
    "C64": "complex64",
    "F64": "float64",
    "I64": "int64",
    "U64": "uint64",
}

SAFETENSORS_NAMES = {word: name for name, word in FRAMEWORK_NAMES.items()}

# Packed types count bytes in their frameworks, elements in the file: elements per byte.
PACKED = {"F4": 2}
