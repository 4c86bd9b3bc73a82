"""One call of the benchmark: what to run with, where results go, what may be skipped."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from bench.fixtures import MIB, Fixture
from bench.measure import Bench, Cell, Entrant
from bench.results import Results
from bench.statistic import median

LEAST = 10 * MIB


@dataclass
class Session:
    """What every part is given."""

    bench: Bench
    results: Results
    scale: float = 1.0
    resume: bool = False
    quick: bool = False
    only: str = ""  # cells whose key has this text

    def fixture(self, kind: str, size: int, shards: int = 1, variant: int = 0) -> Fixture:
        """As asked for, its size scaled to whole MiB; small ones are not scaled."""
        scaled = max(int(size * self.scale) // MIB * MIB, LEAST) if size > 64 * MIB else size
        return Fixture(kind, scaled, shards, variant=variant)

    def cell(
        self, cell: Cell, entrants: Iterable[Entrant], drop: bool = False, rounds: int = 0
    ) -> None:
        rounds = min(rounds, self.bench.rounds) if rounds else self.bench.rounds
        if self.only not in cell.key:
            return
        if self.resume and self.results.has(cell.key, rounds):
            return
        measured = self.bench.run(cell, entrants, drop, rounds)
        self.results.keep(cell.key, measured, rounds)
        say(cell.key, measured)


def say(key: str, cell: dict[str, Any]) -> None:
    """One line on the terminal: the medians in seconds, what failed, what differed."""
    parts = []
    for label, rounds in cell["rounds"].items():
        seconds = median(cell, label)
        parts.append(f"{label} {seconds:.3f}" if seconds is not None else f"{label} failed")
        errors = [each["error"] for each in rounds if "error" in each]
        if errors:
            print(f"  {key}: {label}: {errors[0]}", file=sys.stderr)
    if cell["differ"]:
        parts.append("WRONG BYTES: " + ", ".join(cell["differ"]))
    print(f"{key}: {'  '.join(parts)}", file=sys.stderr, flush=True)
