"""The processes in which loads to a GPU are measured: ``python -m bench.gpu_child FD``.

That one imports torch, touches no GPU, and forks a process for each task, which imports the loader,
makes its context, says that it is ready, and loads once for each "go". So no loader pays for
imports or the context, and none finds what another left behind. All talk JSON over sockets.
"""

from __future__ import annotations

import faulthandler
import gc
import importlib
import json
import os
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from bench import gpu_loaders
from bench.fork_server import serve

MESSAGE = 1 << 16
SAMPLE_S = 0.02


class Device(Protocol):
    """What is asked of the GPU."""

    name: str

    def wait(self) -> None: ...
    def free(self) -> int: ...
    def reserved(self) -> int: ...
    def give_back(self) -> None: ...


class Gpu:
    """torch's answers, of device 0."""

    def __init__(self) -> None:
        import torch

        self._torch = torch
        torch.zeros(1, device="cuda:0").clone()
        self.wait()
        self.name = torch.cuda.get_device_name(0)

    def wait(self) -> None:
        self._torch.cuda.synchronize()

    def free(self) -> int:
        return int(self._torch.cuda.mem_get_info()[0])

    def reserved(self) -> int:
        """Bytes that the framework's allocator holds."""
        return int(self._torch.cuda.memory_reserved())

    def give_back(self) -> None:
        """What the framework's allocator keeps for later."""
        self._torch.cuda.empty_cache()

    def facts(self) -> dict[str, Any]:
        torch: Any = self._torch
        free, total = torch.cuda.mem_get_info()
        versions = {"torch": torch.__version__, "cuda": torch.version.cuda or torch.version.hip}
        return {"device": self.name, "device_bytes": total, "device_free": free, **versions}


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

    def __init__(self, gpu: Device) -> None:
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


def load_once(loader: str, files: list[str], gpu: Device, *, digest: bool) -> dict[str, Any]:
    """One round; the digest is taken, and memory given back, after the clock has stopped."""
    firsts: list[float] = []

    def seen() -> None:
        if not firsts:
            firsts.append(time.perf_counter() - began)

    gc.collect()
    gpu.give_back()
    free, reserved = gpu.free(), gpu.reserved()
    with Peaks(gpu) as peaks:
        cpu = time.process_time()
        began = time.perf_counter()
        tensors, own = gpu_loaders.LOADERS[loader](files, seen)
        gpu.wait()
        seconds = time.perf_counter() - began
        cpu = time.process_time() - cpu
    size = sum(tensor.nbytes for tensor in tensors.values())
    found = {
        "gb_per_s": size / seconds / 1e9,
        "seconds": seconds,
        "first_s": firsts[0] if firsts else None,
        "cpu_s_per_gb": cpu / (size / 1e9),
        "tensors": len(tensors),
        "tensor_bytes": size,
        "device_bytes": free - gpu.free(),
        "reserved_bytes": gpu.reserved() - reserved,
        "peak_device_bytes": peaks.device,
        "peak_host_bytes": peaks.host,
        **own,
    }
    if digest:
        found["digest"] = gpu_loaders.digest(tensors)
    del tensors
    gc.collect()
    gpu.give_back()
    found["left_bytes"] = free - gpu.free()
    return found


def run(task: dict[str, Any], channel: socket.socket) -> None:
    """One task: ``loader`` and ``files``, or ``about`` the machine, or the ``pinned`` rates."""

    def say(said: dict[str, Any]) -> None:
        channel.send(json.dumps(said).encode())

    os.environ.update(task.get("env", {}))
    loader = task["loader"]
    if loader in gpu_loaders.MODULES:
        importlib.import_module(gpu_loaders.MODULES[loader][0])
    gpu = Gpu()
    if loader == "about":
        say(gpu.facts())
        return
    say({"ready": True})
    rounds = 0
    while channel.recv(16):
        if loader == "pinned":
            say(gpu_loaders.pinned_rates())
        else:
            say(load_once(loader, task["files"], gpu, digest=rounds == 0))
        rounds += 1


def run_reporting(task: dict[str, Any], channel: socket.socket) -> None:
    """As run(), but says first who it is, and what goes wrong. Leaves without freeing."""
    try:
        channel.send(json.dumps({"pid": os.getpid()}).encode())
        log = os.open(task["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        faulthandler.enable()
        run(task, channel)
    except BaseException as error:
        told = f"{type(error).__name__}: {error}".strip().splitlines()
        with suppress(OSError):
            channel.send(json.dumps({"error": told[0][:500]}).encode())
    os._exit(0)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])), run_reporting, MESSAGE)
