"""tensorizer's first format: one Protocol Buffers message that holds a module."""

from __future__ import annotations

import torch

from inrush.tensorizer import tensors_pb2
from inrush.tensorizer._devices import bytes_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, BinaryIO

DtypePbs = {
    getattr(torch, name): tensors_pb2.Dtype.Value("DT_" + code)
    for name, code in (
        ("float32", "FLOAT32"), ("float64", "FLOAT64"), ("float16", "FLOAT16"),
        ("bfloat16", "BFLOAT16"), ("complex32", "COMPLEX32"), ("complex64", "COMPLEX64"),
        ("complex128", "COMPLEX128"), ("uint8", "UINT8"), ("int8", "INT8"), ("int16", "INT16"),
        ("int32", "INT32"), ("int64", "INT64"), ("bool", "BOOL"), ("quint8", "QUINT8"),
        ("qint8", "QINT8"), ("qint32", "QINT32"), ("quint4x2", "QUINT4_2"),
    )
}  # fmt: skip
PbDtypes = {code: dtype for dtype, code in DtypePbs.items()}


def serialize_tensor(t: torch.Tensor, attribute: int | None = None) -> Any:
    """The message that says this tensor.

    Parameters
    ----------
    t : torch.Tensor
    attribute : int, optional
        ``AT_PARAMETER`` or ``AT_BUFFER``.

    Raises
    ------
    NotImplementedError
        For a quantised tensor: the message has no room for its scale.
    """
    if t.is_quantized or t.dtype not in DtypePbs:
        raise NotImplementedError(f"tensors of {t.dtype} have no message")
    made = tensors_pb2.Tensor(dtype=DtypePbs[t.dtype], shape=t.shape, data=bytes(bytes_of(t)))
    if attribute is not None:
        made.attr_type = attribute
    return made


def deserialize_tensor(t: Any) -> Any:
    """The tensor that a message says; (tensor, attribute) where it says an attribute.

    Raises
    ------
    ValueError
        If its dtype is not known, or its bytes are not as many as dtype and shape say.
    """
    dtype = PbDtypes.get(t.dtype)
    if dtype is None:
        raise ValueError(f"dtype {t.dtype} is not known")
    shape = list(t.shape)
    wanted = dtype.itemsize
    for length in shape:
        wanted *= length
    if min(shape, default=0) < 0 or wanted != len(t.data):
        raise ValueError(f"{len(t.data)} bytes, but {dtype}{shape} takes {wanted}")
    tensor = torch.empty(shape, dtype=dtype)
    if wanted:
        raw = torch.frombuffer(bytearray(t.data), dtype=torch.uint8)
        tensor.view(-1).view(torch.uint8).copy_(raw)
    return (tensor, t.attr_type) if t.HasField("attr_type") else tensor


def serialize_model(model: torch.nn.Module, file_stream: BinaryIO) -> None:
    """Write the parameters and buffers of a module and of those in it."""
    whole = tensors_pb2.Module(name="")
    for prefix, module in model.named_modules():
        one = whole.attributes.add(name=prefix)
        one.module.SetInParent()
        for kind, named in (
            (tensors_pb2.AttributeType.Value("AT_PARAMETER"), module.named_parameters),
            (tensors_pb2.AttributeType.Value("AT_BUFFER"), module.named_buffers),
        ):
            for name, tensor in named(recurse=False):
                one.module.attributes.add(name=name, tensor=serialize_tensor(tensor, kind))
    file_stream.write(whole.SerializeToString())


def deserialize_model(model: torch.nn.Module, file_stream: BinaryIO) -> None:
    """Put what `serialize_model` wrote into a module of the same structure.

    Raises
    ------
    KeyError
        If the module lacks one of those that were written.
    """
    whole = tensors_pb2.Module()
    whole.ParseFromString(file_stream.read())
    modules: dict[str, Any] = dict(model.named_modules())
    buffer = tensors_pb2.AttributeType.Value("AT_BUFFER")
    for one in whole.attributes:
        module = modules[one.name]
        for attribute in one.module.attributes:
            if attribute.tensor.HasField("attr_type"):
                tensor, kind = deserialize_tensor(attribute.tensor)
                if kind == buffer:
                    module._buffers[attribute.name] = tensor
                else:
                    wants = tensor.is_floating_point() or tensor.is_complex()
                    parameter = torch.nn.Parameter(tensor, requires_grad=wants)
                    module._parameters[attribute.name] = parameter
