"""What fio reaches on the file of the largest fixture: the limit by somebody else's hand."""

from __future__ import annotations

import json
import shutil
import subprocess
from itertools import product
from pathlib import Path
from typing import Any

SECONDS = 2
BLOCKS = ("256k", "1m", "4m")
DEPTHS = (8, 32, 64)
THREADS = (8, 16)


def fio_grid(file: Path, quick: bool = False) -> list[dict[str, Any]]:
    """Direct sequential reads: io_uring over blocks and depths, psync over blocks and threads.

    Each point runs two seconds: bytes a second, and CPU seconds per GB.
    """
    if shutil.which("fio") is None:
        return []
    points = [("io_uring", block, depth) for block, depth in product(BLOCKS, DEPTHS)]
    points += [("psync", block, threads) for block, threads in product(BLOCKS[1:], THREADS)]
    if quick:
        points = [("io_uring", "1m", 32), ("psync", "1m", 16)]
    return [fio_point(file, *point) for point in points]


def fio_point(file: Path, engine: str, block: str, width: int) -> dict[str, Any]:
    jobs, depth = (1, width) if engine == "io_uring" else (width, 1)
    part = file.stat().st_size // jobs // (4 << 20) * (4 << 20)
    command = [
        "fio",
        "--name=limit",
        f"--filename={file}",
        "--readonly",
        "--rw=read",
        "--direct=1",
        f"--ioengine={engine}",
        f"--bs={block}",
        f"--iodepth={depth}",
        f"--numjobs={jobs}",
        f"--size={part}",
        f"--offset_increment={part}",
        "--thread",
        "--time_based",
        f"--runtime={SECONDS}",
        "--group_reporting",
        "--output-format=json",
    ]
    point: dict[str, Any] = {"engine": engine, "block": block, "depth": depth, "threads": jobs}
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return {**point, "error": done.stderr.strip()[:300]}
    job = json.loads(done.stdout[done.stdout.index("{") :])["jobs"][0]
    read = job["read"]
    gigabytes = read["io_bytes"] / 1e9
    # The percentages are of one job's wall time, averaged over the jobs of the group.
    busy = (job["usr_cpu"] + job["sys_cpu"]) / 100 * read["runtime"] / 1000 * jobs
    return {**point, "gb_per_s": read["bw_bytes"] / 1e9, "cpu_per_gb": busy / gigabytes}


def best_point(points: list[dict[str, Any]], engine: str | None = None) -> dict[str, Any] | None:
    found = [point for point in points if "gb_per_s" in point and engine in (None, point["engine"])]
    return max(found, key=lambda point: point["gb_per_s"]) if found else None
