"""bench/gpu*.py measure what they say, as far as that can be tried on the fake driver."""

from __future__ import annotations

import ctypes
import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_gpu import LIBRARY, FakeGpu, fake_gpu

MIB = 1 << 20
GIB = 1 << 30
MACHINE = {
    "device": "Fake GPU 0", "device_bytes": 80 * GIB, "device_free": 79 * GIB, "build": "0.1 abc",
    "cuda": "13.0", "torch": "2.11", "driver": "driver 580, PCIe 5 x16", "cpu": "A CPU",
    "cpus": 16, "memory_gib": 128, "kernel": "6.18", "filesystem": "ext4", "python": "3.12",
    "versions": {"inrush": "0.1", "runai-model-streamer": "not installed"},
}  # fmt: skip


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGpu]:
    if not LIBRARY.exists():
        pytest.skip(f"{LIBRARY} is not built")
    with fake_gpu(monkeypatch) as fake:
        yield fake


@pytest.fixture
def bench() -> Any:
    import bench
    import bench.gpu

    return bench


class Probe:
    """What the fake driver answers of its device 0."""

    name = "Fake GPU 0"

    def __init__(self, fake: FakeGpu) -> None:
        self.driver = fake.driver

    def wait(self) -> None:
        pass

    def give_back(self) -> None:
        pass

    def reserved(self) -> int:
        return 0

    def free(self) -> int:
        free, total, popped = ctypes.c_size_t(), ctypes.c_size_t(), ctypes.c_ssize_t()
        self.driver.cuCtxPushCurrent_v2(1)
        self.driver.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))
        self.driver.cuCtxPopCurrent_v2(ctypes.byref(popped))
        return free.value


@pytest.mark.parametrize("kind", ["dense", "experts"])
def test_a_measurement_tells_rate_first_tensor_and_memory(
    gpu: FakeGpu, bench: Any, tmp_path: Path, kind: str
) -> None:
    folder = tmp_path / kind
    size = bench.gpu_fixtures.make(folder, kind, 130 * MIB if kind == "dense" else 24 * MIB)
    files = sorted(str(path) for path in folder.glob("*.safetensors"))
    seen = bench.gpu_child.load_once("inrush", files, Probe(gpu), digest=True)
    assert seen["tensor_bytes"] == size
    assert seen["gb_per_s"] == pytest.approx(size / seen["seconds"] / 1e9)
    assert 0 < seen["first_s"] < seen["seconds"]
    assert size <= seen["device_bytes"] <= seen["peak_device_bytes"]
    assert seen["peak_device_bytes"] <= size + 64 * MIB
    assert seen["left_bytes"] == 0
    assert seen["peak_staging"] > 0
    assert json.loads(json.dumps(seen)) == seen
    again = bench.gpu_child.load_once("inrush", files, Probe(gpu), digest=True)
    assert again["digest"] == seen["digest"]


def test_a_process_loads_once_for_each_word(
    gpu: FakeGpu, bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.gpu_fixtures.make(tmp_path / "a", "experts", 8 * MIB)
    monkeypatch.setattr(bench.gpu_child, "Gpu", lambda: Probe(gpu))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    files = sorted(str(path) for path in (tmp_path / "a").glob("*.safetensors"))
    task = {"loader": "inrush", "files": files}
    thread = threading.Thread(target=bench.gpu_child.run, args=(task, theirs))
    thread.start()
    theirs_said = [json.loads(ours.recv(1 << 16))]
    for _ in range(2):
        ours.send(b"go")
        theirs_said.append(json.loads(ours.recv(1 << 16)))
    ours.close()
    thread.join(20)
    assert not thread.is_alive()
    theirs.close()
    ready, first, second = theirs_said
    assert ready == {"ready": True}
    assert first["tensors"] == second["tensors"] == 20_000
    assert "digest" in first
    assert "digest" not in second


def test_what_is_not_cold_is_not_called_so(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixtures, pages = bench.gpu_fixtures, bench.pages
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"x" * MIB)
    fixtures.set_state([path], "warm")
    monkeypatch.setattr(pages, "evict", lambda files: None)
    with pytest.raises(fixtures.NotInState, match=r"not cold: 100% of it is in the page cache"):
        fixtures.set_state([path], "cold")

    def refused(path: Path) -> int:
        raise OSError(1, "not permitted")

    monkeypatch.setattr(pages, "resident_bytes", refused)
    fixtures.set_state([path], "warm")  # by mincore
    monkeypatch.setattr(pages, "mapped_bytes", refused)
    with pytest.raises(fixtures.NotInState, match="whether it is warm cannot be said"):
        fixtures.set_state([path], "warm")


def test_what_cachestat_says_on_an_overlay_is_not_believed(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"x" * MIB)
    monkeypatch.setattr(bench.pages, "resident_bytes", lambda path: 0)
    monkeypatch.setattr(bench.gpu_fixtures, "filesystem_of", lambda folder: "overlay")
    assert bench.gpu_fixtures.told_share([path]) == 1.0


@pytest.mark.parametrize(
    ("wanted", "room", "size", "reason"),
    [
        (40, (64, 128, 78, None, None), 40, "what was asked for"),
        (40, (20, 128, 78, None, None), 18, "free space of the folder"),
        (40, (64, 46, 78, None, None), 17.25, "free memory of the host"),
        (40, (64, 80, 78, None, None), 32, "free memory of the host"),
        (40, (64, 128, 40, None, None), 22, "free memory of the GPU"),
        (20, (64, 128, 78, 1, 4), 8, "8 s of reading the disk"),
        (20, (64, 128, 78, 4, 0.5), 15, "30 s of writing to the disk"),
    ],
)
def test_checkpoints_are_as_large_as_there_is_room(
    bench: Any, wanted: int, room: tuple[Any, ...], size: float, reason: str
) -> None:
    sizes = [None if each is None else int(each * GIB) for each in room]
    found = bench.gpu_fixtures.size_for(wanted * GIB, bench.gpu_fixtures.Room(*sizes))
    assert found == (size * GIB, reason)


def test_too_little_room_is_said(bench: Any) -> None:
    fixtures = bench.gpu_fixtures
    with pytest.raises(fixtures.NoRoom, match="free space of the folder leaves 90 MiB"):
        fixtures.size_for(GIB, fixtures.Room(100 * MIB, 128 * GIB, 78 * GIB))
    with pytest.raises(fixtures.NoRoom, match="free memory of the host leaves 96 MiB"):
        fixtures.size_for(GIB, fixtures.Room(GIB, GIB // 4, 78 * GIB))
    assert fixtures.size_for(MIB, fixtures.Room(GIB, 128 * GIB, 78 * GIB))[0] == MIB


def test_a_full_folder_is_left_empty(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int, data: Any, offset: int) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bench.gpu_fixtures.os, "pwrite", full)
    with pytest.raises(OSError, match="No space left"):
        bench.gpu_fixtures.make(tmp_path / "a", "dense", MIB)
    assert list(tmp_path.iterdir()) == []


def test_storage_is_read_once_by_several_threads(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = bench.gpu_storage
    files = [tmp_path / "a", tmp_path / "b"]
    for path in files:
        path.write_bytes(b"x" * (5 * MIB + 100))
    found = storage.read_rate(files, storage.Way(3, MIB, False))
    assert found.end == len(storage.pieces(files, MIB)) == 12
    assert found.bytes_per_s > 0
    assert storage.read_rate(files, storage.Way(1, MIB, False), seconds=0).end == 0
    said = storage.rates(files, "warm")
    assert said["gb_per_s"] == max(said["by_way"].values())
    monkeypatch.setattr(bench.limits, "fio_grid", lambda file, quick: [])
    said = storage.rates(files, "cold")
    assert said["note"] in ("fio is not there", "no direct reads on this filesystem")
    point = {"engine": "psync", "block": "1m"}
    grid = [{**point, "gb_per_s": 1e6}, {**point, "error": "refused"}]
    monkeypatch.setattr(bench.limits, "fio_grid", lambda file, quick: grid)
    said = storage.rates(files, "cold")
    assert said["gb_per_s"] == said["by_way"]["fio psync, 1m"] == 1e6


class FakeFork:
    """A measured process that answers at once what it was told to."""

    def __init__(self, forks: FakeForks, loader: str) -> None:
        self.forks, self.loader = forks, loader

    def __enter__(self) -> FakeFork:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def answer(self, seconds: float) -> dict[str, Any]:
        if self.loader in self.forks.fail:
            raise self.forks.fail[self.loader]
        return {"ready": True}

    def ask(self, seconds: float) -> dict[str, Any]:
        assert seconds > 0
        self.forks.asked.append(self.loader)
        if self.loader == "pinned":
            return {"gb_per_s": 50.0, "by_way": {"1 streams": 50.0}}
        if self.loader == "fastsafetensors" and self.forks.asked.count(self.loader) == 2:
            raise RuntimeError("died: Fatal Python error: Segmentation fault")
        sizes = {"tensor_bytes": GIB, "device_bytes": GIB + MIB, "left_bytes": 0}
        peaks = {"peak_device_bytes": GIB + 9 * MIB, "peak_host_bytes": 256 * MIB}
        digest = "b" if self.loader == "safetensors" else "a"
        times = {"first_s": 0.04, "cpu_s_per_gb": 0.1, "seconds": 0.02, "digest": digest}
        return {"gb_per_s": float(len(self.forks.asked)), **sizes, **peaks, **times}


class FakeForks:
    def __init__(self, bench: Any) -> None:
        self.asked: list[str] = []
        self.fail = {"runai": bench.gpu_forks.Failed("ModuleNotFoundError: No module named 'r'")}

    def start(self, task: dict[str, Any]) -> FakeFork:
        assert all(Path(path).exists() for path in task.get("files", []))
        return FakeFork(self, task["loader"])


@pytest.fixture
def small(bench: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Everything as it is, but with two cells and storage that costs no time."""
    plan = bench.gpu_plan
    loaders = ("inrush", "fastsafetensors", "runai", "safetensors")
    chosen = (
        plan.Cell("tmpfs", "memory", "dense", loaders),
        plan.Cell("disk", "cold", "dense", loaders),
    )
    monkeypatch.setattr(plan, "cells", lambda: chosen)
    monkeypatch.setattr(bench.gpu_report, "cells", lambda: chosen)
    monkeypatch.setattr(bench.gpu_storage, "rates", lambda files, state: {"gb_per_s": 8.0})
    monkeypatch.setattr(bench.gpu_fixtures, "set_state", lambda files, state: None)
    monkeypatch.setattr(bench.gpu_fixtures, "probe", lambda folder: (2e9, 1e9))
    return bench


def session(bench: Any, forks: Any, folder: Path, seconds: float = 600) -> Any:
    results = bench.gpu_plan.Results(folder / "out" / "gpu.json")
    results.choose(MACHINE)
    places = {"tmpfs": folder / "t", "disk": folder / "d"}
    wanted = bench.gpu_plan.Wanted(2 * MIB, MIB, MIB)
    asked = bench.gpu.Asked(places, wanted, rounds=2, memory=128 * GIB)
    return bench.gpu.Session(forks, results, asked, time.monotonic() + seconds)


def test_failures_are_rows_and_the_run_goes_on(small: Any, tmp_path: Path) -> None:
    forks = FakeForks(small)
    assert session(small, forks, tmp_path).measure() == []
    run = small.gpu_plan.Results(tmp_path / "out" / "gpu.json").all["Fake GPU 0, inrush 0.1 abc"]
    rows = run["cells"]["tmpfs memory dense"]
    assert [one["gb_per_s"] for one in rows["inrush"]["rounds"]] == [2.0, 3.0]
    assert rows["runai"] == {"rounds": [], "error": "ModuleNotFoundError: No module named 'r'"}
    assert len(rows["fastsafetensors"]["rounds"]) == 1
    assert rows["fastsafetensors"]["error"] == "died: Fatal Python error: Segmentation fault"
    assert len(rows["safetensors"]["rounds"]) == 2
    assert len(run["cells"]["disk cold dense"]["fastsafetensors"]["rounds"]) == 2
    assert run["limits"]["pinned"]["gb_per_s"] == 50.0
    assert set(run["limits"]) == {"pinned", "tmpfs memory", "disk cold"}
    assert list((tmp_path / "t").iterdir()) == []


def test_a_run_goes_on_where_it_was_stopped(small: Any, tmp_path: Path) -> None:
    forks = FakeForks(small)
    left_out = session(small, forks, tmp_path, seconds=0).measure()
    assert left_out[:2] == ["limit: pinned", "tmpfs memory dense: inrush"]
    assert len(left_out) == 9
    assert forks.asked == []
    session(small, forks, tmp_path).measure()
    measured = list(forks.asked)
    path = tmp_path / "out" / "gpu.json"
    before = path.read_text()
    assert session(small, forks, tmp_path).measure() == []
    assert forks.asked == measured
    assert path.read_text() == before
    again = session(small, forks, tmp_path)
    again.results.forget_failures()
    forks.fail = {}
    assert again.measure() == []
    assert forks.asked[len(measured) :].count("runai") == 4
    assert forks.asked[len(measured) :].count("inrush") == 0


def test_figures_of_another_machine_are_not_mixed(small: Any, tmp_path: Path) -> None:
    session(small, FakeForks(small), tmp_path).measure()
    results = small.gpu_plan.Results(tmp_path / "out" / "gpu.json")
    results.choose({**MACHINE, "device": "Other GPU"})
    assert results.run["cells"] == {}
    assert len(results.all) == 2


def test_checkpoints_that_cannot_be_made_cost_their_cells_alone(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = small.gpu_fixtures.make

    def full(folder: Path, kind: str, size: int) -> int:
        if folder.is_relative_to(tmp_path / "t"):
            raise OSError(28, "No space left on device")
        return int(make(folder, kind, size))

    monkeypatch.setattr(small.gpu_fixtures, "make", full)
    tried = session(small, FakeForks(small), tmp_path)
    assert tried.measure() == []
    row = tried.results.run["cells"]["tmpfs memory dense"]["inrush"]
    assert row == {"error": "no checkpoint: [Errno 28] No space left on device"}
    assert len(tried.results.run["cells"]["disk cold dense"]["inrush"]["rounds"]) == 2


def test_slow_loaders_are_left_out_when_time_is_short_and_quick_ones_are_not(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(small.gpu_plan, "START_S", 0.1)
    monkeypatch.setattr(small.gpu_plan, "EXPECTED", 1e12)
    tried = session(small, FakeForks(small), tmp_path, seconds=30)
    slow = {"rounds": [{"gb_per_s": 1e-6}]}
    tried.results.run["cells"]["other"] = {"safetensors": slow}
    left_out = tried.measure()
    assert left_out == ["tmpfs memory dense: safetensors", "disk cold dense: safetensors"]


def test_the_report_has_limits_ratios_and_what_went_wrong(small: Any, tmp_path: Path) -> None:
    tried = session(small, FakeForks(small), tmp_path)
    tried.measure()
    tried.results.run["sizes"]["disk dense"]["limited_by"] = "8 s of reading the disk"
    text = small.gpu_report.tables(tried.results.run)
    assert text.startswith("Fake GPU 0 (80 GiB, driver 580, PCIe 5 x16, CUDA 13.0, torch 2.11); 16")
    assert "runai-model-streamer not installed" in text
    assert "- pinned: **50.00 GB/s** (1 streams 50.00)" in text
    assert "| inrush | 2.00 | 3.00 | 0.06 | 40, 40 | 0.100 | 9 | 1 | 0 | 256 |" in text
    assert "| runai | ModuleNotFoundError: No module named 'r' |" in text
    assert "4.00 (died: Fatal Python error: Segmentation fault)" in text
    assert "**disk cold dense**, 0.0 GB (8 s of reading the disk). WRONG BYTES: safetensors" in text
    assert "| tmpfs memory dense, rate / limit | >= 0.95 | 0.06 | **no** |" in text
    assert "| disk cold dense, ms to the first tensor | <= 150 | 40 | yes |" in text
    widths = {line.count("|") for line in text.splitlines() if line.startswith("| inrush")}
    assert widths == {len(small.gpu_report.HEAD) + 1}


def test_processes_say_what_is_wrong_and_end(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forks = bench.gpu_forks
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with forks.Forks(tmp_path) as server:
        for loader, words in (("about", "CUDA|NVIDIA"), ("instanttensor", "instanttensor|CUDA")):
            with server.start({"loader": loader, "files": []}) as fork:
                with pytest.raises(forks.Failed, match=words):
                    fork.answer(60)
                assert fork.pid > 0


def test_a_process_that_hangs_is_ended(bench: Any, tmp_path: Path) -> None:
    forks = bench.gpu_forks
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        theirs.send(json.dumps({"pid": sleeper.pid}).encode())
        fork = forks.Fork(ours, tmp_path / "log")
        with pytest.raises(forks.Failed, match="took more than 0 s"):
            fork.answer(0.01)
        assert sleeper.wait() == -9
        fork.__exit__()
    (tmp_path / "log").write_text("a\nFatal Python error: Segmentation fault\n\nThread 1\n")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.send(json.dumps({"pid": 1 << 22}).encode())
    fork = forks.Fork(ours, tmp_path / "log")
    theirs.close()
    with pytest.raises(forks.Failed, match="died: Fatal Python error: Segmentation fault"):
        fork.ask(1)


def test_every_loader_is_one_that_can_be_asked_for(bench: Any) -> None:
    loaders = bench.gpu_loaders
    named = {loader for cell in bench.gpu_plan.cells() for loader in cell.loaders}
    assert named == set(loaders.LOADERS) == set(loaders.MODULES)


def test_where_torch_sees_no_gpu_nothing_is_measured(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    results = tmp_path / "gpu.json"
    assert bench.gpu.main(["--disk", str(tmp_path), "--results", str(results)]) == 0
    assert "skipped, torch sees no GPU here" in capsys.readouterr().out
    assert not results.exists()
