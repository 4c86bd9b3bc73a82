"""The goals, each with what was measured: the first table of docs/performance.md."""

from __future__ import annotations

from collections.abc import Iterator

from bench.contenders import PEERS
from bench.formats_report import format_goals
from bench.goal import Goal, against, least, most
from bench.limits import best_point
from bench.network_report import network_goals
from bench.pages import SHAPES
from bench.results import Results
from bench.saving import WAYS, save_key
from bench.statistic import cpu_per_gb, median, rate, ratio
from bench.tables import (
    COPY,
    LEARNT,
    MAPPED,
    copying,
    half_cost,
    limit_of,
    regret_summary,
    table,
)

PAIR = ("inrush", "safetensors")


def rate_of_limit(results: Results, key: str, label: str) -> float | None:
    cell = results.cells.get(key)
    if cell is None:
        return None
    limit = limit_of(results, copying(cell) if label == COPY else cell)
    mine = rate(cell, label)
    return mine / limit[0] if mine and limit else None


def over_best_peer(results: Results, key: str) -> float | None:
    """Inrush's time over that of the fastest peer of this cell."""
    cell = results.cells.get(key)
    found = [pair.median for peer in PEERS if cell and (pair := ratio(cell, "inrush", peer))]
    return max(found) if found else None


def cpu_goals(results: Results) -> Iterator[Goal]:
    """CPU seconds a GB of ``backend="uring"``, over fio's io_uring and over the raw loop's.

    fio reads into the same few buffers again and again; a load needs fresh memory, which the
    kernel zeroes first, and so does the raw loop.
    """
    cell, point = results.cells.get("cold"), best_point(results.figures.get("fio", []), "io_uring")
    mine = cpu_per_gb(cell, "inrush:uring") if cell else None
    raw = cpu_per_gb(cell, "raw:uring") if cell else None
    title = "cold, CPU s/GB of uring / "
    yield most(
        title + "fio's io_uring", 1.2, mine / point["cpu_per_gb"] if mine and point else None
    )
    yield most(title + "a raw io_uring loop's", 1.2, mine / raw if mine and raw else None)
    auto = cpu_per_gb(cell, "inrush") if cell else None
    title = "cold, CPU s/GB of the automatic choice / "
    yield most(title + "a raw io_uring loop's", 1.2, auto / raw if auto and raw else None)


def goals(results: Results) -> Iterator[Goal]:
    yield least("cold, rate / limit", 0.95, rate_of_limit(results, "cold", "inrush"))
    yield most("cold, time / best peer's", 1.0, over_best_peer(results, "cold"))
    yield from cpu_goals(results)
    yield from warm_goals(results)
    yield from half_goals(results)
    for count in (2, 4):
        key = f"several/{count}"
        title = f"{count} processes at once, cold"
        yield most(
            f"{title}, time / safetensors'", 1.05, against(results, key, "inrush", "safetensors")
        )
        cell = results.cells.get(key)
        read = median(cell, "inrush", "device_bytes") if cell else None
        share = read / cell["bytes"] if cell and read is not None else None
        yield most(f"{title}, device bytes / checkpoint", 1.2, share)
    yield most("cold + two restarts, time / best peer's", 1.0, over_best_peer(results, "restart"))
    for state in ("cold", "warm"):
        for count in (1, 4):
            value = against(results, f"loops/{state}/{count}", "inrush", "safetensors")
            yield most(f"get_tensor, {count} thread(s), {state}, time / safetensors'", 1.0, value)
    yield from small_goals(results)
    yield from sandbox_goals(results)
    yield from save_goals(results)
    for label, title in (("inrush", "empty profile"), (LEARNT, "learnt profile")):
        summary = regret_summary(results, label)
        yield most(f"regret, {title}, mean", 1.05, summary[0] if summary else None)
        yield most(f"regret, {title}, worst", 1.15, summary[1] if summary else None)
    yield from format_goals(results)
    yield from network_goals(results)


def warm_goals(results: Results) -> Iterator[Goal]:
    for key, title in (("warm", "warm, mapped"), ("tmpfs", "tmpfs, mapped")):
        value = against(results, key, "inrush", "safetensors")
        yield most(f"{title}, load + touch / safetensors'", 1.05, value)
        alone = against(results, key, "inrush", "safetensors", "load_seconds")
        cell = results.cells.get(key)
        mine, theirs = (
            median(cell, label, "load_seconds") if cell else None
            for label in ("inrush", "safetensors")
        )
        goal = most(f"{title}, load alone / safetensors' (or + 3 ms)", 1.05, alone)
        close = mine is not None and theirs is not None and mine - theirs <= 0.003
        yield Goal(goal.title, goal.wanted, goal.measured, goal.reached or close)
        yield least(
            f"{title.split(',')[0]}, private copy, rate / limit",
            0.95,
            rate_of_limit(results, key, COPY),
        )


def half_goals(results: Results) -> Iterator[Goal]:
    for state in SHAPES:
        cell = results.cells.get(f"half/{state}")
        if state in ("cold", "warm") or cell is None:
            continue
        for label in ("inrush", COPY):
            seconds, cost = median(cell, label), half_cost(results, label not in MAPPED)
            value = seconds / cost if seconds and cost else None
            how = "copied" if label == COPY else "mapped or copied"
            yield most(f"half resident ({state}), {how}, time / sum at the limit", 1.1, value)


def small_goals(results: Results) -> Iterator[Goal]:
    cell = results.cells.get("many/open")
    yield most("open 100,000 tensors", 0.1, median(cell, "inrush") if cell else None, " s")
    cell = results.cells.get("many/each")
    whole = median(cell, "inrush") if cell else None
    opened = median(cell, "inrush", "open_seconds") if cell else None
    each = (whole - opened) / 100_000 * 1e6 if whole is not None and opened is not None else None
    yield most("a torch.Tensor from each", 10, each, " us")
    for state in ("cold", "warm"):
        value = against(results, f"adapter/{state}", "inrush", "safetensors")
        yield most(f"adapter, {state}, time / safetensors'", 1.1, value)
    for key, title in (
        ("tiny shards", "256 shards of 1 MiB"),
        ("small shards", "129 shards of 2 MiB"),
    ):
        for state in ("cold", "warm"):
            value = against(results, f"{key}/{state}", *PAIR)
            yield most(f"{title}, {state}, time / safetensors'", 1.0, value)
    found = results.figures.get("import", {}).get("inrush")
    yield most("import inrush", 50, found["seconds"] * 1e3 if found else None, " ms")
    if found:
        heavy = ", ".join(found["imports"]) or "neither"
        yield Goal("import inrush imports numpy or torch", "neither", heavy, not found["imports"])
    tight = results.figures.get("cgroup", {})
    value = tight.get("rate_of_free")
    yield least("in a cgroup of tensors + budget + 150 MiB, rate / free rate", 0.9, value)


def sandbox_goals(results: Results) -> Iterator[Goal]:
    """Over fio's psync, which is what can be had without io_uring and AIO."""
    cell, point = results.cells.get("sandbox"), best_point(results.figures.get("fio", []), "psync")
    for label, title in (("inrush", ""), (COPY, ', mapping="never"')):
        mine = rate(cell, label) if cell else None
        value = mine / point["gb_per_s"] if mine and point else None
        yield least(f"cold without io_uring and AIO{title}, rate / fio's psync", 0.9, value)


def save_goals(results: Results) -> Iterator[Goal]:
    for filesystem, fsync in WAYS:
        key = save_key(filesystem, fsync)
        where = f"save on {filesystem}{' with fsync' if fsync else ''}"
        yield most(f"{where}, time / safetensors'", 1.0, against(results, key, *PAIR))
        cell, limit = results.cells.get(key), results.figures.get("fio write", {}).get(key)
        mine = rate(cell, "inrush") if cell else None
        yield least(f"{where}, rate / fio's", 0.9, mine / limit if mine and limit else None)
    for state in ("cold", "warm"):
        value = against(results, f"pretrained/{state}", *PAIR)
        yield most(f"transformers' from_pretrained, {state}, time / safetensors'", 1.0, value)


def goal_table(results: Results) -> str:
    rows = []
    for goal in goals(results):
        verdict = "not run" if goal.measured is None else "yes" if goal.reached else "**no**"
        rows.append([goal.title, goal.wanted, goal.measured or "-", verdict])
    return table(["goal", "wanted", "measured", "reached"], rows)
