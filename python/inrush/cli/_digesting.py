"""Reading every byte of a checkpoint, for commands that want its digests."""

from __future__ import annotations

from inrush import _core
from inrush._checkpoint import open_source
from inrush._manifest import Digested
from inrush._options import Options, environment
from inrush.cli._common import encryption_words, load_words, one_or_several
from inrush.cli._progress import progress_bar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def read_all(
    sources: list[str],
    doing: str,
    keys: tuple[str | None, str | None, str | None],
    *,
    by_all: bool = False,
    **flags: Any,
) -> tuple[_core.Checkpoint, Digested]:
    """Open and read what the flags say; `keys` are as `encryption_words` takes them.

    With `by_all` the files' own checksums are compared where they have some and nobody said
    whether they should be.
    """
    options = Options(load_words(**flags, **encryption_words(*keys)))
    checkpoint = open_source(one_or_several(sources), options)
    unsaid = flags.get("verify") is None and environment("verify") is None
    if by_all and unsaid and _core.has_checksums(checkpoint):
        options = Options({"verify": "full"}, options)
    with progress_bar(doing) as report:
        return checkpoint, Digested(checkpoint, report, options)
