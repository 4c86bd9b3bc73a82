"""The results file: what was measured, on what machine, with what; kept cell by cell."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import time
from functools import cache
from pathlib import Path
from typing import Any

from bench import contenders

SCHEMA_VERSION = 1
FOLDER = Path("bench/results")


def first_match(path: str, pattern: str) -> str:
    try:
        found = re.search(pattern, Path(path).read_text(), re.MULTILINE)
    except OSError:
        return "unknown"
    return found.group(1).strip() if found else "unknown"


def machine() -> dict[str, Any]:
    """What the figures depend on: processor, memory, kernel, the disk and its filesystem."""
    kernel = platform.release()
    return {
        "cpu": first_match("/proc/cpuinfo", r"^model name\s*: (.+)$"),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "kernel": kernel,
        "filesystem": filesystem_type(),
        "read_ahead_kib": read_ahead(),
        "huge_pages": first_match("/sys/kernel/mm/transparent_hugepage/enabled", r"\[(\w+)\]"),
        "python": platform.python_version(),
    }


def filesystem_type() -> str:
    """Of the folder we are in: the type of the mount with the longest path above it."""
    here = Path.cwd()
    mounts = (line.split()[1:3] for line in Path("/proc/self/mounts").read_text().splitlines())
    above = [(place, kind) for place, kind in mounts if here.is_relative_to(place)]
    return max(above, key=lambda mount: len(mount[0]))[1]


def read_ahead() -> str:
    number = os.stat(".").st_dev
    queue = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}/queue/read_ahead_kb")
    return queue.read_text().strip() if queue.exists() else "unknown"


def slug() -> str:
    """A file name for this kind of machine: processors, memory, kernel series."""
    series = ".".join(platform.release().split(".")[:2])
    about = machine()
    return f"{about['cpus']}cpu-{round(about['memory_gib'])}gib-linux-{series}"


def versions() -> dict[str, str | None]:
    found = {name: contenders.version(name) for name in contenders.CONTENDERS}
    found["torch"] = contenders.package_version("torch")
    found["fio"] = fio_version()
    return found


def fio_version() -> str | None:
    if shutil.which("fio") is None:
        return None
    asked = subprocess.run(["fio", "--version"], capture_output=True, text=True, check=False)
    return asked.stdout.strip() or None


@cache
def commit() -> str:
    """Of the sources; with ``+`` if some that are measured or measure differ from it."""
    asked = ["git", "rev-parse", "--short=12", "HEAD"]
    found = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    sources = ["inrush", "python/inrush", "python/bindings", "bench/*.py", "bench/*.cpp"]
    changed = subprocess.run(
        ["git", "status", "--porcelain", "--", *sources],
        capture_output=True,
        text=True,
        check=False,
    )
    return found + ("+" if changed.stdout.strip() else "")


class Results:
    """One JSON file; every cell is written as soon as it is measured."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or FOLDER / f"{slug()}.json"
        self.data: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "cells": {}, "figures": {}}
        if self.path.exists():
            self.data = json.loads(self.path.read_text())

    @property
    def cells(self) -> dict[str, Any]:
        found: dict[str, Any] = self.data["cells"]
        return found

    @property
    def figures(self) -> dict[str, Any]:
        """Measurements that are no cells: fio's grid, import times, skipped parts."""
        found: dict[str, Any] = self.data["figures"]
        return found

    def has(self, key: str, rounds: int) -> bool:
        """Whether this cell was measured with this commit, at least so many rounds."""
        cell = self.cells.get(key)
        return bool(cell and cell["commit"] == commit() and cell["pairs"] >= rounds)

    def keep(self, key: str, cell: dict[str, Any], rounds: int) -> None:
        self.cells[key] = {**cell, "commit": commit(), "pairs": rounds, "when": now()}
        self.write()

    def note(self, name: str, value: Any) -> None:
        self.figures[name] = value
        self.write()

    def write(self) -> None:
        self.data["machine"] = machine()
        self.data["versions"] = versions()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_suffix(".fresh")
        fresh.write_text(json.dumps(self.data, indent=1) + "\n")
        fresh.replace(self.path)


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
