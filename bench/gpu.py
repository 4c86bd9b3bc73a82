"""Loads to a GPU beside those of others and the limit: `make bench-gpu`, on a machine with one.

Needs the package and torch, takes part who else is installed, and no network. Every cell is kept as
soon as it is measured; a call stops after some minutes, and another goes on where it stopped. The
loaders take turns, each in a process of its own that has made its context before the clock starts.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

MIB = 1 << 20
GIB = 1 << 30
BLOCK = 64 * MIB
RAW_BLOCK = 4 * MIB
RAW_THREADS = 16
LIMIT_S = 120
PLACES = {"tmpfs": Path("/dev/shm/inrush-bench-gpu"), "disk": Path("build/bench/gpu")}
PEERS = ("safetensors", "instanttensor", "fastsafetensors", "runai")
# Place, state, and who takes part there: the limits, Inrush, and others.
CASES = (
    ("tmpfs", "memory", ("pinned", "raw", "inrush", *PEERS)),
    ("disk", "warm", ("raw", "inrush", *PEERS)),
    ("disk", "cold", ("raw_direct", "inrush", "inrush_cufile", *PEERS)),
)


def shapes(kind: str, size: int) -> Iterator[tuple[str, int]]:
    """Name and bytes of each tensor: a dense model's, or 20,000 small ones."""
    if kind == "dense":
        each = 64 * MIB
        for i in range(max(size // each, 1)):
            yield f"layers.{i}.weight", each
            yield f"layers.{i}.norm", 16384
    else:
        for i in range(20_000):
            yield f"experts.{i}.weight", max(size // 20_000 // 256 * 256, 256)


def make(folder: Path, kind: str, size: int) -> int:
    """Write a checkpoint of four shards unless it is there; its bytes."""
    tensors = list(shapes(kind, size))
    total = sum(nbytes for _, nbytes in tensors)
    if (folder / ".done").exists():
        return total
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    block = bytearray(os.urandom(BLOCK))
    for shard in range(4):
        header: dict[str, Any] = {}
        offset = 0
        for name, nbytes in tensors[shard::4]:
            span = [offset, offset + nbytes]
            header[name] = {"dtype": "U8", "shape": [nbytes], "data_offsets": span}
            offset += nbytes
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with open(folder / f"model-{shard}.safetensors", "wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            while offset > 0:
                block[:16] = os.urandom(16)
                offset -= file.write(memoryview(block)[: min(offset, BLOCK)])
            file.flush()
            os.fsync(file.fileno())
    (folder / ".done").touch()
    return total


def set_state(folder: Path, state: str) -> None:
    """Make files cold or warm."""
    for path in folder.glob("*.safetensors"):
        with open(path, "rb", buffering=0) as file:
            if state == "cold":
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            elif state == "warm":
                while file.read(16 * MIB):
                    pass


def by_inrush(files: list[str]) -> Any:
    import inrush.torch

    return inrush.torch.load_file(str(Path(files[0]).parent), "cuda:0")


def by_cufile(files: list[str]) -> Any:
    import inrush.torch

    folder = str(Path(files[0]).parent)
    return inrush.torch.load_file(folder, "cuda:0", backend="cufile", strict=True)


def read_raw(files: list[str], flags: int = 0) -> None:
    """The limit of storage: every byte once, by threads, into memory that is used again."""
    pieces = [
        (path, offset) for path in files for offset in range(0, os.path.getsize(path), RAW_BLOCK)
    ]
    here = threading.local()

    def read(piece: tuple[str, int]) -> None:
        path, offset = piece
        if not hasattr(here, "memory"):
            here.memory, here.open = mmap.mmap(-1, RAW_BLOCK), {}
        if path not in here.open:
            here.open[path] = os.open(path, os.O_RDONLY | flags)
        os.preadv(here.open[path], [here.memory], offset)

    with ThreadPoolExecutor(RAW_THREADS) as threads:
        list(threads.map(read, pieces))


def read_raw_direct(files: list[str]) -> None:
    read_raw(files, os.O_DIRECT)


def by_safetensors(files: list[str]) -> Any:
    import safetensors.torch

    return [safetensors.torch.load_file(path, "cuda:0") for path in files]


def by_instanttensor(files: list[str]) -> Any:
    import instanttensor  # type: ignore[import-not-found,unused-ignore]

    with instanttensor.safe_open(files, framework="pt", device=0) as opened:
        return {name: tensor.clone() for name, tensor in opened.tensors()}


def by_fastsafetensors(files: list[str]) -> Any:
    import fastsafetensors

    loader = fastsafetensors.SafeTensorsFileLoader(None, "cuda:0", nogds=True)
    loader.add_filenames({0: files})
    buffers = loader.copy_files_to_device()
    return {name: buffers.get_tensor(name) for name in loader.get_keys()}, buffers, loader


def by_runai(files: list[str]) -> Any:
    import runai_model_streamer

    with runai_model_streamer.SafetensorsStreamer() as streamer:
        streamer.stream_files(files)
        return {name: tensor.to("cuda:0") for name, tensor in streamer.get_tensors()}


def pinned_copy(files: list[str]) -> Any:
    """The limit of the link: as many bytes out of a pinned buffer."""
    import torch

    source = torch.empty(256 * MIB, dtype=torch.uint8, pin_memory=True)
    target = torch.empty(256 * MIB, dtype=torch.uint8, device="cuda:0")
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(16):
        target.copy_(source, non_blocking=True)
    torch.cuda.synchronize()
    return 16 * 256 * MIB / (time.perf_counter() - began)


LOADERS: dict[str, Callable[[list[str]], Any]] = {
    "pinned": pinned_copy,
    "raw": read_raw,
    "raw_direct": read_raw_direct,
    "inrush": by_inrush,
    "inrush_cufile": by_cufile,
    "safetensors": by_safetensors,
    "instanttensor": by_instanttensor,
    "fastsafetensors": by_fastsafetensors,
    "runai": by_runai,
}


def child(loader: str, files: list[str], size: int) -> dict[str, Any]:
    """One measurement; prints JSON."""
    import torch

    torch.zeros(1, device="cuda:0")
    torch.cuda.synchronize()
    free, _ = torch.cuda.mem_get_info()
    cpu = sum(os.times()[:2])
    began = time.perf_counter()
    kept = LOADERS[loader](files)
    torch.cuda.synchronize()
    seconds = time.perf_counter() - began
    rate = kept if loader == "pinned" else size / seconds
    left, _ = torch.cuda.mem_get_info()
    return {
        "gb_per_s": rate / 1e9,
        "seconds": seconds,
        "cpu_s_per_gb": (sum(os.times()[:2]) - cpu) / (size / 1e9),
        "device_bytes": free - left,
        "device": torch.cuda.get_device_name(0),
    }


def measure(loader: str, folder: Path, state: str, size: int) -> dict[str, Any]:
    files = sorted(str(path) for path in folder.glob("*.safetensors"))
    set_state(folder, state)
    command = [sys.executable, __file__, "--child", loader, "--size", str(size), *files]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        return {"error": f"took more than {LIMIT_S} s"}
    if run.returncode != 0:
        return {"error": run.stderr.strip().splitlines()[-1] if run.stderr else "died"}
    return dict(json.loads(run.stdout.splitlines()[-1]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--child", choices=LOADERS)
    parser.add_argument("--size", type=int, default=8 * GIB, help="bytes of a checkpoint")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=6, help="then stop between two cells")
    parser.add_argument("--results", type=Path, default=Path("build/bench/gpu.json"))
    parser.add_argument("files", nargs="*")
    asked = parser.parse_args()
    if asked.child:
        print(json.dumps(child(asked.child, asked.files, asked.size)))
        return 0
    try:
        import torch

        usable = torch.cuda.is_available()
    except ImportError:
        usable = False
    if not usable:
        print("bench-gpu: skipped, torch sees no GPU here")
        return 0
    done = measure_all(asked.results, asked.size, asked.rounds, asked.minutes * 60)
    print(
        "bench-gpu: all is measured" if done else "bench-gpu: call it again, it goes on from here"
    )
    return 0


def measure_all(results: Path, wanted: int, rounds: int, seconds: float) -> bool:
    """Whether every cell has its rounds; False where the time was up before."""
    deadline = time.monotonic() + seconds
    cells: dict[str, Any] = json.loads(results.read_text()) if results.exists() else {}
    results.parent.mkdir(parents=True, exist_ok=True)
    for place, state, loaders in CASES:
        for kind in ("dense", "experts"):
            keys = {f"{place} {state} {kind} {loader}": loader for loader in loaders}
            for each in range(rounds):
                for key, loader in keys.items():
                    seen = cells.setdefault(key, [])
                    if len(seen) > each or any("error" in one for one in seen):
                        continue
                    if time.monotonic() >= deadline:
                        return False
                    folder = PLACES[place] / f"{kind}-{wanted}"
                    size = make(folder, kind, wanted)
                    seen.append(measure(loader, folder, state, size))
                    results.write_text(json.dumps(cells, indent=1) + "\n")
            for key in keys:
                rates = [one["gb_per_s"] for one in cells[key] if "gb_per_s" in one]
                text = f"{statistics.median(rates):.2f} GB/s" if rates else cells[key][0]["error"]
                print(f"{key}: {text}", flush=True)
        if place == "tmpfs":
            shutil.rmtree(PLACES["tmpfs"], ignore_errors=True)
    return True


if __name__ == "__main__":
    sys.exit(main())
