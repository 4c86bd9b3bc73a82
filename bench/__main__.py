"""``python -m bench [PART ...]``: measure, and write results, tables and chart."""

from __future__ import annotations

import argparse
import compileall
import importlib.util
import shutil
import sys
import time
from pathlib import Path

from bench import contenders
from bench.cases import PARTS
from bench.fixtures import MEMORY
from bench.measure import Bench
from bench.processes import Nursery
from bench.report import write_report
from bench.results import Results
from bench.session import Session


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}, or report; all by default"
    )
    parser.add_argument("--quick", action="store_true", help="3 pairs of files a quarter the size")
    parser.add_argument("--rounds", type=int, help="pairs a ratio is the median of (9)")
    parser.add_argument("--scale", type=float, help="size of the large checkpoints (1.0)")
    parser.add_argument("--only", default="", metavar="TEXT", help="cells whose key has this text")
    parser.add_argument("--resume", action="store_true", help="keep cells of this very commit")
    parser.add_argument("--results", type=Path, help="results file (bench/results/MACHINE.json)")
    parser.add_argument("--no-report", action="store_true", help="leave docs as they are")
    parsed = parser.parse_args(arguments)
    unknown = set(parsed.parts) - {*PARTS, "report"}
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    return parsed


def main() -> int:
    parsed = parse(sys.argv[1:])
    # A quick run must not overwrite the figures that the documents show.
    quick_file = Path("build/bench/quick.json") if parsed.quick else None
    results = Results(parsed.results or quick_file)
    parts = [part for part in parsed.parts or PARTS if part != "report"]
    if parts:
        measure(parsed, parts, results)
    if not parsed.no_report and not parsed.quick:
        write_report(results)
    return 1 if any(cell["differ"] for cell in results.cells.values()) else 0


def measure(parsed: argparse.Namespace, parts: list[str], results: Results) -> None:
    for name, reason in contenders.ABSENT.items():
        print(f"{name} takes no part: {reason}", file=sys.stderr)
    for name in contenders.CONTENDERS:
        if contenders.version(name) is None:
            print(f"{name} takes no part: it is not installed", file=sys.stderr)
    compile_package()
    rounds = parsed.rounds or (3 if parsed.quick else 9)
    scale = parsed.scale or (0.25 if parsed.quick else 1.0)
    try:
        with Nursery() as nursery:
            bench = Bench(nursery, rounds)
            session = Session(bench, results, scale, parsed.resume, parsed.quick, parsed.only)
            for part in parts:
                start = time.monotonic()
                print(f"-- {part}", file=sys.stderr, flush=True)
                PARTS[part](session)
                print(f"-- {part}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    finally:
        shutil.rmtree(MEMORY, ignore_errors=True)  # the fixtures in tmpfs take up memory


def compile_package() -> None:
    """Writes bytecode where pip would have: else each process compiles the tree as it is timed."""
    spec = importlib.util.find_spec("inrush") if contenders.version("inrush") else None
    for folder in spec.submodule_search_locations or () if spec else ():
        compileall.compile_dir(folder, quiet=2)


if __name__ == "__main__":
    sys.exit(main())
