"""Writes all_dtypes.safetensors with safetensors 0.8.0, for safetensors_writer_test.cpp.

Run it by hand where the safetensors package is installed; the result is checked in.
"""

import ctypes
from pathlib import Path

from safetensors import TensorSpec, serialize

DTYPES = {
    "bool": 8,
    "float4_e2m1fn_x2": 8,
    "uint8": 8,
    "int8": 8,
    "float8_e5m2": 8,
    "float8_e4m3fn": 8,
    "float8_e8m0fnu": 8,
    "float8_e4m3fnuz": 8,
    "float8_e5m2fnuz": 8,
    "int16": 16,
    "uint16": 16,
    "float16": 16,
    "bfloat16": 16,
    "int32": 32,
    "uint32": 32,
    "float32": 32,
    "complex64": 64,
    "float64": 64,
    "int64": 64,
    "uint64": 64,
}

buffers = []


def spec(dtype: str, shape: list[int], size: int) -> TensorSpec:
    """A tensor whose i-th byte is (37 i + 11) mod 256."""
    data = bytes((i * 37 + 11) % 256 for i in range(size))
    buffers.append(ctypes.create_string_buffer(data, max(size, 1)))
    address = ctypes.addressof(buffers[-1])
    return TensorSpec(dtype=dtype, shape=shape, data_ptr=address, data_len=size)


tensors = {}
for number, (dtype, bits) in enumerate(DTYPES.items()):
    for letter in "ba":
        tensors[f"{letter}.{number}"] = spec(dtype, [2, 4], bits)
tensors["scalar"] = spec("float32", [], 4)
tensors["empty"] = spec("int64", [0, 3], 0)
tensors['c\n"\\é\x7f\x01/'] = spec("uint8", [3], 3)
target = Path(__file__).parent / "all_dtypes.safetensors"
target.write_bytes(serialize(tensors, {"format": 'p"t\n'}))
