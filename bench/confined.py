"""A load in a memory cgroup with little more room than its tensors, beside one outside."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench import contenders, pages
from bench.child import Task
from bench.fixtures import MIB
from bench.measure import forget_loads
from bench.places import Place, Unavailable
from bench.processes import Failed, start_alone

ROOT = Path("/sys/fs/cgroup")
BUDGET = 256 * MIB
SPARE = 150 * MIB


def confined(place: Place, native: str, rounds: int) -> dict[str, Any]:
    """Median seconds inside and outside, and of their paired ratios; cold, alternating.

    The interpreter is inside too. It imports no torch, which alone is larger than the spare room.

    Raises
    ------
    Unavailable
        If there is no Inrush, or no cgroup can be made here.
    """
    if contenders.version("inrush") is None:
        raise Unavailable("inrush is not installed")
    options = {"framework": None, "budget": BUDGET}
    task = Task(
        "inrush",
        str(place.folder),
        options=options,
        env={"INRUSH_PROFILE": "off"},
        native=native,
    )
    limit = place.size + BUDGET + SPARE
    inside: list[float] = []
    outside: list[float] = []
    said: dict[str, Any] = {}
    for _ in range(rounds):
        with memory_cgroup(limit) as group:
            found = load(task, place, group)
            inside.append(found["seconds"])
            said = {"choice": found.get("choice"), "peak": read_peak(group)}
        outside.append(load(task, place, None)["seconds"])
    ratios = [free / tight for tight, free in zip(inside, outside, strict=True)]
    return {
        "limit": limit,
        "seconds": statistics.median(inside),
        "free_seconds": statistics.median(outside),
        "rate_of_free": statistics.median(ratios),
        **said,
    }


def load(task: Task, place: Place, group: Path | None) -> dict[str, Any]:
    def join() -> None:
        if group:
            (group / "cgroup.procs").write_text(str(os.getpid()))

    forget_loads()
    process = start_alone(task, join)
    process.wait_ready()
    pages.put(place.files, "cold")
    process.go()
    try:
        return process.result()
    except Failed as error:
        if group is None:
            raise
        raise Failed(f"in a cgroup: {error}") from error


@contextmanager
def memory_cgroup(limit: int) -> Iterator[Path]:
    """A cgroup, version 1 or 2, of its own that may hold ``limit`` bytes; removed afterwards."""
    legacy = (ROOT / "memory").is_dir()
    parent = ROOT / "memory" if legacy else ROOT
    group = parent / f"inrush-bench-{os.getpid()}"
    try:
        if not legacy and "memory" not in (ROOT / "cgroup.subtree_control").read_text().split():
            (ROOT / "cgroup.subtree_control").write_text("+memory")
        group.mkdir(exist_ok=True)
        knob = "memory.limit_in_bytes" if legacy else "memory.max"
        (group / knob).write_text(str(limit))
    except OSError as error:
        raise Unavailable(f"no memory cgroup can be made here: {error}") from error
    try:
        yield group
    finally:
        remove(group)


def remove(group: Path) -> None:
    """The last process may still be leaving, which takes the kernel a moment."""
    for _ in range(100):
        try:
            group.rmdir()
            return
        except OSError:
            time.sleep(0.02)


def read_peak(group: Path) -> int:
    for name in ("memory.max_usage_in_bytes", "memory.peak"):
        if (group / name).exists():
            return int((group / name).read_text())
    return 0
