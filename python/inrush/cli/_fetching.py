"""Bringing remote checkpoints here, without keeping them in memory."""

from __future__ import annotations

import os
from typing import Any

import inrush
from inrush._arguments import WHOLE
from inrush._checkpoint import place_of
from inrush._errors import MemoryBudgetError
from inrush._job import Job
from inrush._options import Options
from inrush._storage import hub_for
from inrush.cli._progress import progress_bar


def fetch(source: str, words: dict[str, Any]) -> tuple[str, list[tuple[str, int]]]:
    """Reads all of a checkpoint, opened with these words; its URI and its files."""
    with inrush.open(source, **{**WHOLE, **words}) as checkpoint:
        with progress_bar("fetching") as report:
            options = Options({"progress": report, "framework": None}, checkpoint._options)
            with Job(checkpoint._opened(), options, collect=False) as job:
                job.confirms = True
                for _ in job:
                    pass
        return checkpoint.uri, checkpoint.files


def fetch_from_hub(source: str, words: dict[str, Any] | None = None) -> tuple[str, list[str]]:
    """Brings a checkpoint of the Hub into huggingface_hub's cache; its URI and the files there.

    Parameters
    ----------
    words : dict, optional
        As for `inrush.open`.

    Raises
    ------
    MemoryBudgetError
        It could not be kept as a whole.
    """
    from inrush._hub import parse_place

    uri, files = fetch(source, words or {})
    inrush.open(source).close()  # fetches what no load reads
    place = place_of(source)
    snapshot = hub_for(None, [place]).resolve(parse_place(os.fsdecode(place)))
    here = {f"{snapshot.shown}/{file.name}": file.path for file in snapshot.files}
    missing = [name for name, _ in files if not here.get(name)]
    if missing:
        raise MemoryBudgetError(
            f"fetch {uri}: {len(missing)} of {len(files)} files are not whole in the cache "
            f"{snapshot.folder}: is the disk full?"
        )
    return uri, [here[name] for name, _ in files]
