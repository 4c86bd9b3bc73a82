"""A goal, and the two ways in which a figure reaches one."""

from __future__ import annotations

from dataclasses import dataclass

from bench.results import Results
from bench.statistic import ratio
from bench.tables import number


@dataclass(frozen=True)
class Goal:
    """A goal and its figure; ``measured`` is None where the case has not been run."""

    title: str
    wanted: str
    measured: str | None
    reached: bool = False


def most(title: str, wanted: float, value: float | None, unit: str = "") -> Goal:
    """A figure that should be at most ``wanted``."""
    shown = None if value is None else f"{value:.3g}{unit}"
    return Goal(title, f"<= {wanted:g}{unit}", shown, value is not None and value <= wanted)


def least(title: str, wanted: float, value: float | None) -> Goal:
    """A figure that should be at least ``wanted``."""
    shown = None if value is None else number(value)
    return Goal(title, f">= {wanted:g}", shown, value is not None and value >= wanted)


def against(
    results: Results, key: str, ours: str, theirs: str, name: str = "seconds"
) -> float | None:
    cell = results.cells.get(key)
    paired = ratio(cell, ours, theirs, name) if cell else None
    return paired.median if paired else None
