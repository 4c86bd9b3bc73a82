"""docs/performance.md and the chart, from the results file.

The page is written by hand. Only what stands between ``<!-- NAME -->`` and ``<!-- end -->`` is
replaced, so that measuring again never destroys a sentence.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from bench import goals, tables
from bench.chart import draw
from bench.formats_report import format_table
from bench.network_report import network_table
from bench.results import Results

PAGE = Path("docs/performance.md")
CHART = Path("docs/images/bench.png")
QUIET = 0.2  # CPUs
BUSY = (
    "**The machine was busy with other work: rates are too low, and ratios that depend on what "
    "the processors or the disk had left are not to be trusted.**"
)
BLOCK = re.compile(r"<!-- ([a-z]+) -->\n.*?<!-- end -->", re.DOTALL)


def machine_block(results: Results) -> str:
    about, versions = results.data.get("machine", {}), results.data.get("versions", {})
    busy = others(results)
    commits = sorted({cell["commit"] for cell in results.cells.values()})
    installed = ", ".join(f"{name} {number}" for name, number in versions.items() if number)
    return (
        f"{about.get('cpus')} CPUs ({about.get('cpu')}), {about.get('memory_gib')} GiB, Linux "
        f"{about.get('kernel')}, {about.get('filesystem')}, read-ahead "
        f"{about.get('read_ahead_kib')} KiB, huge pages on {about.get('huge_pages')}, Python "
        f"{about.get('python')}; {installed}. Measured at {', '.join(commits)}.\n\n"
        f"While a contender ran, everything else on the machine, kernel threads included, used "
        f"{busy:.2f} CPUs. {BUSY if busy > QUIET else ''}".rstrip()
    )


def others(results: Results) -> float:
    """CPUs that were busy with something else than the measured processes, on average."""
    rounds = [
        each
        for cell in results.cells.values()
        for entrant in cell["rounds"].values()
        for each in entrant
        if "machine_cpu_seconds" in each
    ]
    foreign: float = sum(each["machine_cpu_seconds"] - each["cpu_seconds"] for each in rounds)
    whole: float = sum(each["seconds"] for each in rounds)
    return max(foreign, 0.0) / max(whole, 1e-9)


def summary_block(results: Results) -> str:
    lines = []
    for label, title in (("inrush", "empty"), (tables.LEARNT, "learnt")):
        found = tables.regret_summary(results, label)
        if found:
            mean, worst, key, count = found
            where = key.removeprefix("regret/")
            lines.append(
                f"- {title} profile: mean {mean:.3f}, worst {worst:.2f} ({where}), {count} cells"
            )
    return "\n".join(lines) or "Not run."


BLOCKS: dict[str, Callable[[Results], str]] = {
    "machine": machine_block,
    "goals": goals.goal_table,
    "main": tables.main_table,
    "cost": tables.cost_table,
    "fio": tables.fio_table,
    "half": tables.half_table,
    "several": tables.several_table,
    "loops": tables.loop_table,
    "summary": summary_block,
    "regret": tables.regret_table,
    "formats": format_table,
    "network": network_table,
}


def write_report(results: Results) -> None:
    """Fill the blocks of the page, and draw the chart."""

    def fill(match: re.Match[str]) -> str:
        name = match.group(1)
        block = BLOCKS[name](results) if name in BLOCKS else "No such block."
        return f"<!-- {name} -->\n{block}\n<!-- end -->"

    PAGE.write_text(BLOCK.sub(fill, PAGE.read_text()))
    draw(results, CHART)
