"""A progress bar with GB/s on stderr, only where stderr is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from inrush.cli._common import rate_text, size_text

Report = Callable[[int, int, float, list[dict[str, Any]]], object]


def sources_text(sources: list[dict[str, Any]]) -> str:
    """What each of several places gives, and what had to be asked for again."""
    parts = []
    if len(sources) > 1:
        parts = [
            "given up" if source["given_up"] else rate_text(source["gb_per_s"] * 1e9)
            for source in sources
        ]
    text = " + ".join(parts)
    for word in ("retries", "hedges"):
        if count := sum(source[word] for source in sources):
            text += f"{', ' if text else ''}{count} {word}"
    return f"({text})" if text else ""


@contextmanager
def progress_bar(label: str) -> Iterator[Report | None]:
    """A progress callback for a load, or None where nobody would see it."""
    if not sys.stderr.isatty():
        yield None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[moved]}"),
        TextColumn("[bold]{task.fields[rate]}"),
        TextColumn("{task.fields[sources]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=None, moved="", rate="", sources="")

        def report(done: int, total: int, seconds: float, sources: list[dict[str, Any]]) -> None:
            bar.update(
                task,
                completed=done,
                total=total,
                moved=f"{size_text(done)} of {size_text(total)}",
                rate=rate_text(done / seconds if seconds > 0 else 0.0),
                sources=sources_text(sources),
            )

        yield report
