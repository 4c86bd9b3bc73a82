"""The two dialects of ServerlessLLM's layout: an index, and partitions that hold the tensors."""

from __future__ import annotations

import heapq
import json

from inrush._dtypes import FRAMEWORK_NAMES
from inrush._errors import UsageError
from inrush._layouts import Item, Layout, Place, refuse
from inrush._slicing import strides_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

DIALECTS = ("original", "tensora")

# All that sllm_store can give back, and all that Tensora has a word for.
_DTYPES = {
    "original": {
        name: f"torch.{FRAMEWORK_NAMES[name]}"
        for name in ("F16", "F32", "F64", "I16", "I32", "I64", "U8", "I8", "BF16")
    },
    "tensora": {
        name: name.lower()
        for name in (
            "U8", "I8", "I16", "U16", "F16", "F32", "F64", "I32", "I64", "U32", "U64", "BF16",
        )
    } | {"BOOL": "bool"},
}  # fmt: skip
_PARTITION = 10 << 30  # bytes, as sllm_store fills them
_PAGE = 4096  # what readers past the page cache need the size of a file to be a multiple of
_ALIGNMENT = 256  # bytes: of a tensor in a partition


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


def serverless_layout(
    items: Iterable[Item], *, shard_size: int, dialect: str = "original"
) -> Layout:
    """What sllm_store reads, and does not read short; or what Tensora reads.

    Tensors called ``rank_N/...`` go into the folder rank_N.

    Parameters
    ----------
    items : iterable of Item
    shard_size : int
        Most bytes of a partition; 0 for 10 GiB, as sllm_store has it.
    dialect : {'original', 'tensora'}
    """
    folders: dict[str, list[Item]] = {}
    for item in items:
        if item.encoding not in ("", "zeros", "secretbox") or item.dtype not in _DTYPES[dialect]:
            kind = item.encoding or item.dtype
            raise refuse(item, "ServerlessLLM", f"cannot restore {kind}")
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
    add = _add_balanced if dialect == "tensora" else _add_partitions
    for folder, members in folders.items():
        add(layout, folder, members, shard_size or _PARTITION)
    return layout


def _add_partitions(layout: Layout, folder: str, items: Sequence[Item], largest: int) -> None:
    """Filled one after the other; offsets count all of them, and no file ends within a page."""
    dtypes = _DTYPES["original"]
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
            base + begin, item.nbytes, item.shape, strides_of(item.shape), dtypes[item.dtype],
        ]  # fmt: skip
    _close(layout, f"{folder}tensor.data_{number}", used)
    layout.add_text(f"{folder}tensor_index.json", json.dumps(index))


def _close(layout: Layout, file: str, used: int) -> int:
    # Readers know where the next partition begins by the size of the file: zeros count.
    size = max(used + -used % _PAGE, _PAGE)
    layout.sizes[file] = size
    return size


def _add_balanced(layout: Layout, folder: str, items: Sequence[Item], largest: int) -> None:
    """As Tensora does it: the largest tensors first, each to the partition that has least yet.

    They lie close together, offsets count one partition, and what serde_json writes is the index.
    Where one had more than `largest` bytes so, there is one more partition.
    """
    dtypes = _DTYPES["tensora"]
    total = sum(item.nbytes for item in items)
    count = max(1, min(-(-total // largest), sum(item.nbytes > 0 for item in items)))
    filled = [(0, number) for number in range(count)]  # a heap
    index: dict[str, object] = {}
    for item in sorted(items, key=lambda item: (-item.nbytes, item.name)):
        begin, number = filled[0]
        if begin and begin + item.nbytes > largest:
            begin, number = 0, len(filled)
            heapq.heappush(filled, (item.nbytes, number))
        else:
            heapq.heapreplace(filled, (begin + item.nbytes, number))
        layout.places[item.name] = Place(f"{folder}tensor.data_{number}", begin, item.nbytes)
        index[item.name.removeprefix(folder)] = [
            begin, item.nbytes, item.shape, strides_of(item.shape), dtypes[item.dtype], number,
        ]  # fmt: skip
    for size, number in filled:
        layout.sizes[f"{folder}tensor.data_{number}"] = size
    text = json.dumps(index, ensure_ascii=False, indent=2, sort_keys=True)
    layout.add_text(f"{folder}tensor_index.json", text)
