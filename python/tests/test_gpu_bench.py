"""bench/gpu.py measures what it says, as far as that can be tried on the fake driver."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_gpu import LIBRARY, FakeGpu, fake_gpu

ROOT = Path(__file__).resolve().parents[2]
MIB = 1 << 20

pytestmark = pytest.mark.skipif(not LIBRARY.exists(), reason=f"{LIBRARY} is not built")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGpu]:
    with fake_gpu(monkeypatch) as fake:
        yield fake


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT))
    import bench.gpu

    return bench.gpu


class Probe:
    """What the fake driver answers of its device 0."""

    name = "Fake GPU 0"

    def __init__(self, fake: FakeGpu) -> None:
        self.driver = fake.driver

    def wait(self) -> None:
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
    size = bench.make(tmp_path / kind, kind, 130 * MIB if kind == "dense" else 24 * MIB)
    files = sorted(str(path) for path in (tmp_path / kind).glob("*.safetensors"))
    seen = bench.child("inrush", files, size, Probe(gpu))
    assert seen["gb_per_s"] == pytest.approx(size / seen["seconds"] / 1e9)
    assert 0 < seen["first_s"] < seen["seconds"]
    assert size <= seen["device_bytes"] <= seen["peak_device_bytes"]
    assert seen["peak_device_bytes"] <= size + 64 * MIB
    assert seen["peak_staging"] > 0
    assert json.loads(json.dumps(seen)) == seen
    text = bench.cell_text([seen], "inrush")
    assert "first tensor after" in text
    assert "of device memory beside the tensors at most" in text


def test_what_is_not_cold_is_not_called_so(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"x" * MIB)
    bench.set_state([path], "warm")
    monkeypatch.setattr(bench.pages, "evict", lambda files: None)
    with pytest.raises(bench.NotInState, match=r"not cold: 100% of it is in the page cache"):
        bench.set_state([path], "cold")
    seen = bench.measure("inrush", tmp_path, "cold", MIB)
    assert seen == {"error": "not cold: 100% of it is in the page cache"}
    assert bench.cell_text([seen], "inrush") == seen["error"]

    def refused(path: Path) -> int:
        raise OSError(1, "not permitted")

    monkeypatch.setattr(bench.pages, "resident_bytes", refused)
    bench.set_state([path], "warm")  # by mincore
    monkeypatch.setattr(bench.pages, "mapped_bytes", refused)
    with pytest.raises(bench.NotInState, match="whether it is warm cannot be said"):
        bench.set_state([path], "warm")


def test_cells_are_kept_and_gone_on_with(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def measure(loader: str, folder: Path, state: str, size: int) -> dict[str, Any]:
        asked.append(loader)
        assert len(list(folder.glob("*.safetensors"))) == 4
        if loader == "runai":
            return {"error": "no module"}
        return dict.fromkeys(
            ("gb_per_s", "first_s", "peak_device_bytes", "tensor_bytes", "peak_host_bytes"), 1.0
        )

    monkeypatch.setattr(bench, "measure", measure)
    monkeypatch.setattr(bench, "PLACES", {"tmpfs": tmp_path / "t", "disk": tmp_path / "d"})
    monkeypatch.setattr(bench, "CASES", (("tmpfs", "memory", ("raw", "inrush", "runai")),))
    results = tmp_path / "gpu.json"
    assert not bench.measure_all(results, MIB, 2, 0)
    assert asked == []
    assert bench.measure_all(results, MIB, 2, 60)
    assert asked == ["raw", "inrush", "runai", "raw", "inrush"] * 2
    assert bench.measure_all(results, MIB, 2, 60)
    assert len(asked) == 10
    assert set(json.loads(results.read_text())) == {
        f"tmpfs memory {kind} {loader}"
        for kind in ("dense", "experts")
        for loader in ("raw", "inrush", "runai")
    }


def test_every_loader_is_one_that_can_be_asked_for(bench: Any) -> None:
    named = {loader for _, _, loaders in bench.CASES for loader in loaders}
    assert named == set(bench.LOADERS)
    assert set(bench.MODULES) <= named
