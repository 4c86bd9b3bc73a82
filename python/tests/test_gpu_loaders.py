"""The loaders that bench/gpu*.py compares, the digest of what they load, and the link's limit."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

MIB = 1 << 20


@pytest.fixture
def bench() -> Any:
    import bench
    import bench.gpu

    return bench


def test_the_digest_sees_one_bit_and_one_exchange(bench: Any) -> None:
    import torch

    first, second = (torch.randint(0, 256, (4099,), dtype=torch.uint8) for _ in range(2))
    one = bench.gpu_loaders.digest({"a": first, "b": second})
    assert one == bench.gpu_loaders.digest({"b": second, "a": first})
    assert one == bench.gpu_loaders.digest({"a": torch.cat([first, first])[4099:], "b": second})
    assert one != bench.gpu_loaders.digest({"a": second, "b": first})
    turned = first.clone()
    turned[:16] = first[:16].roll(8)
    assert one != bench.gpu_loaders.digest({"a": turned, "b": second})
    turned = first.clone()
    turned[-1] ^= 1
    assert one != bench.gpu_loaders.digest({"a": turned, "b": second})


@pytest.mark.parametrize(
    "name", ["inrush", "inrush_stream", "safetensors", "fastsafetensors", "runai"]
)
def test_loaders_are_called_as_they_are_today(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Into host memory, which all but InstantTensor can do."""
    import safetensors.torch

    loaders = bench.gpu_loaders
    pytest.importorskip(loaders.MODULES[name][0])
    monkeypatch.setattr(loaders, "DEVICE", "cpu")
    monkeypatch.setattr(bench.gpu_fixtures, "EXPERTS", 50)
    bench.gpu_fixtures.make(tmp_path / "a", "experts", MIB)
    files = sorted(str(path) for path in (tmp_path / "a").glob("*.safetensors"))
    seen: list[int] = []
    tensors, _ = loaders.LOADERS[name](files, lambda: seen.append(1))
    assert len(seen) == len(tensors) == 50
    wanted = {}
    for path in files:
        wanted.update(safetensors.torch.load_file(path))
    assert loaders.digest(tensors) == loaders.digest(wanted)


def test_rates_of_pinned_copies_count_every_byte(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In host memory: what is copied where, and that each way is timed."""
    import torch

    loaders, empty = bench.gpu_loaders, torch.empty
    made: list[torch.Tensor] = []

    def without_pinning(size: int, *, pin_memory: bool = False, **words: Any) -> torch.Tensor:
        made.append(empty(size, **words))
        return made[-1]

    event = SimpleNamespace(record=lambda: None)
    cuda = SimpleNamespace(
        Stream=lambda: None, Event=lambda: event, stream=nullcontext, synchronize=lambda: None
    )
    monkeypatch.setattr(torch, "empty", without_pinning)
    monkeypatch.setattr(torch, "cuda", cuda)
    monkeypatch.setattr(loaders, "DEVICE", "cpu")
    monkeypatch.setattr(loaders, "BLOCK", 4 * MIB)
    said = loaders.pinned_rates(copies=8)
    ways = ("1 streams", "2 streams", "4 streams", "8 streams")
    assert tuple(said["by_way"]) == (*ways, "1 MiB a copy", "2 MiB a copy", "4 MiB a copy")
    assert said["gb_per_s"] == max(said["by_way"].values()) > 0
    sources, targets = made[:8], made[8:]
    pairs = zip(sources, targets, strict=True)
    assert all(torch.equal(source, target) for source, target in pairs)


def test_torchs_cuda_runtime_is_found_by_its_plain_name(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forks = bench.gpu_forks
    library = tmp_path / "nvidia" / "cu13" / "lib" / "libcudart.so.13"
    library.parent.mkdir(parents=True)
    library.touch()
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path / "nvidia")])
    monkeypatch.setattr(forks, "find_spec", lambda name: spec)
    monkeypatch.setenv("LD_LIBRARY_PATH", "/elsewhere")
    (tmp_path / "scratch").mkdir()
    for _ in range(2):
        places = forks.with_plain_runtime(tmp_path / "scratch")["LD_LIBRARY_PATH"].split(":")
        assert (Path(places[0]) / "libcudart.so").resolve() == library
        assert places[1:] == ["/elsewhere"]
    monkeypatch.setattr(forks, "find_spec", lambda name: None)
    assert forks.with_plain_runtime(tmp_path / "scratch") == {}
