"""One measurement in one process: prepare, say ready, wait for the word, load, touch, report.

``python -m bench.child FD serve`` imports torch once and forks a process for each task, so that no
two measurements share a process and none pays for importing torch; ``... FD one`` runs one task in
a process of its own. Both talk JSON over the inherited socket FD.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import resource
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from bench.denied import deny_queues
from bench.fork_server import serve

MESSAGE = 1 << 18  # bytes, of the longest message


@dataclass(frozen=True)
class Task:
    """What one process does: the contender, the folder, the job and the options of the loader."""

    contender: str
    folder: str
    job: str = "load"  # load, loop, open, each, save, pretrained, formats
    threads: int = 1
    options: dict[str, Any] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    native: str = ""  # path of the library that touches and digests
    digest: bool = False
    denied: bool = False  # io_uring and AIO

    def encode(self) -> bytes:
        return json.dumps(asdict(self)).encode()


def address_of(tensor: Any) -> int:
    """Of a torch tensor, or of one of Inrush's own."""
    address = tensor.data_ptr
    return int(address() if callable(address) else address)


class Native:
    """What is done to every contender's tensors alike, at C speed."""

    def __init__(self, path: str) -> None:
        library = ctypes.CDLL(path)
        self.bench_touch, self.bench_digest = library.bench_touch, library.bench_digest
        self.bench_touch.restype = self.bench_digest.restype = ctypes.c_uint64
        self.bench_digest.argtypes = [ctypes.c_void_p, ctypes.c_uint64]
        self.page = os.sysconf("SC_PAGE_SIZE")

    def touch(self, tensors: list[Any]) -> int:
        numbers = ctypes.c_uint64 * len(tensors)
        addresses = numbers(*map(address_of, tensors))
        sizes = numbers(*(tensor.nbytes for tensor in tensors))
        page = ctypes.c_uint64(self.page)
        return int(self.bench_touch(addresses, sizes, ctypes.c_size_t(len(tensors)), page))

    def digest(self, tensors: dict[str, Any]) -> str:
        """Of names, types, shapes and every byte: equal for loaders that deliver the same."""
        total = 0
        for name, tensor in tensors.items():
            told = f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode()
            value = self.bench_digest(told, len(told))
            value ^= self.bench_digest(address_of(tensor), tensor.nbytes)
            total = (total + value * 0x9E3779B97F4A7C15) % (1 << 64)
        return f"{total:016x}"


def cpu_seconds() -> float:
    """Of all threads of this process and of the children it has waited for."""
    own, children = (resource.getrusage(who) for who in (0, -1))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def device_bytes() -> int:
    """Bytes that this process made the devices read, by the kernel's account; 0 where not told."""
    try:
        with open("/proc/self/io") as account:
            said = dict(line.split(": ") for line in account)
    except OSError:
        return 0
    return int(said["read_bytes"])


def memory_of(pid: int | str = "self") -> dict[str, int]:
    """Bytes by the kernel's names: RssAnon, RssFile, RssShmem, VmRSS, VmHWM."""
    wanted = ("RssAnon", "RssFile", "RssShmem", "VmRSS", "VmHWM")
    found = {}
    with open(f"/proc/{pid}/status") as status:
        for line in status:
            name, _, value = line.partition(":")
            if name in wanted:
                found[name] = int(value.split()[0]) * 1024
    return found


def forget_peak() -> None:
    with open("/proc/self/clear_refs", "w") as control:
        control.write("5")


Timed = Callable[[], tuple[dict[str, Any], float, float]]


def prepare(task: Task, native: Native, said: dict[str, Callable[[], Any]]) -> Timed:
    """The untimed part; what it returns gives the tensors and when opening and loading ended."""
    from bench import contenders

    if task.job == "load":
        load = contenders.CONTENDERS[task.contender].prepare(task.options, said)

        def load_and_touch() -> tuple[dict[str, Any], float, float]:
            tensors = dict(load(task.folder))
            loaded = time.perf_counter()
            native.touch(list(tensors.values()))
            return tensors, loaded, loaded

        return load_and_touch
    if task.job in ("save", "pretrained", "formats"):
        if task.job == "formats":
            from bench import formats

            work = formats.prepare(task.contender, task.folder, task.options)
        else:
            from bench import saving

            work = saving.prepare(task.job, task.contender, task.folder, task.options)

        def work_and_touch() -> tuple[dict[str, Any], float, float]:
            tensors = work()
            done = time.perf_counter()
            if task.job != "save":
                native.touch(list(tensors.values()))
            return tensors, done, done

        return work_and_touch
    open_shard = contenders.prepare_handle(task.contender)

    def through_handles() -> tuple[dict[str, Any], float, float]:
        handles = [open_shard(path) for path in contenders.shards(task.folder)]
        names = [list(handle.keys()) for handle in handles]
        opened = time.perf_counter()
        if task.job == "open":
            return {}, opened, opened
        pairs = zip(handles, names, strict=True)
        work = [(handle, name) for handle, found in pairs for name in found]
        tensors: dict[str, Any] = {}
        if task.job == "each":
            for handle, name in work:
                tensors[name] = handle.get_tensor(name)
            return tensors, opened, time.perf_counter()
        get_on_threads(work, task.threads, tensors, native)
        return tensors, opened, time.perf_counter()

    return through_handles


def get_on_threads(work: list[Any], count: int, tensors: dict[str, Any], native: Native) -> None:
    """``get_tensor`` for each, every tensor touched by the thread that got it."""

    def run(part: list[Any]) -> None:
        for handle, name in part:
            tensor = handle.get_tensor(name)
            native.touch([tensor])
            tensors[name] = tensor

    threads = [threading.Thread(target=run, args=(work[i::count],)) for i in range(1, count)]
    for thread in threads:
        thread.start()
    run(work[0::count])
    for thread in threads:
        thread.join()


def run(task: Task, channel: socket.socket) -> None:
    os.environ.update(task.env)
    if task.denied:
        deny_queues()
    native = Native(task.native)
    said: dict[str, Callable[[], Any]] = {}
    timed = prepare(task, native, said)
    gc.collect()
    gc.freeze()
    forget_peak()
    before = memory_of()
    channel.send(json.dumps({"ready": os.getpid()}).encode())
    if not channel.recv(16):
        return
    read, cpu = device_bytes(), cpu_seconds()
    start = time.perf_counter()
    tensors, opened, loaded = timed()
    end = time.perf_counter()
    cpu = cpu_seconds() - cpu
    read = device_bytes() - read
    after = memory_of()
    result = {
        "seconds": end - start,
        "open_seconds": opened - start,
        "load_seconds": loaded - start,
        "cpu_seconds": cpu,
        "device_bytes": read,
        "tensors": len(tensors),
        "bytes": sum(tensor.nbytes for tensor in tensors.values()),
        "anonymous_bytes": after["RssAnon"] - before["RssAnon"],
        "peak_bytes": after["VmHWM"] - before["VmRSS"],
    }
    if "stats" in said:
        stats = said["stats"]()
        result["choice"], result["why"] = stats["choice"], stats["why"]
    if task.digest:
        result["digest"] = native.digest(tensors)
    channel.send(json.dumps(result).encode())


def run_reporting(task: dict[str, Any], channel: socket.socket) -> None:
    """As run(), but whatever goes wrong is said over the channel. Leaves without freeing."""
    try:
        run(Task(**task), channel)
    except BaseException as error:
        channel.send(json.dumps({"error": f"{type(error).__name__}: {error}"[:2000]}).encode())
    sys.stdout.flush()
    os._exit(0)


def main() -> None:
    channel = socket.socket(fileno=int(sys.argv[1]))
    channel.settimeout(None)
    if sys.argv[2] == "serve":
        serve(channel, run_reporting, MESSAGE)
    else:
        run_reporting(json.loads(channel.recv(MESSAGE)), channel)


if __name__ == "__main__":
    main()
