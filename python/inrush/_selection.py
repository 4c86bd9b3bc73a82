"""From options to what the engine is asked for."""

from __future__ import annotations

import itertools

from inrush import _core
from inrush._errors import UsageError
from inrush._memory import destination

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from inrush._memory import Memory
    from inrush._options import Options, Pattern

_PAGE_CACHE = {
    "auto": _core.PageCache.auto,
    "keep": _core.PageCache.keep,
    "drop": _core.PageCache.drop,
}
# Of copy=False, unless the caller says how much.
_BUFFER_SIZE = 256 << 20

# Of loads of files whose tensors are dropped once seen: small ones stay in the processor's caches.
# Far places need a longer window.
_PASSING_SIZE = 64 << 20

# Of regular expressions.
_SPECIAL = "\\^$.*+?()[]{}|/"

_MAPPING = {"auto": _core.MappingRule.auto, "never": _core.MappingRule.never}


def passing(checkpoint: _core.Checkpoint, budget: int) -> dict[str, Any]:
    """Words for a load whose tensors are dropped once seen: all run through a few blocks.

    Together these have at most the budget, where there is one, or memory for the two largest.
    """
    size = _BUFFER_SIZE if "://" in checkpoint.uri else _PASSING_SIZE
    return {"copy": False, "buffer_size": min(size, budget or size)}


def load_options(
    checkpoint: _core.Checkpoint, options: Options, *, collect: bool, keep: bool = False
) -> _core.LoadOptions:
    """What a `_core.Load` of this checkpoint with these options takes.

    `keep`: the caller keeps every tensor, so none of them is a view of a buffer.
    """
    asked = _core.LoadOptions()
    asked.backend = options.backend
    asked.strict = options.strict
    asked.page_cache = _PAGE_CACHE[options.page_cache]
    asked.mapping = _MAPPING[options.mapping]
    asked.budget = options.budget
    asked.collect = collect
    if options.copy is False and not (collect or keep):
        asked.pool = options.buffer_size or _BUFFER_SIZE
    asked.trace = options.trace
    if isinstance(options.order, list):
        asked.order = _core.Order.given
    elif options.order == "ready":
        asked.order = _core.Order.ready
    selection = _selection(checkpoint, options)
    if selection is not None:
        asked.selections = [selection]
    if options.out:
        _add_out(asked, checkpoint, selection, options.out)
    return asked


def wanted_names(checkpoint: _core.Checkpoint, options: Options) -> list[str]:
    """The names of what options select, in file order."""
    selection = _selection(checkpoint, options)
    if selection is None:
        return checkpoint.names()
    sizes = selection.sizes(checkpoint)
    return [name for name in checkpoint.names() if name in sizes]


def _selection(checkpoint: _core.Checkpoint, options: Options) -> _core.Selection | None:
    """What is wanted; None for everything in file order."""
    names = options.order if isinstance(options.order, list) else []
    if not (names or options.include or options.exclude or options.slices):
        return None
    return _core.select(
        checkpoint,
        include=_plain("include", options.include, checkpoint),
        exclude=_plain("exclude", options.exclude, checkpoint),
        slices=[(pattern, slice_text(index)) for pattern, index in options.slices.items()],
        names=names,
    )


def _plain(word: str, patterns: Sequence[Pattern], checkpoint: _core.Checkpoint) -> list[str]:
    # Predicates are Python's to call; what they accept becomes names.
    plain = []
    for pattern in patterns:
        if isinstance(pattern, str):
            plain.append(pattern)
        elif callable(pattern):
            accepted = [name for name in checkpoint.names() if pattern(name)]
            if not accepted and word == "include":
                raise UsageError(f"include: {pattern!r} accepts none of {len(checkpoint)} tensors")
            plain += map(exactly, accepted)
        else:
            raise UsageError(f"{word}: {pattern!r} is neither a pattern nor a predicate")
    return plain


def exactly(name: str) -> str:
    """The pattern of the tensor with this very name, which may look like an expression."""
    if not name.startswith("re:"):
        return name
    return "re:^" + "".join("\\" + one if one in _SPECIAL else one for one in name) + "$"


def slice_text(index: Any) -> str:
    """A slice, or a tuple of them, in the notation of the command line: ``'0:512:, ::2'``."""
    if isinstance(index, str):
        return index
    parts = index if isinstance(index, tuple) else (index,)
    texts = []
    for part in parts:
        if not isinstance(part, slice):
            raise UsageError(f"slices: {part!r} is no slice; one index is written slice(5, 6)")
        bounds = (part.start, part.stop, part.step)
        texts.append(":".join("" if bound is None else str(int(bound)) for bound in bounds))
    return ", ".join(texts)


def _add_out(
    asked: _core.LoadOptions,
    checkpoint: _core.Checkpoint,
    selection: _core.Selection | None,
    out: Any,
) -> None:
    sizes = None if selection is None else selection.sizes(checkpoint)
    shapes = {} if selection is None else selection.shapes(checkpoint)
    memories: dict[str, Memory] = {}
    for name, array in out.items():
        info = checkpoint.find(name)
        size = info.nbytes if info is not None and sizes is None else (sizes or {}).get(name)
        if info is None or size is None:
            raise UsageError(f"out[{name!r}]: no tensor of that name is loaded")
        shape = shapes.get(name, info.shape)
        memories[name] = destination(name, array, info.dtype, size, shape)
    _refuse_overlap(memories)
    for name, memory in memories.items():
        asked.add_out(name, memory.address, memory.nbytes, memory.owner, memory.device)


def _refuse_overlap(memories: Mapping[str, Memory]) -> None:
    # What is read into two tensors' memory at once is right for one of them at most.
    spans = sorted(
        (memory.device, memory.address, memory.address + memory.nbytes, name)
        for name, memory in memories.items()
        if memory.nbytes
    )
    for (device, _, end, name), (other_device, start, _, other) in itertools.pairwise(spans):
        if device == other_device and start < end:
            raise UsageError(f"out[{name!r}] and out[{other!r}] share memory")
