"""Loads to a GPU beside those of others and the limits: `make bench-gpu`, on a machine with one.

Needs the package, torch and numpy, takes part who else is installed, and no network. The results
are written after each step; a call ends when its minutes are over, says what it left out, and
another call with the same file, here or on the next machine of the kind, goes on from there. Each
loader of a cell has a process of its own, with its imports and its context made before the clock
starts, and loads in it a few times: the first load counts apart.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import gpu_fixtures, gpu_plan, gpu_report, gpu_storage
from bench.gpu_forks import Failed, Fork, Forks
from bench.gpu_loaders import MODULES
from bench.gpu_plan import Cell, Results, Wanted
from bench.measure import forget_loads
from bench.results import first_match

FOLDER = "inrush-bench-gpu"
LIMIT_S = 60.0  # for one load
READY_S = 60.0  # to import a loader and make a context


@dataclass(frozen=True)
class Asked:
    """What the command line says."""

    folders: dict[str, Path]  # of each place
    wanted: Wanted
    rounds: int = 4
    memory: int = 0  # of the host, where the kernel tells less than there is

    def folder(self, cell: Cell) -> Path:
        return self.folders[cell.place] / FOLDER


class Session:
    """One call: measures what is missing, until the deadline."""

    def __init__(self, forks: Forks, results: Results, asked: Asked, deadline: float) -> None:
        self.forks = forks
        self.results = results
        self.asked = asked
        self.deadline = deadline
        self.left_out: list[str] = []

    def left_s(self) -> float:
        return self.deadline - time.monotonic()

    def measure(self) -> list[str]:
        """The loads and limits that there was no time for."""
        self.pinned_limit()
        try:
            for cell in gpu_plan.cells():
                if self.results.missing(cell) or self.lacks_limit(cell):
                    self.measure_cell(cell)
                print(gpu_report.cell_text(self.results.run, cell), flush=True)
        finally:
            shutil.rmtree(self.asked.folders["tmpfs"] / FOLDER, ignore_errors=True)
        return self.left_out

    def pinned_limit(self) -> None:
        if "pinned" in self.results.run["limits"]:
            return
        if self.left_s() < gpu_plan.START_S:
            self.left_out.append("limit: pinned")
            return
        try:
            with self.forks.start({"loader": "pinned"}) as fork:
                fork.answer(min(READY_S, self.left_s()))
                said = fork.ask(min(LIMIT_S, self.left_s()))
        except Failed as error:
            said = {"error": str(error)}
        self.results.run["limits"]["pinned"] = said
        self.results.save()

    def lacks_limit(self, cell: Cell) -> bool:
        return cell.kind == "dense" and self.limit_key(cell) not in self.results.run["limits"]

    @staticmethod
    def limit_key(cell: Cell) -> str:
        return f"{cell.place} {cell.state}"

    def measure_cell(self, cell: Cell) -> None:
        missing = self.results.missing(cell)
        try:
            if not self.fits(cell, missing):
                return
            files, size = self.files_of(cell)
        except Exception as error:  # whatever it is, the other cells are measured
            said = {"error": f"no checkpoint: {error or type(error).__name__}"}
            if self.lacks_limit(cell):
                self.results.run["limits"][self.limit_key(cell)] = said
            for loader in missing:
                self.results.keep(cell, loader, said)
            return
        if self.lacks_limit(cell):
            self.storage_limit(cell, files)
        for loader in missing:
            expected = gpu_plan.expected_s(self.results.rate(loader), size)
            row = self.row(cell, loader, files) if expected <= self.left_s() else None
            if row is None:
                self.left_out.append(f"{cell.key}: {loader}")
            else:
                self.results.keep(cell, loader, row)

    def fits(self, cell: Cell, missing: list[str]) -> bool:
        """Whether the files can be made, and one loader at least load them, in what is left."""
        size = self.size_of(cell)
        seconds = gpu_plan.START_S
        if not (self.checkpoint(cell, size) / ".done").exists():
            rate = self.results.run["sizes"][cell.files_key]["write_rate"]
            seconds += gpu_plan.making_s(cell, size, rate)
        rates = [gpu_plan.expected_s(self.results.rate(loader), size) for loader in missing]
        if seconds + min(rates, default=0.0) <= self.left_s():
            return True
        self.left_out += [f"{cell.key}: {loader}" for loader in missing]
        return False

    def size_of(self, cell: Cell) -> int:
        """As an earlier call chose it, or what the machine has room for."""
        sizes = self.results.run["sizes"]
        if cell.files_key not in sizes:
            self.remove_others(cell, 0)
            folder = self.asked.folders[cell.place]
            read, write = gpu_fixtures.probe(folder) if cell.place == "disk" else (None, None)
            room = gpu_fixtures.Room(
                gpu_fixtures.free_bytes(folder),
                self.asked.memory or gpu_fixtures.available_memory(),
                self.results.run["machine"]["device_free"],
                read,
                write,
            )
            size, reason = gpu_fixtures.size_for(self.asked.wanted.of(cell), room)
            sizes[cell.files_key] = {"bytes": size, "limited_by": reason, "write_rate": write}
            self.results.save()
        return int(sizes[cell.files_key]["bytes"])

    def checkpoint(self, cell: Cell, size: int) -> Path:
        return self.asked.folder(cell) / f"{cell.kind}-{size}"

    def remove_others(self, cell: Cell, size: int) -> None:
        """Checkpoints of other cells: there is room for one at a time."""
        for place in self.asked.folders.values():
            for other in (place / FOLDER).glob("*"):
                if other != self.checkpoint(cell, size):
                    shutil.rmtree(other, ignore_errors=True)

    def files_of(self, cell: Cell) -> tuple[list[Path], int]:
        size = self.size_of(cell)
        self.remove_others(cell, size)
        folder = self.checkpoint(cell, size)
        total = gpu_fixtures.make(folder, cell.kind, size)
        return sorted(folder.glob("*.safetensors")), total

    def storage_limit(self, cell: Cell, files: list[Path]) -> None:
        try:
            gpu_fixtures.set_state(files, cell.state)
            said = gpu_storage.rates(files, cell.state)
        except Exception as error:
            said = {"error": str(error)}
        self.results.run["limits"][self.limit_key(cell)] = said
        self.results.save()

    def row(self, cell: Cell, loader: str, files: list[Path]) -> dict[str, Any] | None:
        """A loader's rounds in one process, or why there are none; None if the time ran out."""
        rounds: list[dict[str, Any]] = []
        row: dict[str, Any] = {"rounds": rounds}
        try:
            with tempfile.TemporaryDirectory(prefix="inrush-bench-") as scratch:
                environment = {"INRUSH_PROFILE": str(Path(scratch) / "profile.json")}
                task = {"loader": loader, "files": list(map(str, files)), "env": environment}
                with self.forks.start(task) as fork:
                    fork.answer(min(READY_S, self.left_s()))
                    self.ask_rounds(fork, cell, files, rounds)
        except Exception as error:
            if self.left_s() <= 0:
                return row if rounds else None
            row["error"] = str(error) or type(error).__name__
        return row

    def ask_rounds(
        self, fork: Fork, cell: Cell, files: list[Path], rounds: list[dict[str, Any]]
    ) -> None:
        began = time.monotonic()
        while len(rounds) < self.asked.rounds:
            forget_loads()
            gpu_fixtures.set_state(files, cell.state)
            rounds.append(fork.ask(min(LIMIT_S, self.left_s())))
            spent = time.monotonic() - began
            each = spent / len(rounds)
            if spent + each > gpu_plan.UNIT_S or each > self.left_s():
                return


def build_of_inrush() -> str:
    """Its version, and what tells two builds of that apart."""
    spec = importlib.util.find_spec("inrush")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for core in Path(folder).glob("_core*.so"):
            version = importlib.metadata.version("inrush")
            return f"{version} {hashlib.sha256(core.read_bytes()).hexdigest()[:12]}"
    return "not installed"


def versions() -> dict[str, str]:
    found = {}
    for _, distribution in MODULES.values():
        try:
            found[distribution] = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            found[distribution] = "not installed"
    return found


def driver() -> str:
    """Its version and the link, by nvidia-smi; empty where there is none."""
    asked = "driver_version,pcie.link.gen.max,pcie.link.width.max"
    command = ["nvidia-smi", f"--query-gpu={asked}", "--format=csv,noheader", "-i", "0"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        version, generation, width = said.stdout.strip().splitlines()[0].split(", ")
    except (OSError, ValueError, IndexError, subprocess.SubprocessError):
        return ""
    return f"driver {version}, PCIe {generation} x{width}"


def describe(forks: Forks, disk: Path) -> dict[str, Any]:
    """What the figures depend on.

    Raises
    ------
    Failed
        If torch cannot use a GPU here.
    """
    with forks.start({"loader": "about"}) as fork:
        about = fork.answer(READY_S)
    disk.mkdir(parents=True, exist_ok=True)
    return {
        **about,
        "driver": driver(),
        "cpu": first_match("/proc/cpuinfo", r"^model name\s*: (.+)$"),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "kernel": platform.release(),
        "filesystem": gpu_fixtures.filesystem_of(disk),
        "python": platform.python_version(),
        "build": build_of_inrush(),
        "versions": versions(),
    }


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    gigabytes: dict[str, Any] = {"type": float, "metavar": "GB"}
    parser.add_argument("--minutes", type=float, default=7, help="of this call, in all (7)")
    parser.add_argument("--results", type=Path, default=Path("build/bench/gpu.json"))
    parser.add_argument("--report", action="store_true", help="only print the tables")
    parser.add_argument("--again", action="store_true", help="what failed is measured once more")
    parser.add_argument("--rounds", type=int, default=4, help="loads in one process (4)")
    parser.add_argument("--tmpfs", type=Path, default=Path("/dev/shm"), help="a folder in memory")
    parser.add_argument("--disk", type=Path, default=Path("build/bench"), help="and one on a disk")
    parser.add_argument("--tmpfs-size", default=40, help="dense, there (40)", **gigabytes)
    parser.add_argument("--disk-size", default=20, help="dense, there (20)", **gigabytes)
    parser.add_argument("--experts-size", default=8, help="20,000 small tensors (8)", **gigabytes)
    parser.add_argument("--memory", default=0, help="that the host really has", **gigabytes)
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    began = time.monotonic()
    parsed = parse(arguments)
    results = Results(parsed.results)
    if parsed.report:
        print("\n".join(gpu_report.tables(run) for run in results.all.values()))
        return 0
    sizes = (parsed.tmpfs_size, parsed.disk_size, parsed.experts_size)
    asked = Asked(
        {"tmpfs": parsed.tmpfs, "disk": parsed.disk},
        Wanted(*(int(size * gpu_plan.GIGABYTE) for size in sizes)),
        parsed.rounds,
        int(parsed.memory * gpu_plan.GIGABYTE),
    )
    try:
        with Forks(parsed.disk) as forks:
            results.choose(describe(forks, parsed.disk))
            if parsed.again:
                results.forget_failures()
            left_out = Session(forks, results, asked, began + parsed.minutes * 60).measure()
    except Failed as error:
        print(f"bench-gpu: skipped, torch sees no GPU here: {error}")
        return 0
    print(gpu_report.tables(results.run))
    for each in left_out:
        print(f"bench-gpu: no time for {each}")
    print("bench-gpu: call it again, it goes on" if left_out else "bench-gpu: all is measured")
    return 1 if any(map(gpu_report.differing, results.run["cells"].values())) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
