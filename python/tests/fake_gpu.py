"""A GPU without a GPU: the fake driver of the C++ tests, and torch tensors over its memory."""

from __future__ import annotations

import copy
import ctypes
import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from inrush._devices import TorchMemory
from inrush._frameworks import framework_of
from inrush._job import Job

from inrush import _devices, _frameworks

LIBRARY = Path(__file__).parents[2] / "build" / "release" / "libfake_driver.so"
NAMES = ("INRUSH_CUDA_LIBRARY", "INRUSH_HIP_LIBRARY", "INRUSH_CUFILE_LIBRARY")


class FakeGpu:
    """The driver, its ledger, and memory that torch takes for the host's."""

    def __init__(self) -> None:
        self.driver = ctypes.CDLL(str(LIBRARY))
        self.driver.fake_set.argtypes = (ctypes.c_char_p, ctypes.c_int64)
        self.driver.fake_fail.argtypes = (ctypes.c_char_p, ctypes.c_int64, ctypes.c_int)
        self.driver.fake_count.restype = ctypes.c_int64
        self.driver.fake_count.argtypes = (ctypes.c_char_p,)
        self.driver.fake_report.restype = ctypes.c_size_t
        self.driver.fake_report.argtypes = (ctypes.c_char_p, ctypes.c_size_t)
        self.driver.fake_map.restype = ctypes.c_void_p
        self.driver.fake_map.argtypes = (ctypes.c_uint64,)
        self.driver.cuMemAlloc_v2.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
        self.driver.cuMemFree_v2.argtypes = (ctypes.c_uint64,)
        self.driver.cuCtxPushCurrent_v2.argtypes = (ctypes.c_ssize_t,)
        self.driver.fake_reset()
        self.set("touchable", 1)
        self.blocks: dict[int, tuple[int, int]] = {}  # address: its size, its device
        self.made: list[weakref.ref[Any]] = []
        self.asks_torch = False  # for the stream

    def set(self, what: str, value: int) -> None:
        self.driver.fake_set(what.encode(), value)

    def fail(self, call: str, after: int, result: int) -> None:
        self.driver.fake_fail(call.encode(), after, result)

    def count(self, call: str) -> int:
        return int(self.driver.fake_count(call.encode()))

    def report(self) -> str:
        text = ctypes.create_string_buffer(4096)
        self.driver.fake_report(text, 4096)
        return text.value.decode()

    def device_index(self, array: Any) -> int | None:
        """What `inrush._frameworks.device_index` says where tensors are the fake's."""
        if not isinstance(array, torch.Tensor):
            return None
        for start, (size, device) in self.blocks.items():
            if start <= array.data_ptr() < start + size:
                return device
        return None

    def empty(self, shape: Any, dtype: torch.dtype, device: int = 0) -> torch.Tensor:
        """torch.empty, on the fake's device."""
        elements = 1
        for extent in shape:
            elements *= extent
        size = elements * dtype.itemsize
        if size == 0:
            return torch.empty(shape, dtype=dtype)
        address = ctypes.c_uint64()
        popped = ctypes.c_ssize_t()
        self.driver.cuCtxPushCurrent_v2(device + 1)
        result = self.driver.cuMemAlloc_v2(ctypes.byref(address), size)
        self.driver.cuCtxPopCurrent_v2(ctypes.byref(popped))
        if result != 0:
            raise RuntimeError(f"fake out of memory ({result})")
        self.blocks[address.value] = (size, device)
        memory = (ctypes.c_uint8 * size).from_address(address.value)
        weakref.finalize(memory, self._free, address.value)
        tensor = torch.frombuffer(memory, dtype=torch.uint8).view(dtype).view(shape)
        self.made.append(weakref.ref(tensor))
        return tensor

    def bytes_at(self, address: int, size: int) -> bytes:
        return ctypes.string_at(self.driver.fake_map(address), size)

    def _free(self, address: int) -> None:
        if self.blocks.pop(address, None) is not None:
            self.driver.cuMemFree_v2(address)

    def free_all(self) -> None:
        """What tests still hold tensors over."""
        for address in list(self.blocks):
            self._free(address)

    def memory(self, devices: list[str], places: dict[str, int]) -> TorchMemory:
        gpu = self

        class Memory(TorchMemory):
            def stream(self, device: int) -> int:
                return super().stream(device) if gpu.asks_torch else 0

            def empty(self, shape: Any, dtype: Any, device: int) -> Any:
                if device < 0:
                    return torch.empty(shape, dtype=dtype)
                return gpu.empty(shape, dtype, device)

        return Memory(devices, places)


@contextmanager
def fake_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGpu]:
    """The fake driver as this process's only one; at the end its ledger must be empty."""
    for name in NAMES:
        monkeypatch.setenv(name, str(LIBRARY))
    monkeypatch.setenv("INRUSH_PROFILE", "off")
    fake = FakeGpu()
    monkeypatch.setattr(_devices, "torch_memory", fake.memory)
    monkeypatch.setattr(_frameworks, "device_index", fake.device_index)
    yield fake
    if fake.report():
        gc.collect()  # what only cycles keep alive
    fake.free_all()
    assert fake.report() == ""


@contextmanager
def everything_on_it(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[weakref.ref[Job]]]:
    """Let each load for torch that names no device go to the fake GPU; which loads went there.

    What is checked or decrypted is read by the host, and stays there.
    """
    loads: list[weakref.ref[Job]] = []
    start = Job.__init__

    def delivered(job: Job, checkpoint: Any, options: Any, **words: Any) -> None:
        torch_on_host = (
            framework_of(options.framework) == "pt"
            and options.device is None
            and options.moved_to is None
        )
        decoded = _devices._is_read_by_host(checkpoint, options)
        if torch_on_host and not decoded:
            options = copy.copy(options)
            options.device = "cuda:0"
            loads.append(weakref.ref(job))
        start(job, checkpoint, options, **words)

    with fake_gpu(monkeypatch) as fake:
        fake.set("memory", 64 << 30)
        monkeypatch.setattr(Job, "__init__", delivered)
        yield loads
