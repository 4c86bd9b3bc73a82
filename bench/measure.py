"""A cell: contenders on one checkpoint in one state, round by round, each in fresh processes.

In every round each contender runs once, so that a ratio is always taken between neighbours in time,
in an order drawn anew: who runs after a loader that gave back much memory finds it backed by the
host, and who runs after one that needed none may not. Nothing is called cold, or half resident,
before the kernel said so.
"""

from __future__ import annotations

import os
import random
import shutil
import statistics
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench import contenders, pages
from bench.child import Task
from bench.fixtures import BUILD
from bench.places import Place
from bench.processes import Failed, Nursery, RawTask, Running
from bench.programs import program

# A contender this far behind the best of the first round is not run again, where asked for.
HOPELESS = 1.3


@dataclass(frozen=True)
class Entrant:
    """A contender with its options.

    ``profile`` is the file of a learnt profile, for Inrush; ``droppable`` are those that matter
    only if they are the best; ``denied``: without io_uring and AIO.
    """

    label: str
    contender: str
    options: dict[str, Any] = field(default_factory=dict)
    profile: Path | None = None
    raw: tuple[str, int, int] | None = None  # mode, block, depth
    droppable: bool = False
    denied: bool = False


@dataclass(frozen=True)
class Cell:
    """Where and in which state; ``restarts`` more loads follow in the state the first one left."""

    key: str
    place: Place
    residency: str  # of pages.SHAPES, or "memory" for tmpfs
    processes: int = 1
    restarts: int = 0
    job: str = "load"
    threads: int = 1

    def described(self) -> dict[str, Any]:
        return {
            "filesystem": self.place.filesystem,
            "fixture": self.place.fixture.name,
            "bytes": self.place.size,
            "residency": self.residency,
            "processes": self.processes,
            "restarts": self.restarts,
            "job": self.job,
            "threads": self.threads,
        }


def inrush(label: str = "inrush", profile: Path | None = None, **options: Any) -> Entrant:
    return Entrant(label, "inrush", options, profile)


def raw(mode: str, block: int = 1 << 20, depth: int = 32) -> Entrant:
    return Entrant(f"raw:{mode}", "raw", raw=(mode, block, depth), droppable=True)


RAW = {
    "uring": raw("uring"),
    "direct": raw("direct", depth=16),
    "map": raw("map", block=2 << 20, depth=2),
    "copy": raw("copy", depth=2),
    "memcpy": raw("memcpy", depth=2),
    "streams": raw("streams", depth=16),
}


def peers(*names: str) -> list[Entrant]:
    return [Entrant(name, name) for name in contenders.installed(names or contenders.PEERS)]


def rivals() -> list[Entrant]:
    """All peers; those that are far from the best need no more than one round."""
    return [replace(peer, droppable=peer.label != "safetensors") for peer in peers()]


def ours(*entrants: Entrant) -> list[Entrant]:
    """The given entrants of Inrush, or none where it is not installed."""
    return list(entrants) if contenders.version("inrush") else []


def backends() -> list[Entrant]:
    """Inrush held to one way of reading, each in turn."""
    each = [inrush(f"inrush:{name}", backend=name, strict=True) for name in contenders.BACKENDS]
    return ours(*(replace(entrant, droppable=True) for entrant in each))


def busy_seconds() -> float:
    """CPU seconds of the whole machine: what worker threads of the kernel cost is in here."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _, _, irq, softirq = map(int, fields[:7])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


class Bench:
    """Runs cells. ``rounds`` is how many pairs a ratio is the median of."""

    def __init__(self, nursery: Nursery, rounds: int) -> None:
        self.nursery = nursery
        self.rounds = rounds
        self.native = str(program("native.so"))

    def run(
        self, cell: Cell, entrants: Iterable[Entrant], drop: bool = False, rounds: int = 0
    ) -> dict[str, Any]:
        """Every entrant in every round; with ``drop``, hopeless ones only in the first.

        Returns the cell as the results file keeps it: what it is, and each entrant's rounds.
        """
        entrants = list(entrants)
        if cell.residency == "warm":
            pages.evict(cell.place.files)  # not as some earlier cell happened to leave it
        seen: dict[str, list[dict[str, Any]]] = {entrant.label: [] for entrant in entrants}
        for i in range(rounds or self.rounds):
            order = random.Random(f"{cell.key} {i}")
            for entrant in order.sample(entrants, len(entrants)):
                try:
                    seen[entrant.label].append(self.measure(cell, entrant, digest=i == 0))
                except (Failed, pages.Unexpected, OSError) as error:
                    seen[entrant.label].append({"error": str(error)})
            entrants = [
                entrant
                for entrant in entrants
                if "error" not in seen[entrant.label][-1]
                and not (drop and is_hopeless(entrant, seen))
            ]
        return {**cell.described(), "rounds": seen, "differ": differing(seen)}

    def measure(self, cell: Cell, entrant: Entrant, digest: bool) -> dict[str, Any]:
        """One run of one entrant: all its processes, and the restarts after them."""
        total: dict[str, Any] = {}
        forget_loads()
        (BUILD / "tmp").mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=BUILD / "tmp") as scratch:
            for i in range(1 + cell.restarts):
                # A checkpoint that takes seconds to load takes as long to digest: only once.
                task = self.task(cell, entrant, digest and i == 0, Path(scratch).resolve())
                running = [self.nursery.start(task) for _ in range(cell.processes)]
                try:
                    for process in running:
                        process.wait_ready()
                    if i == 0:
                        put(cell)
                    busy = busy_seconds()
                    found = run_together(running)
                except BaseException:
                    for process in running:
                        process.kill()
                    raise
                found["machine_cpu_seconds"] = busy_seconds() - busy
                add(total, found)
        return total

    def teach(self, cell: Cell, entrant: Entrant, profile: Path) -> None:
        """One load that leaves what it learnt in ``profile``; its time is nobody's business."""
        with tempfile.TemporaryDirectory() as scratch:
            task = self.task(cell, entrant, False, Path(scratch))
            assert isinstance(task, Task)
            task.env["INRUSH_PROFILE"] = str(profile.resolve())
            process = self.nursery.start(task)
            process.wait_ready()
            put(cell)
            process.go()
            process.result()

    def task(self, cell: Cell, entrant: Entrant, digest: bool, scratch: Path) -> Task | RawTask:
        if entrant.raw:
            return RawTask(*entrant.raw, tuple(map(str, cell.place.files)))
        env = {}
        if entrant.contender == "inrush":
            profile = scratch / "profile.json"
            if entrant.profile and not profile.exists():
                shutil.copy(entrant.profile, profile)
            env = {"INRUSH_PROFILE": str(profile)}
        return Task(
            entrant.contender,
            str(cell.place.folder),
            cell.job,
            cell.threads,
            entrant.options,
            env,
            self.native,
            digest,
            entrant.denied,
        )


def marks_of_loads() -> list[Path]:
    """What loads of the last hour have left in the registry, of whatever files."""
    return list(Path(f"/dev/shm/inrush-{os.geteuid()}").glob("*/seen"))


def forget_loads() -> None:
    """Remove the marks by which Inrush knows that files were loaded here within the hour.

    Otherwise every round would be the restart of the one before. Marks of loads that still run
    are locked files of other names, and stay.
    """
    for mark in marks_of_loads():
        mark.unlink(missing_ok=True)


def put(cell: Cell) -> None:
    if cell.residency != "memory":
        pages.put(cell.place.files, cell.residency, cell.place.probed)


def run_together(running: list[Running]) -> dict[str, Any]:
    """Let all go at once. The time is the slowest one's; CPU and memory are of all together."""
    for process in running:
        process.go()
    results = [process.result() for process in running]
    whole = dict(results[0])
    for name in ("seconds", "load_seconds", "open_seconds"):
        whole[name] = max(result.get(name, 0.0) for result in results)
    for name in ("cpu_seconds", "device_bytes", "anonymous_peak", "peak_bytes"):
        whole[name] = sum(result.get(name, 0) for result in results)
    digests = {result.get("digest") for result in results}
    if len(digests) > 1:
        whole["digest"] = "processes differ: " + " ".join(sorted(map(str, digests)))
    return whole


def add(total: dict[str, Any], found: dict[str, Any]) -> None:
    """A restart's figures onto those of the loads before it; ``steps`` keeps each one's time."""
    total.setdefault("steps", []).append(round(found["seconds"], 6))
    for name, value in found.items():
        if isinstance(value, str) or name in ("bytes", "tensors", "touched"):
            total.setdefault(name, value)
        elif name in ("anonymous_peak", "peak_bytes", "anonymous_bytes"):
            total[name] = max(total.get(name, 0), value)
        else:
            total[name] = round(total.get(name, 0) + value, 6)


def is_hopeless(entrant: Entrant, seen: dict[str, list[dict[str, Any]]]) -> bool:
    """Whether a droppable entrant is too slow to become the best."""
    if not entrant.droppable:
        return False
    best = min(
        (round_["seconds"] for rounds in seen.values() for round_ in rounds if "seconds" in round_),
        default=0.0,
    )
    return bool(seen[entrant.label][-1]["seconds"] > HOPELESS * best + 0.005)


def differing(seen: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Labels whose tensors are not, byte for byte, what most others delivered."""
    digests = {
        label: rounds[0]["digest"] for label, rounds in seen.items() if "digest" in rounds[0]
    }
    if not digests:
        return []
    common = statistics.mode(digests.values())
    return sorted(label for label, digest in digests.items() if digest != common)
