"""Names in tensorizer's files: text, or the way through nested dictionaries and lists."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    Path = str | tuple[str | int, ...]

STRUCTURED = b"\x1e"  # what a path of several parts begins with


def encode_path(path: Path) -> bytes:
    """As it stands in a file.

    Raises
    ------
    ValueError
        For an empty name, and for one that readers would take for a structure.
    """
    if isinstance(path, str):
        name = path.encode()
        if not name or name.startswith(STRUCTURED):
            raise ValueError(f"name {path!r}: empty, or begins with 0x1E")
        return name
    if not path:
        raise ValueError("a path without parts")
    if len(path) == 1 and isinstance(path[0], str):
        return encode_path(path[0])
    return STRUCTURED + json.dumps(path, separators=(",", ":")).encode()


def check_parts(path: Any) -> None:
    """Raise TypeError for what is neither text nor a tuple of text and numbers from 0 on."""
    if isinstance(path, str):
        return
    parts = path if isinstance(path, tuple) else ()
    if not parts or not all(isinstance(part, str) or _is_number(part) for part in parts):
        raise TypeError(f"name {path!r}: neither text nor a tuple of text and numbers")


def _is_number(part: Any) -> bool:
    return isinstance(part, int) and not isinstance(part, bool) and part >= 0


def decode_path(raw: str | bytes) -> Path:
    """From how it stands in a file."""
    if isinstance(raw, str):
        return raw
    if not raw.startswith(STRUCTURED):
        return raw.decode()
    parts = tuple(json.loads(raw[1:]))
    return parts[0] if len(parts) == 1 and isinstance(parts[0], str) else parts


def flatten(state: Any, way: tuple[str | int, ...] = ()) -> Iterator[tuple[Path, Any]]:
    """(path, tensor) of nested dictionaries, lists and tuples.

    Raises
    ------
    TypeError
        For a key that is no text, and for a leaf that is no tensor.
    """
    import torch

    if isinstance(state, torch.Tensor):
        yield (way[0] if len(way) == 1 and isinstance(way[0], str) else way), state
    elif isinstance(state, Mapping):
        for key, value in state.items():
            if not isinstance(key, str):
                raise TypeError(f"key {key!r} below {way}: only text can be a key")
            yield from flatten(value, (*way, key))
    elif isinstance(state, Sequence) and not isinstance(state, (str, bytes, bytearray)):
        for i, value in enumerate(state):
            yield from flatten(value, (*way, i))
    else:
        raise TypeError(f"at {way}: a {type(state).__name__} is no tensor")


class TakenPaths:
    """Paths of which none stands in another one's way.

    Parameters
    ----------
    below : TakenPaths, optional
        Others that are taken already. They stay as they are.
    """

    def __init__(self, below: TakenPaths | None = None) -> None:
        self._below = below
        self._layers: dict[tuple[Any, ...], type] = {}
        self._leaves: set[tuple[Any, ...]] = set()

    def _is_leaf(self, way: tuple[Any, ...]) -> bool:
        return way in self._leaves or (self._below is not None and self._below._is_leaf(way))

    def _kind_below(self, way: tuple[Any, ...]) -> type | None:
        """Of what stands directly below, if anything does."""
        kind = self._layers.get(way)
        return kind if kind is not None or self._below is None else self._below._kind_below(way)

    def add(self, path: Path) -> None:
        """Raise ValueError where the path or what is above it is taken."""
        way = way_of(path)
        if self._is_leaf(way) or self._kind_below(way) is not None:
            raise ValueError(f"Conflicting tensor paths: {path!r} is there already")
        self._leaves.add(way)
        for depth in range(len(way)):
            above, kind = way[:depth], type(way[depth])
            if self._is_leaf(above) or (self._kind_below(above) or kind) is not kind:
                raise ValueError(f"Conflicting tensor paths: {path!r} and what is above it")
            self._layers[above] = kind


def check_paths(paths: Iterable[Path], below: TakenPaths | None = None) -> None:
    """Raise ValueError where a tensor would stand in another one's way."""
    every = list(paths)
    flat = below is None and all(isinstance(path, str) for path in every)
    if flat and len(set(every)) == len(every):
        return
    taken = TakenPaths(below)
    for path in every:
        taken.add(path)


def way_of(path: Path) -> tuple[str | int, ...]:
    """Its parts."""
    return (path,) if isinstance(path, str) else path


def layers_of(paths: Iterable[Path]) -> dict[Any, list[Path]]:
    """The paths by their first parts, in order."""
    layers: dict[Any, list[Path]] = {}
    for path in paths:
        layers.setdefault(path if isinstance(path, str) else path[0], []).append(path)
    return layers


def nest(flat: Mapping[Path, Any]) -> dict[Any, Any]:
    """The structure with these leaves, as nested dictionaries."""
    root: dict[Any, Any] = {}
    for path, value in flat.items():
        way = way_of(path)
        here = root
        for part in way[:-1]:
            here = here.setdefault(part, {})
        here[way[-1]] = value
    return root


def frozen(value: Any) -> Any:
    """The same with read-only mappings."""
    if not isinstance(value, dict):
        return value
    return MappingProxyType({key: frozen(below) for key, below in value.items()})


def plain(value: Any) -> Any:
    """The same with lists where the keys are numbers."""
    if not isinstance(value, dict):
        return value
    below = {key: plain(one) for key, one in value.items()}
    return list(below.values()) if isinstance(next(iter(below), ""), int) else below
