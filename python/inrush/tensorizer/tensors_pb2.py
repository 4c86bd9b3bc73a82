"""The messages of tensorizer's first format, as Protocol Buffers; made here, not generated.

They live in a pool of their own, so that tensorizer's can be imported in the same process.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.internal import enum_type_wrapper

_DTYPES = (
    "INVALID", "FLOAT32", "FLOAT64", "FLOAT16", "BFLOAT16", "COMPLEX32", "COMPLEX64", "COMPLEX128",
    "UINT8", "INT8", "INT16", "INT32", "INT64", "BOOL", "QUINT8", "QINT8", "QINT32", "QUINT4_2",
)  # fmt: skip
_ATTRIBUTES = ("PARAMETER", "BUFFER")

_Field = descriptor_pb2.FieldDescriptorProto

# Message, then (field, number, type or name of a type, how it stands there).
_MESSAGES = {
    "Tensor": (
        ("dtype", 1, "Dtype", ""),
        ("shape", 2, _Field.TYPE_INT64, "repeated"),
        ("data", 3, _Field.TYPE_BYTES, ""),
        ("attr_type", 4, "AttributeType", "optional"),
    ),
    "Attribute": (
        ("name", 1, _Field.TYPE_STRING, ""),
        ("module", 3, "Module", "oneof"),
        ("tensor", 4, "Tensor", "oneof"),
        ("string", 5, _Field.TYPE_STRING, "oneof"),
        ("int64", 6, _Field.TYPE_INT64, "oneof"),
        ("float", 7, _Field.TYPE_FLOAT, "oneof"),
        ("bool", 8, _Field.TYPE_BOOL, "oneof"),
    ),
    "Module": (
        ("name", 1, _Field.TYPE_STRING, ""),
        ("names", 2, _Field.TYPE_STRING, "repeated"),
        ("attributes", 3, "Attribute", "repeated"),
    ),
}
_ENUMS = {"Dtype": ("DT_", _DTYPES), "AttributeType": ("AT_", _ATTRIBUTES)}


def _add_field(message: Any, name: str, number: int, kind: Any, how: str) -> None:
    repeated = how == "repeated"
    field = message.field.add(
        name=name,
        number=number,
        label=_Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL,
    )
    if isinstance(kind, str):
        field.type = _Field.TYPE_ENUM if kind in _ENUMS else _Field.TYPE_MESSAGE
        field.type_name = f".tensors.{kind}"
    else:
        field.type = kind
    if how in ("oneof", "optional"):
        if how == "optional":
            field.proto3_optional = True
        if how == "optional" or not message.oneof_decl:
            message.oneof_decl.add(name="value" if how == "oneof" else f"_{name}")
        field.oneof_index = 0


def _file() -> Any:
    file = descriptor_pb2.FileDescriptorProto(
        name="tensors.proto", package="tensors", syntax="proto3"
    )
    for enum, (prefix, names) in _ENUMS.items():
        made = file.enum_type.add(name=enum)
        for number, name in enumerate(names):
            made.value.add(name=prefix + name, number=number)
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field in fields:
            _add_field(message, *field)
    return file


_pool = descriptor_pool.DescriptorPool()
_pool.Add(_file())
DESCRIPTOR = _pool.FindFileByName("tensors.proto")


def _message(name: str) -> Any:
    return message_factory.GetMessageClass(DESCRIPTOR.message_types_by_name[name])


Tensor = _message("Tensor")
Attribute = _message("Attribute")
Module = _message("Module")
Dtype: Any = enum_type_wrapper.EnumTypeWrapper(DESCRIPTOR.enum_types_by_name["Dtype"])
AttributeType: Any = enum_type_wrapper.EnumTypeWrapper(
    DESCRIPTOR.enum_types_by_name["AttributeType"]
)
for _enum in (Dtype, AttributeType):
    globals().update(_enum.items())
