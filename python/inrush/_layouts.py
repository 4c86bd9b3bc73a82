"""Where the tensors of a checkpoint stand in the files of another format that it is written as.

A layout is settled before anything is written: how long each file is, what it begins with, where
each tensor goes. Tensors may then come in any order.
"""

from __future__ import annotations

import json

from inrush import _core
from inrush._dtypes import PACKED
from inrush._errors import UsageError
from inrush._saving import seal_of
from inrush._tensors_file import (
    HEAD_SIZE,
    INDEX_SIZE,
    OPAQUE,
    PLAIN,
    Record,
    head_of,
    version_of,
)
from inrush._tensors_paths import STRUCTURED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from inrush._kept import Kept
    from inrush._keys import Key
    from inrush._tensors_file import Buffer, Cipher

_LENGTH_SIZE = 8  # bytes that begin a header of safetensors
# Bytes of an element of those of torch's types that safetensors lacks; 1 of all others.
_ELEMENTS = {"torch.complex128": 16, "torch.complex32": 4, "torch.bits16": 2}


class Item:
    """A tensor that will be written.

    Attributes
    ----------
    name, dtype : str
        The dtype as safetensors names it.
    shape : tuple of int
    nbytes : int
    encoding : str
        As of `TensorInfo`: '' for plain bytes of the dtype.
    kept : Kept, optional
        How it stands in the ``.tensors`` file that it comes from.
    """

    __slots__ = ("dtype", "encoding", "kept", "name", "nbytes", "shape")

    def __init__(
        self, name: str, dtype: str, shape: Sequence[int], nbytes: int, encoding: str = ""
    ) -> None:
        self.kept: Kept | None = None
        self.name = name
        self.dtype = dtype
        self.shape = tuple(shape)
        self.nbytes = nbytes
        self.encoding = encoding


class Place:
    """Where a tensor goes; `pieces` are what is written there once its bytes are known."""

    __slots__ = ("file", "offset", "record", "size")

    def __init__(
        self, file: str, offset: int, size: int, record: Record | SealedTensor | None = None
    ) -> None:
        self.file = file
        self.offset = offset
        self.size = size
        self.record = record

    @property
    def is_empty(self) -> bool:
        """Whether none of the tensor's bytes stand there, as of a meta tensor."""
        return isinstance(self.record, Record) and self.record.size == 0

    def pieces(self, data: memoryview) -> list[tuple[int, Buffer]]:
        """(offset in the file, bytes) to be written."""
        if self.record is None:
            return [(self.offset, data)]
        header, stored = self.record.encode(data)
        return [(self.offset, header), (self.offset + len(header), stored)]


class SealedTensor:
    """A tensor of a sealed file; they are counted in the order of their offsets."""

    def __init__(self, part: _core.SealedPart, number: int) -> None:
        self._part = part
        self._number = number

    def encode(self, data: memoryview) -> tuple[bytes, Buffer]:
        """Nothing before it, and its bytes as they stand in the file: a copy."""
        stored = bytearray(data)
        if stored:
            self._part.encrypt(self._number, _core.buffer_address(stored), len(stored))
        return b"", stored


class Layout:
    """Files of a checkpoint before they are written.

    Attributes
    ----------
    sizes : dict of str to int
        Bytes of each file, by its name in the folder.
    fixed : list of (str, int, bytes)
        (file, offset, bytes) that do not depend on the tensors' bytes.
    places : dict of str to Place
        By the tensors' names.
    seals : dict of str to SealedPart
        By file, those whose headers are known when their tensors are written.
    """

    def __init__(self) -> None:
        self.sizes: dict[str, int] = {}
        self.fixed: list[tuple[str, int, bytes]] = []
        self.places: dict[str, Place] = {}
        self.seals: dict[str, _core.SealedPart] = {}

    def add_text(self, file: str, text: str) -> None:
        """A file that is text."""
        data = text.encode()
        self.sizes[file] = len(data)
        self.fixed.append((file, 0, data))


def refuse(item: Item, to: str, why: str) -> UsageError:
    """The error that a format cannot say this tensor."""
    return UsageError(f"convert {item.name!r}: {to} {why}; leave it out with exclude")


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def safetensors_layout(
    items: Iterable[Item],
    *,
    shard_size: int,
    metadata: Mapping[str, str] | None,
    file: str | None,
    key: Key | None = None,
) -> Layout:
    """Files as safetensors and transformers name them; tensors stay in their order over the shards.

    Parameters
    ----------
    items : iterable of Item
    shard_size : int
        Most bytes of tensors in a file; 0 for one file.
    metadata : mapping, optional
    file : str, optional
        The name of the one file; None for a folder.
    key : Key, optional
        Seal the files with it.
    """
    shards: list[list[Item]] = [[]]
    filled = 0
    for item in items:
        if item.encoding not in ("", "zeros", "secretbox"):
            raise refuse(item, "safetensors", f"has no type for {item.encoding}")
        if shard_size and shards[-1] and filled + item.nbytes > shard_size:
            shards.append([])
            filled = 0
        shards[-1].append(item)
        filled += item.nbytes
    if file is not None and len(shards) > 1:
        raise UsageError(f"convert: {file!r} is one file, and shard_size wants {len(shards)}")
    layout = Layout()
    options = seal_of(key)
    sealer = None if options is None else _core.Sealer(options, len(shards))
    for number, shard in enumerate(shards, 1):
        name = file or _shard_name(number, len(shards))
        _add_safetensors(layout, name, shard, metadata, sealer)
    if len(shards) > 1:
        weight_map = {name: place.file for name, place in sorted(layout.places.items())}
        total = sum(item.nbytes for shard in shards for item in shard)
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        layout.add_text("model.safetensors.index.json", json.dumps(index, indent=2) + "\n")
    return layout


def _shard_name(number: int, count: int) -> str:
    return "model.safetensors" if count == 1 else f"model-{number:05}-of-{count:05}.safetensors"


def _add_safetensors(
    layout: Layout,
    file: str,
    items: Iterable[Item],
    metadata: Mapping[str, str] | None,
    sealer: _core.Sealer | None,
) -> None:
    by_name = {item.name: item for item in items}
    tensors = [
        _core.SaveTensor.make(item.name, item.dtype, item.shape, 0, item.nbytes)
        for item in by_name.values()
    ]
    try:
        header, names = _core.safetensors_header(tensors, metadata or None)
    except UsageError as error:
        raise UsageError(f"convert to {file}: {error}") from None
    order = [by_name[name] for name in names]
    start = len(header)
    sealed = None
    if sealer is None:
        layout.fixed.append((file, 0, header))
    else:
        sealed = sealer.begin(header[_LENGTH_SIZE:], [item.nbytes for item in order])
        layout.seals[file] = sealed
        start = sealed.data_start
    layout.sizes[file] = start + sum(item.nbytes for item in order)
    for number, item in enumerate(order):
        record = None if sealed is None else SealedTensor(sealed, number)
        layout.places[item.name] = Place(file, start, item.nbytes, record)
        start += item.nbytes


def tensorizer_layout(items: Sequence[Item], *, file: str, cipher: Cipher | None) -> Layout:
    """One file as tensorizer writes it, byte for byte where nothing is encrypted.

    What comes from a ``.tensors`` file stands there as it stood in it; anything else is a state
    dict. Its index has 256 KiB, and more only where the tensors need it, which tensorizer refuses
    to write and reads.
    """
    records = [_record_of(item, cipher) for item in items]
    meta = any(item.kept is not None and item.kept.meta for item in items)
    version = version_of(records, encrypted=cipher is not None, meta=meta)
    tagged = any(record.long for record in records)
    lines = sum(len(record.line(0, tagged=tagged)) for record in records)
    layout = Layout()
    index_size = max(INDEX_SIZE, lines)
    at = HEAD_SIZE + index_size
    parts = []
    for item, record in zip(items, records, strict=True):
        parts.append(record.line(at, tagged=tagged))
        size = record.header_size + record.size
        layout.places[item.name] = Place(file, at, size, record)
        at += size
    index = b"".join(parts)
    total = sum(record.size for record in records)
    encrypted = cipher is not None
    head = head_of(version, len(records), total, index_size, encrypted=encrypted)
    layout.fixed.append((file, 0, head + index))
    layout.sizes[file] = at + 8
    return layout


def _record_of(item: Item, cipher: Cipher | None) -> Record:
    kept = item.kept
    if kept is not None:
        dtype = kept.dtype or _code_of(item)[0]
        size = 0 if kept.meta else item.nbytes
        return Record(
            kept.path, dtype, kept.shape, size, kind=kept.kind, module=kept.module, cipher=cipher
        )
    dtype, shape = _code_of(item)
    path = item.name.encode()
    if path.startswith(STRUCTURED):
        raise refuse(item, "tensorizer", "reads a name that begins with 0x1E as a structure")
    return Record(path, dtype, shape, item.nbytes, cipher=cipher)


def _code_of(item: Item) -> tuple[str, Sequence[int]]:
    """How tensorizer names its dtype, and its lengths as torch counts elements."""
    if item.encoding.startswith("torch."):
        # Delivered as bytes, with one more dimension where an element has several.
        width = _ELEMENTS.get(item.encoding, 1)
        shape = item.shape if width == 1 else item.shape[:-1]
        if item.encoding == "torch.complex128":
            return f"<c{width}", shape
        return f"{'|' if width == 1 else '<'}V{width}\0{item.encoding}", shape
    if item.encoding not in ("", "zeros", "secretbox"):
        raise refuse(item, "tensorizer", f"has no type for {item.encoding}")
    dtype = PLAIN.get(item.dtype) or OPAQUE.get(item.dtype)
    if dtype is None:
        raise refuse(item, "tensorizer", f"has no type for {item.dtype}")
    if item.dtype in PACKED:
        return dtype, (*item.shape[:-1], item.shape[-1] // PACKED[item.dtype])
    return dtype, item.shape
