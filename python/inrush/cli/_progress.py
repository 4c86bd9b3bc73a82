"""A progress bar with GB/s on stderr, only where stderr is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from inrush.cli._common import rate_text, size_text

Report = Callable[[int, int, float], object]


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
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=None, moved="", rate="")

        def report(done: int, total: int, seconds: float) -> None:
            rate = done / seconds if seconds > 0 else 0.0
            moved = f"{size_text(done)} of {size_text(total)}"
            bar.update(task, completed=done, total=total, moved=moved, rate=rate_text(rate))

        yield report
