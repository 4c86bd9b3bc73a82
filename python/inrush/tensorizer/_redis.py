"""Tensors as the keys of a Redis server, where tensorizer and the engine find them."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from inrush._tensors_file import Line
    from inrush.tensorizer._source import Source

_LARGEST_VALUE = 256 << 20  # bytes; Redis takes at most 512 MiB


def write_tensors(
    client: Any, prefix: str, lines: Iterable[Line], source: Source, *, force: bool
) -> None:
    """Write each tensor under ``PREFIX:NAME:OFFSET``; those that are there only by `force`."""
    for line in lines:
        name = line.path.decode()
        if not force and client.exists(f"{prefix}:{name}:{line.header}"):
            continue
        end = line.data + line.size
        parts = [(line.header, line.data - line.header)]
        parts += [
            (at, min(_LARGEST_VALUE, end - at)) for at in range(line.data, end, _LARGEST_VALUE)
        ]
        # The header last: where it is, the tensor is.
        for at, size in reversed(parts):
            client.set(f"{prefix}:{name}:{at}", source.read(at, size))
