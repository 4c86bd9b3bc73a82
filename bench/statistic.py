"""What the rounds of a cell say: medians, paired ratios with their spread, the best known way."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

GB = 1e9
Cell = dict[str, Any]  # as the results file keeps it
SMALL = 0.2  # seconds; below it a loss counts from LEAST_LOSS on
LEAST_LOSS = 0.02


@dataclass(frozen=True)
class Ratio:
    """Median of paired ratios, its quartiles, and how many pairs there were."""

    median: float
    low: float
    high: float
    pairs: int

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f}-{self.high:.2f})"


def values(cell: Cell, label: str, name: str = "seconds") -> list[float]:
    rounds = cell["rounds"].get(label, [])
    return [float(each[name]) for each in rounds if name in each]


def median(cell: Cell, label: str, name: str = "seconds") -> float | None:
    found = values(cell, label, name)
    return statistics.median(found) if found else None


def ratio(cell: Cell, ours: str, theirs: str, name: str = "seconds") -> Ratio | None:
    """Ours over theirs, round by round: below 1 is faster where ``name`` is a time."""
    pairs = [
        (a[name], b[name])
        for a, b in zip(cell["rounds"].get(ours, []), cell["rounds"].get(theirs, []), strict=False)
        if name in a and name in b and b[name] > 0
    ]
    if not pairs:
        return None
    ratios = sorted(a / b for a, b in pairs)
    if len(ratios) < 2:
        return Ratio(ratios[0], ratios[0], ratios[0], 1)
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return Ratio(middle, low, high, len(ratios))


def rate(cell: Cell, label: str) -> float | None:
    """GB/s of the median round, all restarts together."""
    seconds = median(cell, label)
    if not seconds:
        return None
    moved: float = cell["bytes"] * (1 + cell["restarts"])
    return moved / seconds / GB


def best(cell: Cell, without: tuple[str, ...] = ()) -> str | None:
    """The label with the least median time: the best way known for this cell."""
    medians: dict[str, float] = {
        label: seconds
        for label in cell["rounds"]
        if label not in without and (seconds := median(cell, label)) is not None
    }
    return min(medians, key=lambda label: medians[label]) if medians else None


def cpu_per_gb(cell: Cell, label: str) -> float | None:
    found = median(cell, label, "cpu_seconds")
    whole = float(cell["bytes"]) * (1 + cell["restarts"]) * cell["processes"]
    return None if found is None else found / whole * GB


def regret_of(cell: Cell, label: str) -> tuple[float, bool] | None:
    """Time over the best way's, in paired rounds, and whether the cell is large enough to count.

    The best way is chosen among all that ran, this label too, so the least is 1.
    """
    mine = median(cell, label)
    other = best(cell, without=("inrush", "inrush:learnt"))
    if mine is None or other is None:
        return None
    least = median(cell, other) or 0.0
    paired = ratio(cell, label, other)
    value = max(paired.median if paired else 1.0, 1.0)
    return value, least >= SMALL or mine - least > LEAST_LOSS
