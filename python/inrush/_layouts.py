"""Where the tensors of a checkpoint stand in the files of another format that it is written as.

A layout is settled before anything is written: how long each file is, what it begins with, where
each tensor goes. Tensors may then come in any order.
"""

from __future__ import annotations

import json

from inrush import _core
from inrush._dtypes import FRAMEWORK_NAMES, PACKED
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

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from inrush._kept import Kept
    from inrush._keys import Key
    from inrush._tensors_file import Buffer, Cipher

# All that sllm_store can give back.
_SERVERLESS = {
    name: f"torch.{FRAMEWORK_NAMES[name]}"
    for name in ("F16", "F32", "F64", "I16", "I32", "I64", "U8", "I8", "BF16")
}
_PARTITION = 10 << 30  # bytes, as sllm_store fills them
_LENGTH_SIZE = 8  # bytes that begin a header of safetensors
_PAGE = 4096  # what readers past the page cache need the size of a file to be a multiple of
_ALIGNMENT = 256  # bytes: of a tensor in a partition
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


def _refuse(item: Item, to: str, why: str) -> UsageError:
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
            raise _refuse(item, "safetensors", f"has no type for {item.encoding}")
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


def _strides(shape: Sequence[int]) -> list[int]:
    strides = [1] * len(shape)
    for i in range(len(shape) - 1, 0, -1):
        strides[i - 1] = strides[i] * max(shape[i], 1)
    return strides


def in_ranks(items: Sequence[Item], count: int) -> list[Item]:
    """The tensors named for `count` folders, in their order, each with about as many bytes.

    Parameters
    ----------
    items : sequence of Item
    count : int
        At most as many as there are tensors.
    """
    if count > len(items):
        raise UsageError(f"convert: {count} ranks for {len(items)} tensors: one would have none")
    total = sum(item.nbytes for item in items)
    named = []
    rank = before = 0
    for place, item in enumerate(items):
        due = before * count >= total * (rank + 1) or len(items) - place == count - rank - 1
        if rank + 1 < count and due and place > rank:
            rank += 1
        before += item.nbytes
        name = f"rank_{rank}/{item.name}"
        named.append(Item(name, item.dtype, item.shape, item.nbytes, item.encoding))
    return named


def serverless_layout(items: Iterable[Item], *, shard_size: int) -> Layout:
    """What sllm_store reads, and does not read short: no file ends within a page.

    Tensors called ``rank_N/...`` go into the folder rank_N.

    Parameters
    ----------
    items : iterable of Item
    shard_size : int
        Most bytes of a partition; 0 for 10 GiB, as sllm_store has it.
    """
    folders: dict[str, list[Item]] = {}
    for item in items:
        if item.encoding not in ("", "zeros", "secretbox") or item.dtype not in _SERVERLESS:
            kind = item.encoding or item.dtype
            raise _refuse(item, "ServerlessLLM", f"cannot restore {kind}")
        head, slash, _ = item.name.partition("/")
        ranked = bool(slash) and head.startswith("rank_") and head[5:].isdigit()
        folders.setdefault(head + "/" if ranked else "", []).append(item)
    wanted = {f"rank_{rank}/" for rank in range(len(folders))}
    if folders.keys() - {""} and folders.keys() != wanted:
        raise UsageError(
            f"convert: tensors' names want the folders {sorted(folders)}, and ServerlessLLM's are "
            "all called rank_0, rank_1, ...; leave the others out with exclude"
        )
    layout = Layout()
    for folder, members in folders.items():
        _add_partitions(layout, folder, members, shard_size or _PARTITION)
    return layout


def _add_partitions(layout: Layout, folder: str, items: Iterable[Item], largest: int) -> None:
    index: dict[str, object] = {}
    base = used = number = 0  # the partition's first byte over all of them, and its size so far
    for item in items:
        begin = used + -used % _ALIGNMENT
        if used and begin + item.nbytes > largest:
            base += _close(layout, f"{folder}tensor.data_{number}", used)
            number += 1
            begin = 0
        used = begin + item.nbytes
        file = f"{folder}tensor.data_{number}"
        layout.places[item.name] = Place(file, begin, item.nbytes)
        index[item.name.removeprefix(folder)] = [
            base + begin, item.nbytes, item.shape, _strides(item.shape), _SERVERLESS[item.dtype],
        ]  # fmt: skip
    _close(layout, f"{folder}tensor.data_{number}", used)
    layout.add_text(f"{folder}tensor_index.json", json.dumps(index))


def _close(layout: Layout, file: str, used: int) -> int:
    # Readers know where the next partition begins by the size of the file: zeros count.
    size = max(used + -used % _PAGE, _PAGE)
    layout.sizes[file] = size
    return size


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
    if path.startswith(b"\x1e"):
        raise _refuse(item, "tensorizer", "reads a name that begins with 0x1E as a structure")
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
        raise _refuse(item, "tensorizer", f"has no type for {item.encoding}")
    dtype = PLAIN.get(item.dtype) or OPAQUE.get(item.dtype)
    if dtype is None:
        raise _refuse(item, "tensorizer", f"has no type for {item.dtype}")
    if item.dtype in PACKED:
        return dtype, (*item.shape[:-1], item.shape[-1] // PACKED[item.dtype])
    return dtype, item.shape
