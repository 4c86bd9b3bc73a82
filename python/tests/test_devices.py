"""Loads to GPUs, against a driver that remembers what was done wrong."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import inrush.torch
import pytest
import torch
from conftest import Command, Contents
from fake_gpu import LIBRARY, NAMES, FakeGpu, fake_gpu
from inrush._devices import TorchMemory

import inrush

pytestmark = pytest.mark.skipif(not LIBRARY.exists(), reason=f"{LIBRARY} is not built")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGpu]:
    with fake_gpu(monkeypatch) as fake:
        yield fake


def raw(tensor: torch.Tensor) -> bytes:
    return bytes(tensor.detach().contiguous().view(-1).view(torch.uint8).numpy())


def test_tensors_without_a_framework_lie_in_memory_of_the_drivers(
    gpu: FakeGpu, sharded: tuple[Path, Contents]
) -> None:
    path, contents = sharded
    with inrush.open(path, device="cuda:1") as checkpoint:
        tensors = checkpoint.load()
        for name, tensor in tensors.items():
            assert tensor.device == "cuda:1"
            assert tensor.__dlpack_device__() == (2, 1)
            assert gpu.bytes_at(tensor.data_ptr, tensor.nbytes) == contents[name][2]
        with pytest.raises(BufferError, match="in the memory of cuda:1"):
            memoryview(tensor)
        with pytest.raises(BufferError, match="which the host cannot read"):
            tensor.copy()
        assert "dltensor" in repr(tensor.__dlpack__(stream=7))
        with pytest.raises(BufferError, match=r"in cuda:1: device \(2, 1\)"):
            tensor.__dlpack__(dl_device=(1, 0))


def test_rocm(gpu: FakeGpu, sharded: tuple[Path, Contents]) -> None:
    path, contents = sharded
    with inrush.open(path, device="hip:0") as checkpoint:
        for name, tensor in checkpoint.tensors():
            assert tensor.device == "hip:0"
            assert tensor.__dlpack_device__() == (10, 0)
            assert gpu.bytes_at(tensor.data_ptr, tensor.nbytes) == contents[name][2]
    assert gpu.count("hipMemcpyHtoDAsync") > 0
    assert gpu.count("cuInit") == 0


@pytest.mark.parametrize("device", ["cuda", "cuda:0", 0, torch.device("cuda:0")])
def test_tensors_of_torch_are_torchs_own_from_the_beginning(
    gpu: FakeGpu, sharded: tuple[Path, Contents], device: Any
) -> None:
    path, contents = sharded
    loaded = inrush.torch.load_file(path, device)
    assert loaded.keys() == contents.keys()
    for name, tensor in loaded.items():
        assert raw(tensor) == contents[name][2], name
        assert gpu.device_index(tensor) == 0


def test_every_dtype_that_torch_has(gpu: FakeGpu, every_dtype: tuple[Path, Contents]) -> None:
    path, contents = every_dtype
    wanted = [name for name in contents if not name.startswith("F6")]
    on_host = inrush.open(path, framework="pt", include=wanted).load()
    loaded = inrush.open(path, framework="pt", device="cuda", include=wanted).load()
    for name, tensor in loaded.items():
        assert tensor.dtype == on_host[name].dtype
        assert tensor.shape == on_host[name].shape
        assert raw(tensor) == raw(on_host[name]), name


def test_memory_is_asked_for_on_the_thread_that_asks_for_tensors(
    gpu: FakeGpu, sharded: tuple[Path, Contents], monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    threads = set()
    make = gpu.empty

    def empty(*arguments: Any) -> torch.Tensor:
        threads.add(threading.get_ident())
        return make(*arguments)

    monkeypatch.setattr(gpu, "empty", empty)
    inrush.torch.load_file(sharded[0], "cuda")
    assert threads == {threading.get_ident()}


def test_memory_for_small_tensors_is_no_more_than_they_need(
    gpu: FakeGpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = []
    make = gpu.empty

    def empty(shape: Any, dtype: torch.dtype, device: int = 0) -> torch.Tensor:
        tensor = make(shape, dtype, device)
        given.append(tensor.nbytes)
        return tensor

    monkeypatch.setattr(gpu, "empty", empty)
    tensors = {}
    for i in range(20):  # a model's layers, of which few are asked for at a time
        tensors[f"layer.{i:02}.mlp"] = torch.full((3 << 20,), i, dtype=torch.uint8)
        tensors[f"layer.{i:02}.norm"] = torch.full((16 << 10,), 100 + i, dtype=torch.uint8)
    inrush.torch.save_file(tensors, tmp_path / "a")
    opened = inrush.open(tmp_path / "a", framework="pt", device="cuda", budget={"pinned": "10MiB"})
    for name, tensor in opened.tensors():
        assert torch.equal(tensor, tensors[name]), name
    assert sum(given) < sum(tensor.nbytes for tensor in tensors.values()) + 20 * 256


def test_small_tensors_of_all_types_share_a_block(gpu: FakeGpu, tmp_path: Path) -> None:
    tensors = {
        "a": torch.rand(3, 5, 7),
        "b": torch.rand(11).to(torch.bfloat16),
        "c": torch.tensor(7, dtype=torch.uint8),
        "d": torch.rand(2, 3).to(torch.float64),
        "e": torch.rand(5).to(torch.complex64),
        "f": torch.rand(3, 1).to(torch.float8_e4m3fn),
        "g": torch.tensor([True, False, True]),
    }
    inrush.torch.save_file(tensors, tmp_path / "a")
    loaded = inrush.torch.load_file(tmp_path / "a", "cuda")
    assert gpu.count("cuMemAlloc_v2") == 1
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        assert loaded[name].is_contiguous()
        assert loaded[name].shape == tensor.shape
        assert raw(loaded[name]) == raw(tensor), name


def test_the_stream_is_asked_for_once_for_each_batch_of_memory(
    gpu: FakeGpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(TorchMemory, "stream", lambda self, device: asked.append(device) or 0)
    inrush.torch.save_file({f"t{i}": torch.ones(64) for i in range(2000)}, tmp_path / "a")
    monkeypatch.setattr(gpu, "asks_torch", True)
    assert len(inrush.torch.load_file(tmp_path / "a", "cuda")) == 2000
    assert asked == [0]
    assert gpu.count("cuEventRecord") <= gpu.count("cuMemcpyHtoDAsync_v2") + 1


def test_the_stream_is_asked_for_by_the_cheapest_way_that_torch_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    memory = TorchMemory(["cuda:1"], {})
    stream = type("Stream", (), {"cuda_stream": 7})
    monkeypatch.delattr(torch._C, "_cuda_getCurrentRawStream", raising=False)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    assert memory.stream(1) == 7
    monkeypatch.setattr(
        torch._C, "_cuda_getCurrentRawStream", lambda device: 8 + device, raising=False
    )
    assert memory.stream(1) == 9


def test_a_map_of_modules_to_devices(gpu: FakeGpu, sharded: tuple[Path, Contents]) -> None:
    path, contents = sharded
    places = {"model.layers.0": 0, "model.layers.1": "cuda:1", "model.layers.1.q": "cpu"}
    loaded = inrush.open(path, framework="pt", device=places).load()
    for name, tensor in loaded.items():
        host = name.startswith("model.layers.1.q.")
        expected = None if host else int(name.split(".")[2])
        assert gpu.device_index(tensor) == expected, name
        assert raw(tensor) == contents[name][2], name
    with pytest.raises(inrush.UsageError, match="says nothing of"):
        inrush.open(path, framework="pt", device={"model.layers.0": 0}).load()
    assert len(inrush.open(path, device={"": "cuda:1"}).load()) == len(contents)


def test_safe_open(gpu: FakeGpu, sharded: tuple[Path, Contents]) -> None:
    path, contents = sharded
    with inrush.safe_open(path, "pt", "cuda:0") as opened:
        for name, tensor in opened.get_tensors().items():
            assert gpu.device_index(tensor) == 0
            assert raw(tensor) == contents[name][2]
        for name, tensor in opened.tensors():
            assert gpu.device_index(tensor) == 0
            assert raw(tensor) == contents[name][2]


def test_one_tensor_and_a_part_of_one(gpu: FakeGpu, sharded: tuple[Path, Contents]) -> None:
    path, contents = sharded
    name = "model.layers.0.k.weight"
    with inrush.open(path, framework="pt", device="cuda") as checkpoint:
        whole = checkpoint.tensor(name)
        part = checkpoint.tensor(name, (slice(None), slice(64, 128)))
    assert raw(whole) == contents[name][2]
    assert torch.equal(part.view(torch.int16), whole[:, 64:128].view(torch.int16))
    assert gpu.count("cuMemcpy2DAsync_v2") > 0


def test_load_into_follows_each_parameter(gpu: FakeGpu, tmp_path: Path) -> None:
    source = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Linear(64, 64))
    inrush.torch.save_model(source, tmp_path / "model.safetensors")
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Linear(64, 64).half())
    for layer, device in ((model[0], 0), (model[1], 1)):
        place = gpu.empty((64, 64), layer.weight.dtype, device)
        layer.weight = torch.nn.Parameter(place)
    addresses = [layer.weight.data_ptr() for layer in model]
    inrush.torch.load_into(model, tmp_path / "model.safetensors", dtype="model")
    assert [layer.weight.data_ptr() for layer in model] == addresses
    for layer, wanted in zip(model, source, strict=True):
        assert torch.equal(layer.weight, wanted.weight.to(layer.weight.dtype))
        assert torch.equal(layer.bias, wanted.bias.to(layer.bias.dtype))


def test_out_of_memory_is_one_error_and_nothing_is_kept(
    gpu: FakeGpu, sharded: tuple[Path, Contents]
) -> None:
    gpu.set("memory", 4 << 20)
    with pytest.raises(inrush.MemoryBudgetError, match="fake out of memory"):
        inrush.torch.load_file(sharded[0], "cuda")
    with pytest.raises(inrush.MemoryBudgetError, match="of 4194304 are free"):
        inrush.open(sharded[0], device="cuda").load()
    assert all(made() is None for made in gpu.made)
    gpu.free_all()
    gpu.set("memory", 1 << 30)
    inrush.torch.load_file(sharded[0], "cuda")


def test_the_framework_running_out_at_any_tensor_is_one_error(
    gpu: FakeGpu, sharded: tuple[Path, Contents], monkeypatch: pytest.MonkeyPatch
) -> None:
    make = gpu.empty
    left = [0]

    def empty(*arguments: Any) -> torch.Tensor:
        left[0] -= 1
        if left[0] < 0:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return make(*arguments)

    monkeypatch.setattr(gpu, "empty", empty)
    path, contents = sharded
    left[0] = 1000
    loaded = inrush.torch.load_file(path, "cuda")
    calls = 1000 - left[0]
    assert calls > 4
    del loaded
    for granted in range(calls):
        left[0] = granted
        with pytest.raises(inrush.MemoryBudgetError, match="on cuda:0 with torch's allocator"):
            inrush.torch.load_file(path, "cuda")
        assert not gpu.blocks  # nothing of it is kept
    left[0] = 1000
    loaded = inrush.torch.load_file(path, "cuda")
    assert all(raw(loaded[name]) == contents[name][2] for name in contents)


def test_the_pinned_budget_is_its_own(gpu: FakeGpu, sharded: tuple[Path, Contents]) -> None:
    with inrush.open(sharded[0], device="cuda", budget={"pinned": "6MiB"}).start() as job:
        job.wait()
        assert job.stats()["budget"] == 6 << 20
        assert 0 < job.stats()["peak_staging"] <= 6 << 20
    with pytest.raises(inrush.MemoryBudgetError, match="pinned memory is below the least"):
        inrush.open(sharded[0], device="cuda", budget={"pinned": "1MiB"}).load()


@pytest.mark.parametrize("framework", [None, "pt"])
def test_storage_writes_to_the_device_inside_its_own_budget(
    gpu: FakeGpu, sharded: tuple[Path, Contents], framework: str | None
) -> None:
    path, contents = sharded
    opened = inrush.open(
        path,
        device="cuda",
        framework=framework,
        backend="cufile",
        strict=True,
        budget={"device": "5MiB"},
    )
    with opened.start() as job:
        tensors = dict(job)
        stats = job.stats()
    assert stats["choice"] == "cufile"
    assert 0 < stats["peak_device_staging"] <= 5 << 20
    for name, tensor in tensors.items():
        found = raw(tensor) if framework else gpu.bytes_at(tensor.data_ptr, tensor.nbytes)
        assert found == contents[name][2], name
    assert gpu.count("cuMemcpyHtoDAsync_v2") == 0
    with pytest.raises(inrush.MemoryBudgetError, match="of device memory is below the least"):
        inrush.open(path, device="cuda", backend="cufile", budget={"device": "1MiB"}).load()
    # The budget of what is not used is no error.
    inrush.open(path, device="cuda", budget={"device": "1MiB"}).load()


def test_storage_writes_to_parameters_in_place(gpu: FakeGpu, tmp_path: Path) -> None:
    source = torch.nn.Linear(640, 640)
    inrush.torch.save_model(source, tmp_path / "model.safetensors")
    model = torch.nn.Linear(640, 640)
    model.weight = torch.nn.Parameter(gpu.empty((640, 640), torch.float32, 1))
    model.bias = torch.nn.Parameter(gpu.empty((640,), torch.float32, 1))
    inrush.torch.load_into(model, tmp_path / "model.safetensors", backend="cufile", strict=True)
    assert torch.equal(model.weight, source.weight)
    assert torch.equal(model.bias, source.bias)
    assert gpu.count("cuFileRead") > 0


BACKENDS = [backend.value for backend in inrush.Backend if backend is not inrush.Backend.MMAP]


def write_as(form: str, tensors: dict[str, torch.Tensor], folder: Path) -> Path:
    """A checkpoint of these tensors in a format."""
    inrush.torch.save_file(tensors, folder / "source.safetensors")
    if form == "pytorch":
        torch.save(tensors, folder / "model.bin")
        return folder / "model.bin"
    path = folder / ("model.tensors" if form == "tensorizer" else form)
    inrush.convert(folder / "source.safetensors", path, to=form)
    return path


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("form", ["safetensors", "serverlessllm", "tensorizer", "pytorch"])
def test_every_format_by_every_backend(
    gpu: FakeGpu, tmp_path: Path, form: str, backend: str
) -> None:
    tensors = {
        f"layer.{i}": torch.randint(0, 256, (size,), dtype=torch.uint8)
        for i, size in enumerate((1, 4096, 300_001, 64, 64, 2_500_000))
    }
    path = write_as(form, tensors, tmp_path)
    with inrush.open(path, framework="pt", device="cuda:0", backend=backend, strict=True) as opened:
        loaded = opened.load()
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(loaded[name], tensor), name
        assert gpu.device_index(loaded[name]) == 0


def test_what_cannot_be_is_said_at_once(
    gpu: FakeGpu, sharded: tuple[Path, Contents], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = sharded
    with pytest.raises(inrush.UsageError, match="there are 2 devices"):
        inrush.open(path, device="cuda:9").load()
    with pytest.raises(inrush.UsageError, match="only torch moves tensors there"):
        inrush.open(path, device="mps").load()
    with pytest.raises(inrush.UsageError, match="framework np takes tensors in host memory"):
        inrush.open(path, device="cuda", framework="np").load()
    with pytest.raises(inrush.UsageError, match="device gpu is invalid"):
        inrush.open(path, device="gpu")
    gpu.set("cuda_version", 11080)
    with pytest.raises(inrush.UsageError, match=r"too old: it supports CUDA 11\.8"):
        inrush.open(path, device="cuda:0").load()
    monkeypatch.setenv("INRUSH_CUDA_LIBRARY", "off")
    with pytest.raises(inrush.UsageError, match="there is no driver to use"):
        inrush.open(path, device="cuda:0").load()


@pytest.mark.host_memory("there is a GPU")
def test_without_a_gpu_torch_says_so(sharded: tuple[Path, Contents]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(inrush.UsageError, match="sees no GPU here"):
        inrush.torch.load_file(sharded[0], "cuda:0")


def test_the_command_line(
    inrush_command: Command, sharded: tuple[Path, Contents], tmp_path: Path
) -> None:
    fake = {name: str(LIBRARY) for name in NAMES}
    loaded = inrush_command("load", sharded[0], "--device", "cuda:0", "--json", **fake)
    assert loaded.returncode == 0, loaded.stderr
    assert json.loads(loaded.stdout)["stats"]["tensors"] == 12
    wrong = inrush_command("load", sharded[0], "--device", "cuda:5", **fake)
    assert wrong.returncode == 2
    assert "there are 2 devices" in wrong.stderr
    saved = inrush_command(
        "load", sharded[0], "--device", "cuda:0", "--out", tmp_path / "out", **fake
    )
    assert saved.returncode == 2
    assert not (tmp_path / "out").exists()


def test_doctor_shows_what_was_found(inrush_command: Command) -> None:
    fake = {name: str(LIBRARY) for name in NAMES}
    report = json.loads(inrush_command("doctor", "--json", **fake).stdout)
    drivers = {driver["vendor"]: driver for driver in report["drivers"]}
    assert drivers["cuda"]["version"] == "12.8"
    assert drivers["cuda"]["devices"][0]["numa"].startswith("NUMA node 0: ")
    assert drivers["cuda"]["library"] == os.fspath(LIBRARY)
    assert [device["name"] for device in drivers["hip"]["devices"]] == ["Fake APU 0", "Fake APU 1"]
    report = json.loads(inrush_command("doctor", "--json", INRUSH_CUDA_LIBRARY="off").stdout)
    drivers = {driver["vendor"]: driver for driver in report["drivers"]}
    assert drivers["cuda"]["reason"] == "it is switched off by the environment"
    shown = inrush_command("doctor", **fake)
    assert "Fake GPU 1" in shown.stdout
