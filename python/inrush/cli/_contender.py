"""One loader on one checkpoint in this fresh process: python -m inrush.cli._contender NAME FILE...

Prints one JSON line: seconds to load every tensor and touch every page of it, and bytes. What is
imported before is not timed.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

_PAGE = 4096

Load = Callable[[list[str]], Mapping[str, Any]]


def _inrush(backend: str | None) -> Load:
    import inrush
    from inrush._arguments import WHOLE

    words: dict[str, Any] = {**WHOLE, "backend": backend, "strict": backend is not None}

    def load(files: list[str]) -> Mapping[str, Any]:
        with inrush.open(files, **words) as checkpoint:
            return checkpoint.load()

    return load


def _safetensors() -> Load:
    from safetensors.torch import load_file

    def load(files: list[str]) -> Mapping[str, Any]:
        return {name: tensor for file in files for name, tensor in load_file(file).items()}

    return load


def _fastsafetensors() -> Load:
    from fastsafetensors import SafeTensorsFileLoader

    def load(files: list[str]) -> Mapping[str, Any]:
        loader = SafeTensorsFileLoader(None, "cpu", nogds=True)
        loader.add_filenames({0: files})
        buffers = loader.copy_files_to_device()
        return {name: buffers.get_tensor(name) for name in buffers.key_to_rank_lidx}

    return load


def _runai_model_streamer() -> Load:
    from runai_model_streamer import SafetensorsStreamer

    def load(files: list[str]) -> Mapping[str, Any]:
        with SafetensorsStreamer() as streamer:
            streamer.stream_files(files)
            return {name: tensor.clone().detach() for name, tensor in streamer.get_tensors()}

    return load


def _instanttensor() -> Load:
    from instanttensor import safe_open  # type: ignore[import-not-found,unused-ignore]

    def load(files: list[str]) -> Mapping[str, Any]:
        with safe_open(files, framework="pt", device=0) as opened:
            return dict(opened.tensors())

    return load


# Peers by the name of their package.
PEERS: dict[str, Callable[[], Load]] = {
    "safetensors": _safetensors,
    "fastsafetensors": _fastsafetensors,
    "runai_model_streamer": _runai_model_streamer,
    "instanttensor": _instanttensor,
}


def _touch(tensors: Iterable[Any]) -> int:
    touched = 0
    for tensor in tensors:
        if hasattr(tensor, "untyped_storage"):
            import torch

            touched += int(tensor.reshape(-1).view(torch.uint8)[::_PAGE].sum())
        elif tensor.nbytes:
            touched += len(memoryview(tensor).cast("B")[::_PAGE].tobytes())
    return touched


def main() -> None:
    """Run the contender named in the arguments."""
    name, *files = sys.argv[1:]
    product, _, backend = name.partition(":")
    load = _inrush(backend or None) if product == "inrush" else PEERS[product]()
    begin = time.perf_counter()
    tensors = load(files)
    _touch(tensors.values())
    seconds = time.perf_counter() - begin
    size = sum(tensor.nbytes for tensor in tensors.values())
    print(json.dumps({"seconds": seconds, "bytes": size, "tensors": len(tensors)}))


if __name__ == "__main__":
    main()
