"""How tensors stand in the `.tensors` files that they come from, to be written so again.

The index tells all but the number of a tensor's module, which stands in its record.
"""

from __future__ import annotations

import concurrent.futures
import os

from inrush import _core
from inrush._checkpoint import place_of
from inrush._errors import DataError, Error, UsageError
from inrush._storage import storage_for
from inrush._tensors_file import HEAD_SIZE, LinesIndex
from inrush._tensors_paths import check_paths, decode_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Any

    from inrush._tensors_file import Line

_COMPLEX128 = "<c16"
_NEAR = 64 << 10  # bytes between two that are rather read with them
_GROUP = 4 << 20  # bytes that are read at once for the few of a record that are wanted
_WIDTH = 16  # reads at once, which are round trips where the file is far away


class Kept:
    """What a `.tensors` file says of a tensor beside its bytes.

    Attributes
    ----------
    path : bytes
        As it stands in the file.
    kind, module : int
    dtype : str
        As it stands in the file; '' where the tensor is cast.
    shape : tuple of int
        As torch counts elements.
    meta : bool
        It has elements, and no bytes.
    """

    __slots__ = ("dtype", "kind", "meta", "module", "path", "shape")

    def __init__(self, line: Line) -> None:
        self.path = line.path
        self.kind = line.kind
        self.module = 0
        self.dtype = line.dtype
        self.shape = line.shape
        self.meta = line.size == 0 and 0 not in line.shape

    @property
    def torch_name(self) -> str:
        """``'torch.complex32'``; '' for what numpy has a name for, but for complex128."""
        if self.dtype == _COMPLEX128:
            return "torch.complex128"
        return self.dtype.partition("\0")[2]


def kept_of(
    checkpoint: _core.Checkpoint, source: Any, options: Mapping[str, Any] | None, *, modules: bool
) -> dict[str, Kept]:
    """What the files of a checkpoint of tensorizer's say, by the checkpoint's names.

    Parameters
    ----------
    checkpoint : _core.Checkpoint
    source : str, os.PathLike or iterable of them
        What it was opened by.
    options : mapping, optional
        Of remote places.
    modules : bool
        Whether the numbers of modules are wanted.

    Raises
    ------
    DataError
        A file is another one than the checkpoint was opened from.
    SourceError
        It cannot be read.
    """
    files: dict[str, list[_core.TensorInfo]] = {name: [] for name, _ in checkpoint.files}
    for name in checkpoint.names():
        info = checkpoint.find(name)
        assert info is not None
        files[info.file].append(info)
    kept: dict[str, Kept] = {}
    for name, infos in files.items():
        file = _open(name, source, options, alone=len(files) == 1)
        lines = _lines_of(file)
        # A name need not be the path with dots, and the way back from it is not known. But a file's
        # records lie in the order of its lines, each with a header before its bytes: so the names
        # of a checkpoint, which are in file order, come in the order of the lines.
        if [line.data for line in lines] != [info.offset for info in infos]:
            raise DataError(f"convert: {name} changed while it was opened")
        found = [Kept(line) for line in lines]
        if modules:
            _add_modules(file, lines, found)
        kept.update(zip((info.name for info in infos), found, strict=True))
    return kept


def _open(name: str, source: Any, options: Mapping[str, Any] | None, *, alone: bool) -> _core.File:
    if alone and isinstance(source, (str, os.PathLike)):
        # A URI may have secrets, which the names of files are shown without; or be of a folder.
        try:
            return _open_one(place_of(source), options)
        except Error:
            pass
    return _open_one(os.fsencode(name), options)


def _open_one(place: bytes, options: Mapping[str, Any] | None) -> _core.File:
    return _core.File.open(place, storage_for([place], options if b"://" in place else None))


def _read(file: _core.File, offset: int, size: int) -> bytes:
    data = bytearray(size)
    if size:
        file.read(offset, _core.buffer_address(data), size)
    return bytes(data)


def _lines_of(file: _core.File) -> list[Line]:
    head = _read(file, 0, min(HEAD_SIZE, file.size))
    index_size = int.from_bytes(head[-8:], "little")
    if len(head) < HEAD_SIZE or index_size > file.size - HEAD_SIZE:
        raise DataError(f"convert: {file.name} changed while it was opened")
    index = LinesIndex(head, _read(file, HEAD_SIZE, index_size))
    return [index.line(i) for i in range(len(index.paths))]


def _add_modules(file: _core.File, lines: Sequence[Line], kept: Sequence[Kept]) -> None:
    groups = list(_in_groups([line.header + 8 for line in lines]))

    def read(group: Sequence[int]) -> bytes:
        return _read(file, group[0], group[-1] + 2 - group[0])

    numbers: list[int] = []
    with concurrent.futures.ThreadPoolExecutor(_WIDTH) as pool:
        for group, data in zip(groups, pool.map(read, groups), strict=True):
            begins = (place - group[0] for place in group)
            numbers += (int.from_bytes(data[at : at + 2], "little") for at in begins)
    for one, number in zip(kept, numbers, strict=True):
        one.module = number


def _in_groups(places: Iterable[int]) -> Iterator[list[int]]:
    group: list[int] = []
    for place in places:
        if group and (place - group[-1] > _NEAR or place - group[0] > _GROUP):
            yield group
            group = []
        group.append(place)
    if group:
        yield group


def check_together(kept: Iterable[Kept]) -> None:
    """Raise UsageError where paths of several files make no structure together."""
    try:
        check_paths(decode_path(one.path) for one in kept)
    except ValueError as error:
        raise UsageError(
            f"convert: in one file a tensor stands in the way of others: {error}"
        ) from None
