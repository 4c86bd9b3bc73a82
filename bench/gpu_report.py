"""What a run of `make bench-gpu` found: lines for the terminal, tables for docs/performance.md."""

from __future__ import annotations

import statistics
from collections import Counter
from typing import Any

from bench.gpu_plan import Cell, cells

MIB = 1 << 20
GB = 1e9
HEAD = (
    "loader", "GB/s, first load", "GB/s, later loads", "of the limit", "first tensor, ms",
    "CPU s/GB", "GPU memory beside the tensors at most, MiB", "once closed, MiB",
    "left when freed, MiB", "host memory, MiB",
)  # fmt: skip
Run = dict[str, Any]


def limit(run: Run, cell: Cell) -> float | None:
    """GB/s of the narrowest measured part of the way: the link, and the disk where it is cold."""
    names = ["pinned", *(["disk cold"] if cell.state == "cold" else [])]
    rates = [run["limits"].get(name, {}).get("gb_per_s") for name in names]
    return None if None in rates else min(rates)


def later(row: dict[str, Any], key: str) -> float | None:
    """The median of all rounds but the first; of that one where there is no other."""
    rounds = row.get("rounds", [])
    values = [one[key] for one in rounds[1:] or rounds if one.get(key) is not None]
    return statistics.median(values) if values else None


def differing(rows: dict[str, dict[str, Any]]) -> list[str]:
    """Loaders that did not deliver what most of them did."""
    firsts = {name: row["rounds"][0] for name, row in rows.items() if row.get("rounds")}
    digests = {name: one["digest"] for name, one in firsts.items() if "digest" in one}
    if not digests:
        return []
    usual = Counter(digests.values()).most_common(1)[0][0]
    return [name for name, digest in digests.items() if digest != usual]


def number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def line(name: str, row: dict[str, Any], most: float | None) -> list[str]:
    """A row of the table; what failed is said in the cell of the rate."""
    rounds = row.get("rounds", [])
    if not rounds:
        return [name, row.get("error", "nothing"), *[""] * (len(HEAD) - 2)]
    first, rest = rounds[0], later(row, "gb_per_s")
    firsts = later(row, "first_s")
    beside = max(one["peak_device_bytes"] - one["tensor_bytes"] for one in rounds)
    closed = max(one["device_bytes"] - one["tensor_bytes"] for one in rounds)
    left = max(one["left_bytes"] for one in rounds)
    note = f" ({row['error']})" if "error" in row else ""
    begun = [first["first_s"], firsts] if first["first_s"] is not None else [None]
    return [
        name,
        f"{first['gb_per_s']:.2f}{note}",
        number(rest if len(rounds) > 1 else None, ".2f"),
        "" if most is None or rest is None else f"{rest / most:.2f}",
        ", ".join(number(None if one is None else one * 1000, ".0f") for one in begun),
        number(later(row, "cpu_s_per_gb"), ".3f"),
        f"{beside / MIB:.0f}",
        f"{closed / MIB:.0f}",
        f"{left / MIB:.0f}",
        f"{max(one['peak_host_bytes'] for one in rounds) / MIB:.0f}",
    ]


def described(run: Run) -> str:
    """The machine, in one paragraph."""
    machine = run["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    driver = f", {machine['driver']}" if machine.get("driver") else ""
    return (
        f"{machine['device']} ({machine['device_bytes'] / 2**30:.0f} GiB{driver}, "
        f"CUDA {machine['cuda']}, torch {machine['torch']}); {machine['cpus']} CPUs "
        f"({machine['cpu']}), {machine['memory_gib']} GiB, Linux {machine['kernel']}, "
        f"{machine['filesystem']}, Python {machine['python']}; {versions}; "
        f"build {machine['build']}."
    )


def limits_text(run: Run) -> list[str]:
    lines = []
    for name, said in run["limits"].items():
        if "error" in said:
            lines.append(f"- {name}: {said['error']}")
            continue
        detail = "; ".join(f"{key} {value:.2f}" for key, value in said.get("by_way", {}).items())
        note = f"; {said['note']}" if "note" in said else ""
        lines.append(f"- {name}: **{said['gb_per_s']:.2f} GB/s** ({detail}{note})")
    return lines


def title(run: Run, cell: Cell) -> str:
    size = run["sizes"].get(cell.files_key)
    told = f", {size['bytes'] / GB:.1f} GB" if size else ""
    if size and size["limited_by"] != "what was asked for":
        told += f" ({size['limited_by']})"
    return f"**{cell.key}**{told}"


def tables(run: Run) -> str:
    """All of a run, in Markdown."""
    parts = [described(run), "Limits:", "\n".join(limits_text(run))]
    for cell in cells():
        rows = run["cells"].get(cell.key, {})
        if not rows:
            continue
        shown = [list(HEAD), ["---"] * len(HEAD)]
        shown += [line(name, rows[name], limit(run, cell)) for name in cell.loaders if name in rows]
        wrong = differing(rows)
        parts.append(title(run, cell) + (f". WRONG BYTES: {', '.join(wrong)}" if wrong else ""))
        parts.append("\n".join("| " + " | ".join(one) + " |" for one in shown))
    return "\n\n".join(parts) + "\n\n" + "\n".join(goals(run))


def goals(run: Run) -> list[str]:
    """What is to be reached, and what was."""
    lines = ["| goal | wanted | measured | reached |", "|---|---|---|---|"]
    dense: dict[str, float] = {}
    for cell in cells():
        rows = run["cells"].get(cell.key, {})
        mine = rows.get("inrush", {})
        rate, most = later(mine, "gb_per_s"), limit(run, cell)
        if rate is None:
            continue
        if cell.kind == "dense":
            dense[f"{cell.place} {cell.state}"] = rate
            if most is not None:
                begun = mine["rounds"][0]["gb_per_s"]
                lines.append(goal(f"{cell.key}, first load, rate / limit", ">= 0.95", begun / most))
                lines.append(goal(f"{cell.key}, rate / limit", ">= 0.95", rate / most))
        elif f"{cell.place} {cell.state}" in dense:
            ratio = rate / dense[f"{cell.place} {cell.state}"]
            lines.append(goal(f"{cell.key}, rate / the dense one's", ">= 0.8", ratio))
        peers = {name: later(row, "gb_per_s") for name, row in rows.items() if "inrush" not in name}
        others = [value for value in peers.values() if value is not None]
        if others:
            lines.append(goal(f"{cell.key}, rate / best peer's", ">= 1", rate / max(others)))
        first = (rows.get("inrush_stream", {}).get("rounds") or mine["rounds"])[0]["first_s"]
        if first is not None:
            lines.append(goal(f"{cell.key}, ms to the first tensor", "<= 150", first * 1000))
        beside = max(one["peak_device_bytes"] - one["tensor_bytes"] for one in mine["rounds"])
        lines.append(goal(f"{cell.key}, GPU MiB beside tensors", "<= 256", beside / MIB))
        closed = max(one["device_bytes"] - one["tensor_bytes"] for one in mine["rounds"])
        lines.append(goal(f"{cell.key}, GPU MiB kept once closed", "<= 64", closed / MIB))
    return lines


def goal(name: str, wanted: str, value: float) -> str:
    sign, figure = wanted.split()
    good = value >= float(figure) if sign == ">=" else value <= float(figure)
    return f"| {name} | {wanted} | {value:.3g} | {'yes' if good else '**no**'} |"


def cell_text(run: Run, cell: Cell) -> str:
    """One line for each loader of a cell, as soon as it is measured."""
    lines = []
    for name, row in run["cells"].get(cell.key, {}).items():
        rounds = " ".join(f"{one['gb_per_s']:.2f}" for one in row.get("rounds", []))
        why = row["rounds"][0].get("choice") if row.get("rounds") else None
        parts = [f"{rounds} GB/s" if rounds else "", row.get("error", ""), str(why or "")]
        lines.append(f"{cell.key}: {name}: " + "; ".join(filter(None, parts)))
    return "\n".join(lines) or f"{cell.key}: nothing measured"
