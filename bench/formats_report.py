"""What was measured of tensorizer's files: goals and the table of docs/performance.md."""

from __future__ import annotations

from collections.abc import Iterator

from bench.goal import Goal, against, least, most
from bench.results import Results
from bench.statistic import Cell, cpu_per_gb, median, rate, ratio
from bench.tables import MISSING, number, table

PAIR = ("inrush", "tensorizer")
ROWS = (
    ("load", "load"),
    ("verify", "load, CRC-32 and SHA-256 compared"),
    ("decrypt", "load, decrypted"),
    ("save", "save"),
    ("convert", "convert to safetensors, cold"),
)


def _of_limit(results: Results, work: str) -> float | None:
    cell = results.cells.get(f"formats/{work}")
    limit = results.figures.get("formats limits", {}).get(work)
    mine = rate(cell, "inrush") if cell else None
    return mine / limit if mine and limit else None


def format_goals(results: Results) -> Iterator[Goal]:
    value = against(results, "formats/load", *PAIR)
    title = ".tensors, load, rate / tensorizer's"
    yield least(title, 1.3, 1 / value if value else None)
    value = against(results, "formats/open", "inrush", "inrush:safetensors")
    yield most(".tensors, private copy, time / the same bytes' in safetensors", 1.05, value)
    for work in ("verify", "decrypt", "save"):
        value = against(results, f"formats/{work}", *PAIR)
        yield most(f".tensors, {work}, time / tensorizer's", 1.0, value)
        title = f".tensors, {work}, rate / what the cores and memory allow"
        yield least(title, 0.9, _of_limit(results, work))
    value = against(results, "formats/crc", "inrush", "inrush:none")
    yield most('.tensors, verify="crc", time / none\'s', 1.05, value)
    title = "convert to safetensors, cold, rate / the slower of fio's reads and durable writes"
    yield least(title, 0.9, _of_limit(results, "convert"))
    cell = results.cells.get("formats/list")
    for label, how in (("inrush:open", "inrush.open"), ("inrush", "TensorDeserializer")):
        value = median(cell, label) if cell else None
        yield most(f"100,000 .tensors listed by {how}", 0.1, value, " s")


def _cost(cell: Cell, label: str) -> str:
    return number(cpu_per_gb(cell, label)) if median(cell, label) else MISSING


def format_table(results: Results) -> str:
    """Warm, in GB/s, beside tensorizer in the same rounds."""
    rows = []
    for work, title in ROWS:
        cell = results.cells.get(f"formats/{work}")
        if cell is None:
            continue
        limit = results.figures.get("formats limits", {}).get(work)
        paired = ratio(cell, *PAIR)
        rows.append(
            [
                title,
                number(rate(cell, "inrush")),
                number(rate(cell, "tensorizer")),
                str(paired) if paired else MISSING,
                MISSING if work == "load" else number(limit),
                _cost(cell, "inrush"),
                _cost(cell, "tensorizer"),
            ]
        )
    head = ["work", "Inrush", "tensorizer", "time / tensorizer's", "limit"]
    return table([*head, "CPU s/GB", "tensorizer's"], rows) if rows else "Not run."
