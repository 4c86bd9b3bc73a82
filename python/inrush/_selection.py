"""From options to what the engine is asked for."""

from __future__ import annotations

from inrush import _core
from inrush._memory import destination

TYPE_CHECKING = False
if TYPE_CHECKING:
    from inrush._options import Options

_PAGE_CACHE = {
    "auto": _core.PageCache.auto,
    "keep": _core.PageCache.keep,
    "drop": _core.PageCache.drop,
}
_MAPPING = {"auto": _core.MappingRule.auto, "never": _core.MappingRule.never}


def load_options(
    checkpoint: _core.Checkpoint, options: Options, *, collect: bool
) -> _core.LoadOptions:
    """What a `_core.Load` of this checkpoint with these options takes."""
    asked = _core.LoadOptions()
    asked.backend = options.backend
    asked.strict = options.strict
    asked.page_cache = _PAGE_CACHE[options.page_cache]
    asked.mapping = _MAPPING[options.mapping]
    asked.budget = options.budget
    asked.collect = collect
    asked.trace = options.trace
    return asked
