"""How each loader brings a checkpoint to GPU 0, and what is asked of the tensors afterwards.

Runs in the process that is measured: a loader's package is imported there, before the clock starts.
"""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

MIB = 1 << 20
BLOCK = 64 * MIB
DEVICE = "cuda:0"
STREAMS = (1, 2, 4, 8)
SIZES = (1 * MIB, 2 * MIB, 4 * MIB)  # of copies such as a load's, an event behind each

Seen = Callable[[], None]  # called as tensors come: the first call counts
Loaded = tuple[dict[str, Any], dict[str, Any]]  # the tensors, and what the loader tells of itself
Loader = Callable[[list[str], Seen], Loaded]


def by_inrush(files: list[str], seen: Seen, **words: Any) -> Loaded:
    import inrush.torch

    folder = str(Path(files[0]).parent)
    tensors = {}
    with inrush.open(folder, framework="pt", device=DEVICE, **words).start() as job:
        for name, tensor in job:
            seen()
            tensors[name] = tensor
        stats = job.stats()
    told = ("choice", "why", "budget", "peak_staging", "peak_device_staging")
    return tensors, {key: stats[key] for key in told}


def by_stream(files: list[str], seen: Seen) -> Loaded:
    """Tensors as they come: memory is asked for as far ahead as the budget says, not for all."""
    import inrush.torch

    folder = str(Path(files[0]).parent)
    tensors = {}
    for name, tensor in inrush.open(folder, framework="pt", device=DEVICE).tensors():
        seen()
        tensors[name] = tensor
    return tensors, {}


def by_cufile(files: list[str], seen: Seen) -> Loaded:
    return by_inrush(files, seen, backend="cufile", strict=True)


def by_safetensors(files: list[str], seen: Seen) -> Loaded:
    """What its load_file does, tensor by tensor."""
    import safetensors

    tensors = {}
    for path in files:
        with safetensors.safe_open(path, framework="pt", device=DEVICE) as opened:
            for name in opened.keys():  # noqa: SIM118 (it is no dict)
                tensors[name] = opened.get_tensor(name)
                seen()
    return tensors, {}


def by_instanttensor(files: list[str], seen: Seen, **words: Any) -> Loaded:
    """Its tensors are copies of their own already; around the page cache unless told otherwise."""
    import instanttensor  # type: ignore[import-not-found,unused-ignore]

    tensors = {}
    with instanttensor.safe_open(list(files), framework="pt", device=0, **words) as opened:
        for name, tensor in opened.tensors():
            seen()
            tensors[name] = tensor
        told = {"choice": str(getattr(opened, "backend", ""))}
    return tensors, told


def by_instanttensor_buffered(files: list[str], seen: Seen) -> Loaded:
    """As its documentation advises for files in the page cache."""
    import instanttensor

    return by_instanttensor(files, seen, backend=instanttensor.BackendPolicy.BUFFERED)


def by_fastsafetensors(files: list[str], seen: Seen) -> Loaded:
    import fastsafetensors

    loader = fastsafetensors.SafeTensorsFileLoader(None, DEVICE, nogds=True)
    loader.add_filenames({0: list(files)})
    buffers = loader.copy_files_to_device()
    tensors = {}
    for name in loader.get_keys():
        tensors[name] = buffers.get_tensor(name)
        seen()
    buffers.close()
    loader.close()
    return tensors, {}


def by_runai(files: list[str], seen: Seen) -> Loaded:
    import runai_model_streamer

    tensors = {}
    with runai_model_streamer.SafetensorsStreamer() as streamer:
        streamer.stream_files(list(files), device=DEVICE)
        for name, tensor in streamer.get_tensors():
            tensors[name] = tensor
            seen()
    return tensors, {}


LOADERS: dict[str, Loader] = {
    "inrush": by_inrush,
    "inrush_stream": by_stream,
    "inrush_cufile": by_cufile,
    "instanttensor": by_instanttensor,
    "instanttensor_buffered": by_instanttensor_buffered,
    "fastsafetensors": by_fastsafetensors,
    "runai": by_runai,
    "safetensors": by_safetensors,
}
# What is imported before the clock starts, and the distribution that it comes from.
MODULES = {
    "inrush": ("inrush.torch", "inrush"),
    "inrush_stream": ("inrush.torch", "inrush"),
    "inrush_cufile": ("inrush.torch", "inrush"),
    "instanttensor": ("instanttensor", "instanttensor"),
    "instanttensor_buffered": ("instanttensor", "instanttensor"),
    "fastsafetensors": ("fastsafetensors", "fastsafetensors"),
    "runai": ("runai_model_streamer", "runai-model-streamer"),
    "safetensors": ("safetensors.torch", "safetensors"),
}


def digest(tensors: dict[str, Any]) -> str:
    """Of names and of every byte where it stands: equal for loaders that deliver the same."""
    import torch

    step = 8 * MIB  # words of 8 bytes
    weights: Any = None
    total = 0
    for name, tensor in tensors.items():
        raw = tensor.detach().reshape(-1).view(torch.uint8)
        if raw.numel() % 8 or raw.data_ptr() % 8:
            raw = torch.nn.functional.pad(raw, (0, -raw.numel() % 8)).clone()
        words = raw.view(torch.int64)
        if weights is None:
            weights = torch.arange(1, 2 * step, 2, dtype=torch.int64, device=raw.device)
        value = 0
        for i in range(0, words.numel(), step):
            part = words[i : i + step]
            value += int((part * weights[: part.numel()]).sum()) * (2 * i + 1)
        told = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total += (value ^ told) * 0x9E3779B97F4A7C15
    return f"{total % (1 << 64):016x}"


def pinned_rates(copies: int = 128) -> dict[str, Any]:
    """The limit of the link: 64 MiB at a time out of pinned memory, by one stream and several.

    Copies of a slot's size show what of it the slots cost.
    """
    import torch

    sample = torch.frombuffer(bytearray(os.urandom(BLOCK)), dtype=torch.uint8)
    sources: list[Any] = [torch.empty(BLOCK, dtype=torch.uint8, pin_memory=True) for _ in range(8)]
    targets: list[Any] = [torch.empty(BLOCK, dtype=torch.uint8, device=DEVICE) for _ in range(8)]
    for source in sources:
        source.copy_(sample)
    cuda: Any = torch.cuda

    def rate(streams: int, size: int) -> float:
        at = [cuda.Stream() for _ in range(streams)]
        parts = [
            [*zip(target.split(size), source.split(size), strict=True)]
            for target, source in zip(targets, sources, strict=True)
        ]
        events = [cuda.Event() for _ in range(BLOCK // size)]
        cuda.synchronize()
        began = time.perf_counter()
        for i in range(copies):
            with cuda.stream(at[i % streams]):
                for (target, source), event in zip(parts[i % 8], events, strict=True):
                    target.copy_(source, non_blocking=True)
                    event.record()
        cuda.synchronize()
        return copies * BLOCK / (time.perf_counter() - began) / 1e9

    ways = {f"{count} streams": (count, BLOCK) for count in STREAMS}
    ways |= {f"{size // MIB} MiB a copy": (4, size) for size in SIZES}
    rates = {name: max(rate(*way) for _ in range(3)) for name, way in ways.items()}
    return {"gb_per_s": max(rates.values()), "by_way": rates}
