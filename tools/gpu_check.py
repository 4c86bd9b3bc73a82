"""Whether loads to a GPU are right: `make test-gpu`, on a machine that has one.

Needs the package, torch and safetensors, no pytest and no network. What torch then has on the
device is compared with what safetensors reads. Each check runs in a process of its own, forked
from one that has touched no GPU: one that dies or hangs is one that failed.
"""

from __future__ import annotations

import faulthandler
import functools
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import inrush.torch
import safetensors.torch
import torch
import torch.utils.dlpack

import inrush

MIB = 1 << 20
LIMIT_S = 60  # for one check
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.int8, torch.bool)


def write(folder: Path) -> dict[str, torch.Tensor]:
    """Two shards of random tensors of all sorts of sizes; what is in them."""
    everything: dict[str, torch.Tensor] = {}
    for shard in range(2):
        tensors = {}
        for i in range(60):
            size = (17, 512, 4096, 300_001, 3 * MIB)[i % 5]
            raw = torch.randint(0, 256, (size * 8,), dtype=torch.uint8)
            dtype = DTYPES[i % len(DTYPES)]
            raw = raw % 2 if dtype == torch.bool else raw
            tensors[f"s{shard}.t{i}"] = raw.view(dtype)
        tensors[f"s{shard}.matrix"] = torch.randn(1024, 2048)
        tensors[f"s{shard}.empty"] = torch.empty(0, 3)
        tensors[f"s{shard}.scalar"] = torch.tensor(float(shard))
        safetensors.torch.save_file(tensors, folder / f"model-{shard}.safetensors")
        everything |= tensors
    return everything


def same(device: torch.Tensor, host: torch.Tensor) -> bool:
    """Bit by bit."""
    if device.shape != host.shape or device.dtype != host.dtype or not device.is_cuda:
        return False
    one, other = (each.cpu().reshape(-1).view(torch.uint8) for each in (device, host))
    return torch.equal(one, other)


def all_the_bytes(folder: Path, wanted: dict[str, torch.Tensor]) -> None:
    for round_number in range(3):
        loaded = inrush.torch.load_file(folder, "cuda:0")
        assert loaded.keys() == wanted.keys()
        wrong = [name for name in wanted if not same(loaded[name], wanted[name])]
        assert not wrong, f"round {round_number}: {wrong}"


def streamed(folder: Path, wanted: dict[str, torch.Tensor]) -> None:
    with inrush.open(folder, framework="pt", device="cuda:0", budget="32MiB") as checkpoint:
        for name, tensor in checkpoint.tensors():
            assert same(tensor, wanted[name]), name


def by_gpudirect(folder: Path, wanted: dict[str, torch.Tensor]) -> None:
    """By GPUDirect Storage where it can be, else by what is chosen then; says which."""
    opened = inrush.open(folder, framework="pt", device="cuda:0", backend="cufile")
    with opened.start() as job:
        for name, tensor in job:
            assert same(tensor, wanted[name]), name
        print(f"  {job.stats()['why']} {job.stats()['fallbacks'] or ''}")


def without_torch_memory(folder: Path, wanted: dict[str, torch.Tensor]) -> None:
    for name, tensor in inrush.open(folder, device="cuda:0").load().items():
        assert tensor.device == "cuda:0"
        if tensor.nbytes:
            raw = torch.utils.dlpack.from_dlpack(tensor.as_bytes()).reshape(-1)
            assert torch.equal(raw.cpu(), wanted[name].reshape(-1).view(torch.uint8)), name


def slices(folder: Path, wanted: dict[str, torch.Tensor]) -> None:
    cut = {"*.matrix": (slice(None), slice(512, 1024))}
    checkpoint = inrush.open(folder, framework="pt", device="cuda:0", include="*.matrix")
    for name, tensor in checkpoint.load(slices=cut).items():
        assert same(tensor, wanted[name][:, 512:1024].contiguous()), name


def in_place(folder: Path, wanted: dict[str, torch.Tensor]) -> None:
    model = torch.nn.ParameterDict({"matrix": torch.zeros(1024, 2048, device="cuda:0")})
    address = model["matrix"].data_ptr()
    inrush.torch.save_file({"matrix": wanted["s1.matrix"]}, folder / "one.st")
    inrush.torch.load_into(model, folder / "one.st")
    assert model["matrix"].data_ptr() == address
    assert same(model["matrix"].detach(), wanted["s1.matrix"])


def busy_memory(folder: Path, wanted: dict[str, torch.Tensor]) -> None:
    """Memory that a kernel still writes when the allocator gives it out again."""
    for _ in range(5):
        held = [torch.empty(3 * MIB * 8, dtype=torch.uint8, device="cuda:0") for _ in range(24)]
        sleep: Any = torch.cuda._sleep
        sleep(200_000_000)
        for each in held:
            each.fill_(7)
        del held, each
        loaded = inrush.torch.load_file(folder, "cuda:0")
        assert all(same(loaded[name], wanted[name]) for name in wanted)


def free_memory() -> int:
    """Bytes of the device that nobody has, where torch's allocator keeps nothing back."""
    torch.cuda.empty_cache()
    return int(torch.cuda.mem_get_info()[0])


def memory_comes_back(folder: Path, wanted: dict[str, torch.Tensor]) -> None:
    """What a load takes beside its tensors is the driver's again when it is closed."""
    for backend in (None, "cufile"):
        inrush.torch.load_file(
            folder, "cuda:0", backend=backend
        )  # the driver keeps some for itself
        free, reserved = free_memory(), torch.cuda.memory_reserved()
        loaded = inrush.torch.load_file(folder, "cuda:0", backend=backend)
        size = sum(tensor.nbytes for tensor in loaded.values())
        taken = free - int(torch.cuda.mem_get_info()[0])
        assert taken <= size + 64 * MIB, f"{backend}: {taken} bytes for {size} of tensors"
        grown = torch.cuda.memory_reserved() - reserved
        assert grown <= size + 64 * MIB, f"{backend}: torch reserved {grown} bytes for {size}"
        del loaded
        left = free - free_memory()
        assert left <= 2 * MIB, f"{backend}: {left} bytes did not come back"


def memory_without_torch_comes_back(folder: Path, wanted: dict[str, torch.Tensor]) -> None:
    inrush.open(folder, device="cuda:0").load()
    free = free_memory()
    loaded = inrush.open(folder, device="cuda:0").load()
    size = sum(tensor.nbytes for tensor in loaded.values())
    taken = free - free_memory()
    assert taken <= size + 64 * MIB, f"{taken} bytes for {size} of tensors"
    del loaded
    left = free - free_memory()
    assert left <= 2 * MIB, f"{left} bytes did not come back"


def staging_is_inside_its_budget(folder: Path, wanted: dict[str, torch.Tensor]) -> None:
    budget = {"pinned": "24MiB", "device": "8MiB"}
    for backend in (None, "cufile"):
        opened = inrush.open(
            folder, framework="pt", device="cuda:0", budget=budget, backend=backend
        )
        with opened.start() as job:
            assert all(same(tensor, wanted[name]) for name, tensor in job)
            stats = job.stats()
        assert stats["peak_staging"] <= 24 * MIB, stats
        assert stats["peak_device_staging"] <= 8 * MIB, stats


def full_device(folder: Path, wanted: dict[str, torch.Tensor]) -> None:
    """Out of memory is one error, and what the load had taken is free again."""
    inrush.torch.load_file(folder, "cuda:0")  # the driver keeps some for its streams
    before, allocated = free_memory(), torch.cuda.memory_allocated()
    torch.cuda.set_per_process_memory_fraction(0.0001)
    try:
        inrush.torch.load_file(folder, "cuda:0")
    except inrush.MemoryBudgetError as error:
        assert "cuda:0" in str(error), error
    else:
        raise AssertionError("no error")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert torch.cuda.memory_allocated() == allocated
    left = before - free_memory()
    assert left <= 2 * MIB, f"{left} bytes did not come back"
    all_the_bytes(folder, wanted)


CHECKS: tuple[Callable[[Path, dict[str, torch.Tensor]], None], ...] = (
    all_the_bytes, streamed, by_gpudirect, without_torch_memory, slices, in_place, busy_memory,
    memory_comes_back, memory_without_torch_comes_back, staging_is_inside_its_budget, full_device,
)  # fmt: skip


def in_child(check: Callable[[], None]) -> str:
    """Run it in a forked process; empty if all was well, else what went wrong."""
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reads)
        try:
            faulthandler.enable()
            faulthandler.dump_traceback_later(LIMIT_S, exit=True)
            check()
        except BaseException as error:
            told = f"{type(error).__name__}: {error}"
            os.write(writes, told.encode()[:4096])
        sys.stdout.flush()
        os._exit(0)
    os.close(writes)
    with open(reads, "rb") as channel:
        said = channel.read().decode(errors="replace")
    _, status = os.waitpid(child, 0)
    if said or status == 0:
        return said
    code = os.waitstatus_to_exitcode(status)
    return f"died of signal {-code}" if code < 0 else f"took more than {LIMIT_S} s"


def usable() -> None:
    torch.zeros(1, device="cuda:0")


def main() -> int:
    # A process that has used several threads must not fork; and one that has a context cannot.
    torch.set_num_threads(1)
    reason = in_child(usable)
    if reason:
        print(f"test-gpu: skipped, torch sees no GPU here: {reason.splitlines()[0]}")
        return 0
    print(f"test-gpu: inrush {inrush.__version__} of {Path(inrush.__file__).parent}", flush=True)
    failed = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wanted = write(folder)
        for check in CHECKS:
            began = time.monotonic()
            reason = in_child(functools.partial(check, folder, wanted))
            failed += bool(reason)
            verdict = f"FAILED: {reason}" if reason else "ok"
            print(f"{check.__name__}: {verdict} ({time.monotonic() - began:.1f} s)", flush=True)
    print(f"test-gpu: {len(CHECKS) - failed} of {len(CHECKS)} checks passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
