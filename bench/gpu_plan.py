"""What `make bench-gpu` measures, in order of importance, and what of it still fits in the time.

The results file keeps a run for each GPU and build of Inrush, so that figures of two machines or
of two builds are never mixed; what is there already is not measured again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GIGABYTE = 10**9
PEERS = ("instanttensor", "fastsafetensors", "runai", "safetensors")
START_S = 3.0  # a process, its context, and giving all of it back
# Bytes a second that are expected of a loader that was not seen yet, and of making files.
EXPECTED = 3e9
MAKING = {"tmpfs": 4e9, "disk": 1e9}
UNIT_S = 20.0  # no further round begins after that


@dataclass(frozen=True)
class Cell:
    """A kind of checkpoint in one place and state, and who loads it."""

    place: str  # tmpfs, disk
    state: str  # memory, cold, warm
    kind: str  # dense, experts
    loaders: tuple[str, ...]

    @property
    def key(self) -> str:
        return f"{self.place} {self.state} {self.kind}"

    @property
    def files_key(self) -> str:
        return f"{self.place} {self.kind}"


def cells() -> tuple[Cell, ...]:
    """All of them; those that share files stand together."""
    memory = ("inrush", *PEERS, "inrush_stream")
    cold = ("inrush", *PEERS, "inrush_cufile")
    warm = ("inrush", "instanttensor_buffered", *PEERS)
    return (
        Cell("tmpfs", "memory", "dense", memory),
        Cell("tmpfs", "memory", "experts", memory),
        Cell("disk", "cold", "dense", cold),
        Cell("disk", "warm", "dense", warm),
        Cell("disk", "cold", "experts", cold),
        Cell("disk", "warm", "experts", warm),
    )


@dataclass(frozen=True)
class Wanted:
    """Bytes of the checkpoints, before what the machine has is asked."""

    tmpfs_dense: int = 40 * GIGABYTE
    disk_dense: int = 20 * GIGABYTE
    experts: int = 8 * GIGABYTE

    def of(self, cell: Cell) -> int:
        if cell.kind == "experts":
            return self.experts
        return self.tmpfs_dense if cell.place == "tmpfs" else self.disk_dense


class Results:
    """The file: written after each step, so that nothing is lost when the machine goes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.all: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        self.run: dict[str, Any] = {}

    def choose(self, machine: dict[str, Any]) -> None:
        """Go on with the run of this GPU and this build, or begin one."""
        key = f"{machine['device']}, inrush {machine['build']}"
        self.run = self.all.setdefault(key, {})
        self.run["machine"] = machine
        for part in ("sizes", "limits", "cells"):
            self.run.setdefault(part, {})
        self.save()

    def save(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_suffix(".fresh")
        fresh.write_text(json.dumps(self.all, indent=1) + "\n")
        fresh.replace(self.path)

    def row(self, cell: Cell, loader: str) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self.run["cells"].get(cell.key, {}).get(loader)
        return found

    def keep(self, cell: Cell, loader: str, row: dict[str, Any]) -> None:
        self.run["cells"].setdefault(cell.key, {})[loader] = row
        self.save()

    def forget_failures(self) -> None:
        for rows in self.run["cells"].values():
            for loader in [name for name, row in rows.items() if "error" in row]:
                del rows[loader]
        for name in [name for name, said in self.run["limits"].items() if "error" in said]:
            del self.run["limits"][name]

    def missing(self, cell: Cell) -> list[str]:
        return [loader for loader in cell.loaders if self.row(cell, loader) is None]

    def rate(self, loader: str) -> float:
        """Bytes a second to expect of a loader: the least that was seen of it."""
        seen = [
            one["gb_per_s"] * 1e9
            for rows in self.run["cells"].values()
            for one in rows.get(loader, {}).get("rounds", [])
        ]
        return min(seen, default=EXPECTED)


def expected_s(loader_rate: float, size: int) -> float:
    """Seconds that one round of a loader takes, its process included."""
    return START_S + size / loader_rate


def making_s(cell: Cell, size: int, measured: float | None = None) -> float:
    return size / (measured or MAKING[cell.place])
