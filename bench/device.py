"""What the pipeline to a device costs by itself: CPU seconds per GB, with the fake driver.

Its copies are only counted, as a device's copy engine would make them, so what is left is reading,
bookkeeping and the fake's own threads. Sources are read around the page cache: no byte is copied by
a processor.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from bench import pages
from bench.fixtures import GIB
from bench.places import open_filesystem
from bench.session import Session

LIBRARY = Path("build/release/libfake_driver.so")
GOAL = 0.05

_CHILD = """
import ctypes, json, resource, sys, time
driver = ctypes.CDLL(sys.argv[1])
driver.fake_set.argtypes = (ctypes.c_char_p, ctypes.c_int64)
driver.fake_set(b"memory", 1 << 40)
driver.fake_set(b"instant", 1)
import inrush
def used():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
before, began = used(), time.perf_counter()
with inrush.open(sys.argv[2], device="cuda:0", backend="uring", strict=True).start() as job:
    job.wait()
    stats = job.stats()
seconds = time.perf_counter() - began
gigabytes = stats["bytes"] / 1e9
print(json.dumps({"cpu_s_per_gb": (used() - before) / gigabytes, "gb_per_s": gigabytes / seconds,
                  "peak_staging": stats["peak_staging"]}))
"""


def device(session: Session) -> None:
    """The median of some loads, off the disk."""
    rounds = []
    environment = {**os.environ, "INRUSH_CUDA_LIBRARY": str(LIBRARY.resolve())}
    with open_filesystem("disk", [session.fixture("llama", GIB, 2)]) as (place,):
        for _ in range(3 if session.quick else 5):
            pages.evict(place.files)
            command = [sys.executable, "-c", _CHILD, str(LIBRARY), str(place.files[0].parent)]
            run = subprocess.run(
                command, env=environment, capture_output=True, text=True, check=False
            )
            if run.returncode != 0:
                print(f"device: {run.stderr.strip()}", file=sys.stderr)
                return
            rounds.append(json.loads(run.stdout))
    rounds.sort(key=lambda one: float(one["cpu_s_per_gb"]))
    middle = rounds[len(rounds) // 2]
    session.results.note("device", rounds)
    print(
        f"device: {middle['cpu_s_per_gb']:.3f} CPU s/GB beyond the device's own copies "
        f"(goal {GOAL}), {middle['gb_per_s']:.2f} GB/s",
        file=sys.stderr,
    )
