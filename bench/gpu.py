"""Loads to a GPU beside those of others and the limit: `make bench-gpu`, on a machine with one.

Needs the package and torch, takes part who else is installed, and no network. Every cell is kept as
soon as it is measured; a call stops after some minutes, and another goes on where it stopped. The
loaders take turns, each in a process of its own that has imported it and made its context before
the clock starts. Nothing is called cold or warm that the kernel does not say is so.
"""

from __future__ import annotations

import argparse
import importlib
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

from bench import pages

MIB = 1 << 20
GIB = 1 << 30
BLOCK = 64 * MIB
RAW_BLOCK = 4 * MIB
RAW_THREADS = 16
LIMIT_S = 120
SAMPLE_S = 0.005
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


class NotInState(RuntimeError):
    """The page cache does not hold what the cell is named after."""


def set_state(files: list[Path], state: str) -> None:
    """Make files cold or warm, and ask the kernel whether they are.

    Raises
    ------
    NotInState
        If they are not, or the kernel does not tell.
    """
    if state == "memory":
        return
    if state == "cold":
        pages.evict(files)
    else:
        for path in files:
            pages.read_ranges(path, [(0, path.stat().st_size)])
    try:
        share = pages.told_share(files)
    except OSError as error:
        raise NotInState(f"whether it is {state} cannot be said: {error}") from None
    if (share > 0.01) if state == "cold" else (share < 0.99):
        raise NotInState(f"not {state}: {share:.0%} of it is in the page cache")


Seen = Callable[[], None]  # called as tensors come: the first call counts


def by_inrush(files: list[str], seen: Seen, **words: Any) -> Any:
    import inrush.torch

    folder = str(Path(files[0]).parent)
    tensors = {}
    with inrush.open(folder, framework="pt", device="cuda:0", **words).start() as job:
        for name, tensor in job:
            seen()
            tensors[name] = tensor
        stats = job.stats()
    return tensors, {key: stats[key] for key in ("choice", "peak_staging", "peak_device_staging")}


def by_cufile(files: list[str], seen: Seen) -> Any:
    return by_inrush(files, seen, backend="cufile", strict=True)


def read_raw(files: list[str], seen: Seen, flags: int = 0) -> None:
    """The limit of storage: every byte once, by threads, into memory that is used again."""
    del seen
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


def read_raw_direct(files: list[str], seen: Seen) -> None:
    read_raw(files, seen, os.O_DIRECT)


def by_safetensors(files: list[str], seen: Seen) -> Any:
    del seen
    import safetensors.torch

    return [safetensors.torch.load_file(path, "cuda:0") for path in files]


def by_instanttensor(files: list[str], seen: Seen) -> Any:
    import instanttensor  # type: ignore[import-not-found,unused-ignore]

    tensors = {}
    with instanttensor.safe_open(files, framework="pt", device=0) as opened:
        for name, tensor in opened.tensors():
            seen()
            tensors[name] = tensor.clone()
    return tensors


def by_fastsafetensors(files: list[str], seen: Seen) -> Any:
    import fastsafetensors

    del seen
    loader = fastsafetensors.SafeTensorsFileLoader(None, "cuda:0", nogds=True)
    loader.add_filenames({0: files})
    buffers = loader.copy_files_to_device()
    return {name: buffers.get_tensor(name) for name in loader.get_keys()}, buffers, loader


def by_runai(files: list[str], seen: Seen) -> Any:
    import runai_model_streamer

    tensors = {}
    with runai_model_streamer.SafetensorsStreamer() as streamer:
        streamer.stream_files(files)
        for name, tensor in streamer.get_tensors():
            tensors[name] = tensor.to("cuda:0")
            seen()
    return tensors


def pinned_copy(files: list[str], seen: Seen) -> Any:
    """The limit of the link: as many bytes out of a pinned buffer."""
    import torch

    del files, seen
    source = torch.empty(256 * MIB, dtype=torch.uint8, pin_memory=True)
    target = torch.empty(256 * MIB, dtype=torch.uint8, device="cuda:0")
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(16):
        target.copy_(source, non_blocking=True)
    torch.cuda.synchronize()
    return 16 * 256 * MIB / (time.perf_counter() - began)


LOADERS: dict[str, Callable[[list[str], Seen], Any]] = {
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


MODULES = {
    "inrush": "inrush.torch",
    "inrush_cufile": "inrush.torch",
    "safetensors": "safetensors.torch",
    "instanttensor": "instanttensor",
    "fastsafetensors": "fastsafetensors",
    "runai": "runai_model_streamer",
}


class Gpu:
    """What is asked of the GPU: torch's answers, of device 0."""

    def __init__(self) -> None:
        import torch

        self._torch = torch
        torch.zeros(1, device="cuda:0")
        self.wait()
        self.name = torch.cuda.get_device_name(0)

    def wait(self) -> None:
        self._torch.cuda.synchronize()

    def free(self) -> int:
        return int(self._torch.cuda.mem_get_info()[0])

    def reserved(self) -> int:
        """Bytes that the framework's allocator holds."""
        return int(self._torch.cuda.memory_reserved())


def host_bytes() -> int:
    """Of this process: anonymous and shared memory, not what it has mapped of files."""
    sizes = {}
    for line in Path("/proc/self/status").read_text().splitlines():
        key, _, value = line.partition(":")
        if key in ("RssAnon", "RssShmem"):
            sizes[key] = int(value.split()[0]) * 1024
    return sum(sizes.values())


class Peaks:
    """The most memory in use while it is entered, sampled every few milliseconds."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self._free, self._host = gpu.free(), host_bytes()
        self.device = self.host = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _look(self) -> None:
        self.device = max(self.device, self._free - self._gpu.free())
        self.host = max(self.host, host_bytes() - self._host)

    def _run(self) -> None:
        while not self._end.wait(SAMPLE_S):
            self._look()

    def __enter__(self) -> Peaks:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._end.set()
        self._thread.join()
        self._look()


def child(loader: str, files: list[str], size: int, gpu: Gpu) -> dict[str, Any]:
    """One measurement, in a process of its own."""
    if loader in MODULES:
        importlib.import_module(MODULES[loader])
    firsts: list[float] = []

    def seen() -> None:
        if not firsts:
            firsts.append(time.perf_counter() - began)

    free, reserved = gpu.free(), gpu.reserved()
    with Peaks(gpu) as peaks:
        cpu = sum(os.times()[:2])
        began = time.perf_counter()
        kept = LOADERS[loader](files, seen)
        gpu.wait()
        seconds = time.perf_counter() - began
        cpu = sum(os.times()[:2]) - cpu
    rate = kept if loader == "pinned" else size / seconds
    own: dict[str, Any] = kept[1] if loader.startswith("inrush") else {}
    return {
        "gb_per_s": rate / 1e9,
        "seconds": seconds,
        "first_s": firsts[0] if firsts else None,
        "cpu_s_per_gb": cpu / (size / 1e9),
        "device_bytes": free - gpu.free(),
        "reserved_bytes": gpu.reserved() - reserved,
        "peak_device_bytes": peaks.device,
        "peak_host_bytes": peaks.host,
        "tensor_bytes": size,
        "device": gpu.name,
        **own,
    }


def measure(loader: str, folder: Path, state: str, size: int) -> dict[str, Any]:
    files = sorted(folder.glob("*.safetensors"))
    try:
        set_state(files, state)
    except NotInState as error:
        return {"error": str(error)}
    command = [sys.executable, "-m", "bench.gpu", "--child", loader, "--size", str(size)]
    command += [str(path) for path in files]
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
        print(json.dumps(child(asked.child, asked.files, asked.size, Gpu())))
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


def cell_text(seen: list[dict[str, Any]], loader: str) -> str:
    """The medians of a cell's rounds, or why there is none."""
    good = [one for one in seen if "gb_per_s" in one]
    if not good:
        return str(seen[0]["error"])

    def middle(key: str) -> float:
        return statistics.median(float(one[key]) for one in good)

    text = f"{middle('gb_per_s'):.2f} GB/s"
    if loader not in MODULES:
        return text  # a limit
    if all(one["first_s"] is not None for one in good):
        text += f", first tensor after {middle('first_s') * 1000:.0f} ms"
    beyond = (middle("peak_device_bytes") - middle("tensor_bytes")) / MIB
    text += f", {beyond:+.0f} MiB of device memory beside the tensors at most"
    return text + f", {middle('peak_host_bytes') / MIB:.0f} MiB of host memory"


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
            for key, loader in keys.items():
                print(f"{key}: {cell_text(cells[key], loader)}", flush=True)
        if place == "tmpfs":
            shutil.rmtree(PLACES["tmpfs"], ignore_errors=True)
    return True


if __name__ == "__main__":
    sys.exit(main())
