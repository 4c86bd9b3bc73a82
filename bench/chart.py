"""The chart of the README: Inrush, its peers and the limit, case by case."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.contenders import CONTENDERS, PEERS
from bench.results import Results
from bench.statistic import Cell, cpu_per_gb, median, rate
from bench.tables import COPY, copying, limit_of

INK, QUIET, GRID = "#1f2933", "#6b7785", "#e4e8ec"
OURS, LIMIT = "#d9480f", "#1f2933"
PEER_COLOURS = {
    "safetensors": "#5c7c9c",
    "safetensors_clone": "#8ba5bd",
    "fastsafetensors": "#a9b8a6",
    "runai": "#c7bfae",
}


@dataclass(frozen=True)
class Panel:
    """One case: the cell, what Inrush's bar shows, and the unit."""

    title: str
    note: str
    key: str
    ours: str = "inrush"
    unit: str = "GB/s"  # or "s", "CPU s/GB": less is better


PANELS = (
    Panel("Cold, from disk", "{size}, load + touch", "cold"),
    Panel("Warm, a private copy", "every tensor in memory of its own", "warm", COPY),
    Panel("Warm, mapped", "load + touch", "warm"),
    Panel("Cold, then two restarts", "three fresh processes", "restart"),
    Panel("Half resident", "every other MiB in the page cache", "half/alternating 1 MiB"),
    Panel("Four processes at once", "cold; seconds until the last is done", "several/4", unit="s"),
    Panel("A far filesystem", "FUSE, 5 ms a request", "regret/far-5ms/256m-1/cold/1"),
    Panel("CPU, cold", "seconds of CPU for a GB", "cold", unit="CPU s/GB"),
)


def value(cell: Cell, label: str, unit: str) -> float | None:
    if unit == "s":
        return median(cell, label)
    return rate(cell, label) if unit == "GB/s" else cpu_per_gb(cell, label)


def draw(results: Results, path: Path) -> None:
    """A grid of panels with one bar a loader; the limit of the case is a dashed line."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = [panel for panel in PANELS if panel.key in results.cells]
    if not shown:
        return
    columns = min(4, len(shown))
    lines = -(-len(shown) // columns)
    with plt.rc_context({"font.family": "DejaVu Sans", "text.color": INK, "font.size": 9}):
        figure, axes = plt.subplots(
            lines, columns, figsize=(3.25 * columns + 0.9, 2.55 * lines + 0.9), squeeze=False
        )
        flat = list(axes.flat)
        for i, (panel, axis) in enumerate(zip(shown, flat, strict=False)):
            draw_panel(axis, panel, results, names=i % columns == 0)
        for axis in flat[len(shown) :]:
            axis.set_axis_off()
        about = results.data["machine"]
        figure.suptitle(
            "Loading a safetensors checkpoint into host memory", x=0.012, ha="left", fontsize=14,
            fontweight="bold", y=0.985,
        )  # fmt: skip
        figure.text(
            0.012, 0.012,
            f"{about['cpus']} CPUs, Linux {about['kernel'].split('-')[0]}, {about['filesystem']}; "
            "median of fresh processes that alternate; dashed: the limit, the best that fio, a raw "
            "loop or any loader reached in the same state",
            color=QUIET, fontsize=8,
        )  # fmt: skip
        figure.tight_layout(rect=(0, 0.03, 1, 0.955), h_pad=1.6, w_pad=1.4)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150, facecolor="white")
        plt.close(figure)


def draw_panel(axis: Any, panel: Panel, results: Results, names: bool) -> None:
    cell = results.cells[panel.key]
    cell = copying(cell) if panel.ours == COPY else cell
    labels = [panel.ours, *PEERS]
    colours = [OURS, *(PEER_COLOURS[peer] for peer in PEERS)]
    found = [value(cell, label, panel.unit) for label in labels]
    heights = [each or 0.0 for each in found]
    places = range(len(labels))
    axis.barh(places, heights, color=colours, height=0.72, zorder=2)
    limit = limit_line(results, cell, panel)
    top = max([*heights, limit or 0.0]) or 1.0
    missing = "maps only" if panel.ours == COPY else "not run"
    for place, each in zip(places, found, strict=True):
        text = missing if each is None else f"{each:.2f}"
        axis.text(
            (each or 0.0) + top * 0.02, place, text, va="center", fontsize=8.5,
            color=QUIET if each is None else INK, fontweight="bold" if place == 0 else "normal",
            zorder=4, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
        )  # fmt: skip
    if limit:
        axis.axvline(limit, color=LIMIT, linestyle=(0, (4, 3)), linewidth=1.1, zorder=3)
    axis.set_yticks(list(places))
    shown = ["Inrush", *(CONTENDERS[peer].label for peer in PEERS)]
    axis.set_yticklabels(shown if names else [""] * len(shown))
    axis.invert_yaxis()
    axis.set_xlim(0, top * 1.2)
    less = "  (less is better)" if panel.unit != "GB/s" else ""
    axis.set_title(panel.title, loc="left", fontsize=10.5, fontweight="bold", pad=17)
    axis.text(
        0,
        1.035,
        f"{panel.note.format(size=size_of(cell))}{less}",
        transform=axis.transAxes,
        fontsize=8,
        color=QUIET,
    )
    axis.set_xlabel(panel.unit, fontsize=8, color=QUIET)
    axis.tick_params(length=0, labelsize=9)
    axis.tick_params(axis="x", labelsize=8, colors=QUIET)
    axis.grid(axis="x", color=GRID, zorder=0)
    for side in axis.spines.values():
        side.set_visible(False)


def size_of(cell: Cell) -> str:
    """As "3.0 GiB in 2 shards", from the fixture's name and bytes."""
    return f"{cell['bytes'] / 2**30:.1f} GiB in {cell['fixture'].split('-')[2]} shards"


def limit_line(results: Results, cell: Cell, panel: Panel) -> float | None:
    if panel.unit == "GB/s":
        limit = limit_of(results, cell)
        return limit[0] if limit else None
    found = [each for label in cell["rounds"] if (each := value(cell, label, panel.unit))]
    return min(found) if found else None
