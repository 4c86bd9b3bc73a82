"""The tensors that a file's index names."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping

from inrush._tensors_file import LinesIndex
from inrush._tensors_paths import check_paths, decode_path, layers_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any

    from inrush._tensors_file import Line
    from inrush._tensors_paths import Path
    from inrush.tensorizer._types import FilterFuncType


class Lines(Mapping["Path", "Line"]):
    """Lines by their paths, each read when it is asked for.

    Parameters
    ----------
    head, index : bytes
        As `LinesIndex` takes them.

    Raises
    ------
    ValueError
        A tensor stands in another one's way.
    """

    def __init__(self, head: bytes, index: bytes) -> None:
        self._index = LinesIndex(head, index)
        paths: Iterable[Any] = self._index.paths
        if not self._index.flat:
            paths = map(decode_path, paths)
        self._numbers: dict[Path, int] = dict(zip(paths, itertools.count()))
        self._read: dict[Path, Line] = {}
        if not self._index.flat:
            check_paths(self._numbers)

    def only(self, wanted: FilterFuncType) -> Lines:
        """Those whose paths are wanted."""
        self._numbers = {path: i for path, i in self._numbers.items() if wanted(path)}
        return self

    @functools.cached_property
    def layers(self) -> Mapping[Any, Any]:
        """What has their first parts as its keys, in order."""
        return self._numbers if self._index.flat else layers_of(self._numbers)

    def below(self, name: Any) -> Sequence[Path]:
        """The paths that begin with this part.

        Raises
        ------
        KeyError, TypeError
            There is none.
        """
        below = self.layers[name]
        return (name,) if self._index.flat else below

    def number(self, path: Path) -> int:
        """Which line of the file it is, from 0."""
        return self._numbers[path]

    def __getitem__(self, path: Path) -> Line:
        line = self._read.get(path)
        if line is None:
            line = self._read[path] = self._index.line(self._numbers[path])
        return line

    def __iter__(self) -> Iterator[Path]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)

    def __contains__(self, path: object) -> bool:
        return path in self._numbers
