"""A folder shown by the filesystem of tests/fuse, which is far away."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "tests/fuse/far_fs.cpp"


def compiled(folder: Path) -> Path:
    if shutil.which("fusermount3") is None or not os.access("/dev/fuse", os.W_OK):
        pytest.skip("no FUSE here")
    flags = subprocess.run(
        ["pkg-config", "--cflags", "--libs", "fuse3"], capture_output=True, text=True, check=False
    )
    if flags.returncode != 0:
        pytest.skip("libfuse3-dev is not installed")
    program = folder / "far_fs"
    command = ["g++", "-O1", "-std=c++20", str(SOURCE), "-o", str(program), "-pthread"]
    subprocess.run([*command, *flags.stdout.split()], check=True)
    return program


@contextlib.contextmanager
def far(folder: Path, tmp_path: Path, *options: str) -> Iterator[Path]:
    """Where the folder is shown, half a millisecond away; skips where FUSE is not to be had."""
    program = compiled(tmp_path)
    place = tmp_path / "far"
    place.mkdir()
    said = ",".join(["latency_us=500", *options])
    process = subprocess.Popen([str(program), str(folder), str(place), "-f", "-o", said])
    try:
        until = time.monotonic() + 10
        while not os.path.ismount(place) and time.monotonic() < until:
            time.sleep(0.02)
        if not os.path.ismount(place):
            pytest.skip("FUSE cannot be mounted here")
        yield place
    finally:
        subprocess.run(["fusermount3", "-u", "-z", str(place)], check=False)
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=10)
