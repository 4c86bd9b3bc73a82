"""What was measured over the network: goals and the table of docs/performance.md."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

from bench.goal import Goal, least, most
from bench.results import Results
from bench.tables import MISSING, number, table

CELLS = ("http", "tls", "s3", "far", "mirrors", "cache", "tensors")
_BLOCK = 4  # MiB, the largest range that is asked of a server at once
_BUDGET = 256  # MiB


def _cells(results: Results) -> dict[str, Any]:
    found = {name: results.figures.get(f"network {name}") for name in CELLS}
    return {name: cell for name, cell in found.items() if cell}


def _rate(cell: dict[str, Any], name: str) -> float | None:
    run = cell["runs"].get(name)
    return statistics.median(run["gb_per_s"]) if run else None


def _cpu(cell: dict[str, Any], name: str) -> float | None:
    run = cell["runs"].get(name)
    return run["cpu_s_per_gb"] if run else None


def network_goals(results: Results) -> Iterator[Goal]:
    cells = _cells(results)

    def told(cell: str, name: str) -> float | None:
        value: float | None = cells.get(cell, {}).get(name)
        return value or None  # 0: who it is compared with did not run

    loop = "rate / a loop's over the same libcurl"
    yield least(f"HTTP, {loop}", 0.95, told("http", "of_the_libcurl_loop"))
    yield least("HTTP, rate / raw recv's", 0.85, told("http", "of_the_recv_loop"))
    yield least(f"TLS, {loop}", 0.9, told("tls", "of_the_libcurl_loop"))
    yield least(f"S3, {loop}", 0.9, told("s3", "of_the_libcurl_loop"))
    yield least("S3, rate / Run:ai's", 1.0, told("s3", "times_runai"))
    yield least("100 ms away, rate / the link's", 0.9, told("far", "of_the_link"))
    yield least(".tensors over HTTP, rate / tensorizer's", 2.0, told("tensors", "times_tensorizer"))
    for cell, peer in (("s3", "runai"), ("tensors", "tensorizer")):
        mine, theirs = (_cpu(cells[cell], n) if cell in cells else None for n in ("inrush", peer))
        title = f"{'S3' if cell == 's3' else '.tensors over HTTP'}, CPU s/GB / {peer}'s"
        yield most(title, 0.5, mine / theirs if mine and theirs else None)
    beyond = [
        cell["runs"]["inrush"]["mib_beyond"] for cell in cells.values() if "inrush" in cell["runs"]
    ]
    title = "from the network, memory beyond the tensors"
    yield most(title, _BUDGET, max(beyond) if beyond else None, " MiB")
    yield least("two mirrors alike, rate / one's", 1.9, told("mirrors", "alike_times_one"))
    yield least("mirrors 1:3, rate / the sum", 0.95, told("mirrors", "uneven_of_the_sum"))
    for how in ("reset", "stall"):
        title = f"a mirror that dies by {how}"
        yield most(f"{title}, time / ideal", 1.1, told("mirrors", f"{how}_times_ideal"))
        twice = cells.get("mirrors", {}).get(f"{how}_mib_that_came_twice")
        yield most(f"{title}, fetched twice", 2 * _BLOCK, twice, " MiB")
    value = told("cache", "filling_times_the_dearer")
    yield most("filling the cache, time / the dearer of load and write", 1.05, value)


def network_table(results: Results) -> str:
    """Medians in GB/s; memory is what was taken beyond the tensors."""
    rows = []
    for name, cell in _cells(results).items():
        for who, run in cell["runs"].items():
            rows.append(
                [
                    name,
                    who,
                    number(_rate(cell, who), 3),
                    number(_cpu(cell, who)),
                    str(run["mib_beyond"]) if "mib_beyond" in run else MISSING,
                ]
            )
    head = ["case", "who", "GB/s", "CPU s/GB", "MiB beyond the tensors"]
    return table(head, rows) if rows else "Not run."
