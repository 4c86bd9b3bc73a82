"""The tables of docs/performance.md, from the results file. Each function gives Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from bench.contenders import CONTENDERS, PEERS
from bench.limits import best_point
from bench.results import Results
from bench.statistic import Cell, best, cpu_per_gb, median, rate, ratio, regret_of

COPY = "inrush:never"
LEARNT = "inrush:learnt"
MISSING = "-"
GIB = 1 << 30


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |"]
    lines.append("|" + "---|" * (lines[0].count("|") - 1))
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def number(value: float | None, digits: int = 2) -> str:
    return MISSING if value is None else f"{value:.{digits}f}"


def named(label: str | None) -> str:
    """What a reader calls it: ``raw:uring`` is "raw io_uring", a backend is "Inrush, aio"."""
    if label is None:
        return MISSING
    if label in CONTENDERS:
        return CONTENDERS[label].label
    kind, _, which = label.partition(":")
    if kind == "raw":
        return f"raw {which.replace('uring', 'io_uring')}"
    extra = {"never": 'mapping="never"', "learnt": "learnt profile"}.get(which, which)
    return f"{named(kind)}, {extra}"


def limit_of(results: Results, cell: Cell) -> tuple[float, str] | None:
    """The highest rate seen in this cell, in GB/s, and whose it was; fio's too on a cold disk."""
    label = best(cell)
    if label is None:
        return None
    found = (rate(cell, label) or 0.0, named(label))
    alone = cell["processes"] == 1 and cell["restarts"] == 0
    if cell["filesystem"] == "disk" and cell["residency"] == "cold" and alone:
        point = best_point(results.figures.get("fio", []))
        if point and point["gb_per_s"] > found[0]:
            how = f"{point['block']} x {point['depth'] * point['threads']}"
            found = (point["gb_per_s"], f"fio {point['engine']} {how}")
    return found


MAIN = (
    ("cold", "cold, disk", "inrush"),
    ("warm", "warm, mapped", "inrush"),
    ("warm", "warm, private copy", COPY),
    ("tmpfs", "tmpfs", "inrush"),
    ("restart", "cold + two restarts", "inrush"),
    ("tiny shards/cold", "256 shards of 1 MiB, cold", "inrush"),
    ("tiny shards/warm", "256 shards of 1 MiB, warm", "inrush"),
    ("small shards/cold", "129 shards, most of 2 MiB, cold", "inrush"),
    ("small shards/warm", "129 shards, most of 2 MiB, warm", "inrush"),
    ("adapter/cold", "adapter of 10 MB, cold", "inrush"),
    ("adapter/warm", "adapter of 10 MB, warm", "inrush"),
)
# Who delivers views of the page cache rather than memory of its own.
MAPPED = ("inrush", "safetensors", "raw:map")


def copying(cell: Cell) -> Cell:
    """The cell without those who map: a private copy is only compared with private copies."""
    kept = {label: rounds for label, rounds in cell["rounds"].items() if label not in MAPPED}
    return {**cell, "rounds": kept}


def main_table(results: Results) -> str:
    """GB/s of load + touch, and Inrush's time over safetensors' in paired rounds."""
    rows = []
    for key, title, label in MAIN:
        cell = results.cells.get(key)
        if cell is None:
            continue
        cell = copying(cell) if label == COPY else cell
        limit = limit_of(results, cell)
        mine = rate(cell, label)
        of_limit = mine / limit[0] if mine and limit else None
        reference = "safetensors_clone" if label == COPY else "safetensors"
        paired = ratio(cell, label, reference)
        rows.append(
            [
                title,
                f"{limit[0]:.2f} ({limit[1]})" if limit else MISSING,
                number(mine),
                number(of_limit),
                str(paired) if paired else MISSING,
                *(number(rate(cell, peer)) for peer in PEERS),
            ]
        )
    head = ["case", "limit (whose)", "Inrush", "of the limit", "time / safetensors'"]
    return table([*head, *(CONTENDERS[peer].label for peer in PEERS)], rows)


def cost_table(results: Results) -> str:
    """What a cold load costs beside time."""
    cell = results.cells.get("cold")
    if cell is None:
        return MISSING
    rows = []
    for label in cell["rounds"]:
        if median(cell, label) is None:
            continue
        anonymous = median(cell, label, "anonymous_peak")
        peak = median(cell, label, "peak_bytes")
        device = median(cell, label, "device_bytes")
        raw = label.startswith("raw")
        rows.append(
            [
                named(label),
                number(rate(cell, label)),
                number(cpu_per_gb(cell, label)),
                MISSING if raw else number(anonymous and anonymous / cell["bytes"]),
                MISSING if raw else number(peak and peak / cell["bytes"]),
                number(device and device / cell["bytes"]),
            ]
        )
    head = ["loader", "GB/s", "CPU s/GB", "anonymous peak", "peak in all", "read from the disk"]
    return table(head, rows) + "\n\nMemory and device bytes in units of the checkpoint's size."


def fio_table(results: Results) -> str:
    points = [point for point in results.figures.get("fio", []) if "gb_per_s" in point]
    head = ["engine", "block", "depth", "threads", "GB/s", "CPU s/GB"]
    return table(
        head,
        (
            [
                point["engine"],
                point["block"],
                str(point["depth"]),
                str(point["threads"]),
                number(point["gb_per_s"]),
                number(point["cpu_per_gb"], 3),
            ]
            for point in points
        ),
    )


def half_cost(results: Results, copied: bool) -> float | None:
    """Seconds that a half-resident file costs if each half runs at its limit."""
    shape: Callable[[Cell], Cell] = copying if copied else lambda cell: cell
    halves = []
    for state in ("cold", "warm"):
        cell = results.cells.get(f"half/{state}")
        label = best(shape(cell)) if cell else None
        seconds = median(cell, label) if cell and label else None
        if seconds is None:
            return None
        halves.append(seconds / 2)
    return sum(halves)


def half_table(results: Results) -> str:
    """Times over the sum that the cold and the warm half cost at the limit."""
    rows = []
    for key, cell in results.cells.items():
        if not key.startswith("half/"):
            continue
        row = [key.removeprefix("half/")]
        for label, copied in (("inrush", False), (COPY, True), ("safetensors", False)):
            seconds, cost = median(cell, label), half_cost(results, copied)
            told = (
                f" ({seconds / cost:.2f})"
                if seconds and cost and cell["residency"] != "cold"
                else ""
            )
            row.append(number(seconds, 3) + (told if cell["residency"] != "warm" else ""))
        paired = ratio(cell, "inrush", "safetensors")
        rows.append([*row, named(best(cell)), str(paired) if paired else MISSING])
    head = ["resident", "Inrush, s", 'mapping="never", s', "safetensors, s", "best way"]
    return table([*head, "time / safetensors'"], rows)


def several_table(results: Results) -> str:
    rows = []
    for count in (2, 4):
        cell = results.cells.get(f"several/{count}")
        if cell is None:
            continue
        for label in cell["rounds"]:
            device = median(cell, label, "device_bytes")
            paired = ratio(cell, label, "safetensors") if label != "safetensors" else None
            rows.append(
                [
                    str(count),
                    named(label),
                    number(median(cell, label), 3),
                    str(paired) if paired else MISSING,
                    number(device and device / cell["bytes"]),
                ]
            )
    head = ["processes", "loader", "slowest, s", "time / safetensors'", "device bytes / checkpoint"]
    return table(head, rows)


def loop_table(results: Results) -> str:
    rows = []
    for key, title in (
        ("loops/cold/1", "get_tensor, 1 thread, cold"),
        ("loops/cold/4", "get_tensor, 4 threads, cold"),
        ("loops/warm/1", "get_tensor, 1 thread, warm"),
        ("loops/warm/4", "get_tensor, 4 threads, warm"),
        ("many/open", "open 100,000 tensors"),
        ("many/each", "open, and a torch.Tensor from each"),
        ("many/load", "load 100,000 tensors"),
    ):
        cell = results.cells.get(key)
        if cell is None:
            continue
        paired = ratio(cell, "inrush", "safetensors")
        mine, theirs = (number(median(cell, name), 4) for name in ("inrush", "safetensors"))
        rows.append([title, mine, theirs, str(paired) if paired else MISSING])
    return table(["case", "Inrush, s", "safetensors, s", "time / safetensors'"], rows)


def regret_rows(results: Results) -> list[tuple[str, Cell]]:
    return [(key, cell) for key, cell in results.cells.items() if key.startswith("regret/")]


def regret_table(results: Results) -> str:
    rows = []
    for _, cell in regret_rows(results):
        paired = ratio(cell, "inrush", "safetensors")
        limit, mine = limit_of(results, cell), rate(cell, "inrush")
        choice = next(
            (each["choice"] for each in cell["rounds"].get("inrush", []) if "choice" in each),
            MISSING,
        )
        rows.append(
            [
                cell["filesystem"],
                cell["fixture"].removeprefix("llama-"),
                cell["residency"],
                str(cell["processes"]),
                named(best(cell)),
                number(median(cell, best(cell) or ""), 3),
                choice,
                *(told(regret_of(cell, label)) for label in ("inrush", LEARNT)),
                number(mine / limit[0] if mine and limit else None),
                number(paired.median if paired else None),
            ]
        )
    head = ["filesystem", "MiB-shards", "resident", "procs", "best way", "its s", "choice"]
    return table([*head, "regret", "learnt", "rate / limit", "time / safetensors'"], rows)


def told(found: tuple[float, bool] | None) -> str:
    if found is None:
        return MISSING
    value, counts = found
    return f"{value:.2f}" if counts else f"({value:.2f})"


def regret_summary(results: Results, label: str) -> tuple[float, float, str, int] | None:
    """Mean, worst, the worst cell's key and how many cells, for an empty or a learnt profile."""
    found = [(key, regret_of(cell, label)) for key, cell in regret_rows(results)]
    # A cell too small to count weighs as one without regret.
    values = [(each[0] if each[1] else 1.0, key) for key, each in found if each is not None]
    if not values:
        return None
    worst, key = max(values)
    return sum(value for value, _ in values) / len(values), worst, key, len(values)
