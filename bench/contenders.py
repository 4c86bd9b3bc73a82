"""The loaders that are compared, each by its plain documented call, all into torch tensors on CPU.

A contender has two steps: ``prepare`` imports it and is not timed; what it returns is called with
the folder of the checkpoint and gives the tensors by name. What a loader can say about its run is
put into ``said`` as a function, called after the clock has stopped.
"""

from __future__ import annotations

import glob
import importlib
import importlib.metadata
import importlib.util
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Tensors = Mapping[str, Any]
Load = Callable[[str], Tensors]
Said = dict[str, Callable[[], Any]]

BACKENDS = ("uring", "aio", "pread", "uring_buffered", "aio_buffered", "pread_buffered", "mmap")


def shards(folder: str) -> list[str]:
    return sorted(glob.glob(os.path.join(folder, "*.safetensors")))


def prepare_safetensors(options: Mapping[str, Any], said: Said) -> Load:
    from safetensors.torch import load_file

    def load(folder: str) -> Tensors:
        found: dict[str, Any] = {}
        for path in shards(folder):
            found.update(load_file(path))
        return found

    return load


def prepare_clone(options: Mapping[str, Any], said: Said) -> Load:
    """safetensors, each tensor cloned into memory of its own: what who keeps weights must do."""
    from safetensors import safe_open

    def load(folder: str) -> Tensors:
        found: dict[str, Any] = {}
        for path in shards(folder):
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 (not a dict)
                    found[name] = file.get_tensor(name).clone()
        return found

    return load


def prepare_fastsafetensors(options: Mapping[str, Any], said: Said) -> Load:
    from fastsafetensors import SafeTensorsFileLoader

    def load(folder: str) -> Tensors:
        loader = SafeTensorsFileLoader(None, "cpu", nogds=True)
        loader.add_filenames({0: shards(folder)})
        buffers = loader.copy_files_to_device()
        return {name: buffers.get_tensor(name) for name in buffers.key_to_rank_lidx}

    return load


def prepare_runai(options: Mapping[str, Any], said: Said) -> Load:
    os.environ.setdefault("RUNAI_STREAMER_LOG_LEVEL", "ERROR")
    from runai_model_streamer import SafetensorsStreamer

    def load(folder: str) -> Tensors:
        with SafetensorsStreamer() as streamer:
            streamer.stream_files(shards(folder))
            return dict(streamer.get_tensors())

    return load


def prepare_inrush(options: Mapping[str, Any], said: Said) -> Load:
    inrush = importlib.import_module("inrush")

    def load(folder: str) -> Tensors:
        # What Checkpoint.load() does, with the job kept for its account of itself.
        with inrush.open(folder, **{"framework": "pt", **options}).start() as job:
            tensors = dict(job)
        said["stats"] = job.stats
        return tensors

    return load


def prepare_handle(name: str) -> Callable[[str], Any]:
    """``safe_open`` of a contender that has one: called with the path of one shard."""
    module = importlib.import_module({"safetensors": "safetensors", "inrush": "inrush"}[name])

    def open_shard(path: str) -> Any:
        return module.safe_open(path, framework="pt")

    return open_shard


@dataclass(frozen=True)
class Contender:
    """One row: the label in tables, the package it comes from, and how it loads."""

    label: str
    package: str
    prepare: Callable[[Mapping[str, Any], Said], Load]


CONTENDERS = {
    "inrush": Contender("Inrush", "inrush", prepare_inrush),
    "safetensors": Contender("safetensors", "safetensors", prepare_safetensors),
    "safetensors_clone": Contender("safetensors + clone", "safetensors", prepare_clone),
    "fastsafetensors": Contender("fastsafetensors", "fastsafetensors", prepare_fastsafetensors),
    "runai": Contender("Run:ai streamer", "runai-model-streamer", prepare_runai),
}
PEERS = ("safetensors", "safetensors_clone", "fastsafetensors", "runai")

# Peers that are looked for but cannot take part, and why.
ABSENT = {
    "instanttensor": "needs a CUDA or ROCm device; it has no way to load into host memory",
}


def package_version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def version(name: str) -> str | None:
    """The installed version of a contender, or None where it is not installed."""
    package = CONTENDERS[name].package
    found = package_version(package)
    if found is not None:
        return found
    spec = importlib.util.find_spec(package.replace("-", "_"))
    # A mere folder of that name, such as the one with the C++ sources here, has no origin.
    return "not packaged" if spec and spec.origin else None


def installed(names: tuple[str, ...]) -> list[str]:
    return [name for name in names if version(name) is not None]
