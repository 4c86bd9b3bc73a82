#!/usr/bin/env python3
"""Makes a real sharded checkpoint and loads it, cold and warm: what `make demo` runs.

tools/demo.py FOLDER
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from make_checkpoint import write_checkpoint

INRUSH = Path(sys.executable).parent / "inrush"
MOST, LEAST = 5 << 29, 1 << 26  # bytes: 2.5 GiB, 64 MiB


def fitting_size(folder: Path) -> int:
    """Bytes for which there is room on the disk, and in memory for the file and its copy."""
    disk = shutil.disk_usage(folder).free
    meminfo = Path("/proc/meminfo").read_text()
    memory = 1024 * int(meminfo.split("MemAvailable:")[1].split()[0])
    return max(LEAST, min(MOST, disk // 3, memory // 3))


def evict(files: list[Path]) -> None:
    """Have the kernel drop the files' pages, which it does only for what is on the disk."""
    for path in files:
        file = os.open(path, os.O_RDONLY)
        os.fsync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)


def show(*command: str) -> None:
    """Print a command as one would type it, and run it."""
    print(f"\n$ {' '.join(command)}", flush=True)
    subprocess.run([str(INRUSH), *command[1:]], check=True)


def main() -> None:
    """Make the checkpoint unless it is there, then load it."""
    folder = Path(sys.argv[1]) / "model"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "model.safetensors.index.json").exists():
        size = fitting_size(folder)
        print(f"making a checkpoint of {size / 2**30:.1f} GiB in {folder} ...", flush=True)
        start = time.monotonic()
        write_checkpoint(folder, size, shards=2)
        print(f"made in {time.monotonic() - start:.0f} s")
    files = sorted(folder.glob("*.safetensors"))

    print("\nCold: nothing of it is in the page cache.")
    evict(files)
    show("inrush", "load", str(folder), "--explain")

    print("\nWarm: the same again, in a fresh process.")
    show("inrush", "load", str(folder), "--explain")
    print("\nWarm, as a copy of the caller's own.")
    show("inrush", "load", str(folder), "--mapping", "never", "--explain")
    print(f"\nThe checkpoint stays in {folder}; `make clean` removes it.")


if __name__ == "__main__":
    main()
