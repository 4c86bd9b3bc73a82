"""Checkpoints into torch modules: what fits where, ties, and failures halfway."""

import json
import os
import threading
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch
from inrush.torch import (
    MismatchError,
    load_file,
    load_into,
    load_model,
    save_file,
    save_model,
    storage_ptr,
)

import inrush


class Tower(torch.nn.Module):
    """Two layers, tied embeddings, a persistent buffer and a passing one."""

    def __init__(self, width=16):
        super().__init__()
        self.embed = torch.nn.Embedding(32, width)
        self.first = torch.nn.Linear(width, width)
        self.norm = torch.nn.BatchNorm1d(width)
        self.head = torch.nn.Linear(width, 32, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("scale", torch.rand(3))
        self.register_buffer("passing", torch.rand(3), persistent=False)


def equal(one, two):
    theirs = two.state_dict()
    return all(torch.equal(tensor, theirs[name]) for name, tensor in one.state_dict().items())


@pytest.fixture
def saved(tmp_path):
    """A tower and its file."""
    model = Tower()
    save_model(model, tmp_path / "tower.safetensors")
    return model, tmp_path / "tower.safetensors"


def test_a_model_is_filled_in_place(saved):
    model, path = saved
    mine = Tower()
    places = {name: tensor.data_ptr() for name, tensor in mine.state_dict().items()}
    passing = mine.passing.clone()
    assert load_into(mine, path) == ([], [])
    assert equal(mine, model)
    assert {name: tensor.data_ptr() for name, tensor in mine.state_dict().items()} == places
    assert mine.head.weight is mine.embed.weight
    assert torch.equal(mine.passing, passing)


def test_a_live_model_is_loaded_into_again(saved):
    model, path = saved
    mine = Tower()
    optimizer = torch.optim.SGD(mine.parameters(), lr=0.1)
    for _ in range(3):
        load_into(mine, path)
        assert equal(mine, model)
        mine.first(torch.rand(2, 16)).sum().backward()
        optimizer.step()
        assert not equal(mine, model)


def test_a_checkpoint_that_is_open_serves_too(saved):
    model, path = saved
    mine = Tower()
    load_into(mine, inrush.open(path))
    assert equal(mine, model)


def test_missing_and_unexpected_names_are_returned_or_refused(tmp_path):
    tensors = {"first.weight": torch.rand(16, 16), "stray": torch.rand(2)}
    save_file(tensors, tmp_path / "x")
    mine = Tower()
    before = {name: tensor.clone() for name, tensor in mine.state_dict().items()}
    with pytest.raises(MismatchError) as caught:
        load_into(mine, tmp_path / "x")
    assert isinstance(caught.value, (RuntimeError, inrush.Error))
    assert 'Unexpected key(s) in state_dict: "stray"' in str(caught.value)
    assert 'Missing key(s) in state_dict: "embed.weight", "first.bias"' in str(caught.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in mine.state_dict().items())
    missing, unexpected = load_into(mine, tmp_path / "x", strict=False)
    assert unexpected == ["stray"]
    # torch loads files of old versions, which have no count of batches.
    assert missing == sorted(
        {*before} - {"first.weight", "head.weight", "norm.num_batches_tracked"}
    )
    assert torch.equal(mine.first.weight, tensors["first.weight"])


@pytest.mark.parametrize("name", ["embed.weight", "head.weight"])
def test_either_name_of_tied_tensors_will_do(tmp_path, name):
    state = {key: tensor.clone() for key, tensor in Tower().state_dict().items()}
    other = {"embed.weight": "head.weight", "head.weight": "embed.weight"}[name]
    extra = state.pop(other)
    save_file(state, tmp_path / "one")
    mine = Tower()
    assert load_into(mine, tmp_path / "one") == ([], [])
    assert torch.equal(mine.head.weight, state[name])
    assert mine.head.weight is mine.embed.weight
    save_file({**state, other: extra.clone()}, tmp_path / "both")
    with pytest.raises(MismatchError, match=r'Unexpected key\(s\) in state_dict: "head.weight"'):
        load_into(mine, tmp_path / "both")


def test_shapes_are_compared_before_anything_is_written(saved):
    _, path = saved
    mine = Tower(width=8)
    before = {name: tensor.clone() for name, tensor in mine.state_dict().items()}
    with pytest.raises(MismatchError, match=r"size mismatch for first.weight: .*\[16, 16\].*8, 8"):
        load_into(mine, path, strict=False)
    assert all(torch.equal(tensor, before[name]) for name, tensor in mine.state_dict().items())


def test_dtypes_are_compared_or_cast(saved):
    model, path = saved
    half = Tower().bfloat16()
    with pytest.raises(
        MismatchError, match=r"dtype mismatch for first.weight: .*float32.*bfloat16"
    ):
        load_into(half, path)
    for dtype in ("model", torch.bfloat16, "bfloat16", "torch.bfloat16"):
        mine = Tower().bfloat16()
        load_into(mine, path, dtype=dtype)
        assert equal(mine, model.to(torch.bfloat16))
    with pytest.raises(MismatchError, match="dtype mismatch"):
        load_into(Tower(), path, dtype=torch.float16)
    with pytest.raises(inrush.UsageError, match="expected None, 'model' or"):
        load_into(mine, path, dtype="nn")


@pytest.mark.parametrize("dtype", [None, "model", torch.float64])
def test_a_model_without_memory_is_given_tensors(saved, dtype):
    model, path = saved
    with torch.device("meta"):
        mine = Tower()
    with pytest.raises(MismatchError, match=r"first\.weight is on the meta device.*assign=True"):
        load_into(mine, path, dtype=dtype)
    assert mine.first.weight.is_meta
    assert load_into(mine, path, dtype=dtype, assign=True) == ([], [])
    assert equal(mine, model.to(dtype) if dtype is torch.float64 else model)
    assert mine.head.weight is mine.embed.weight
    assert isinstance(mine.first.weight, torch.nn.Parameter)
    assert mine.first.weight.requires_grad
    load_into(mine, path, dtype="model")


def test_slices_fill_a_part_of_the_model(tmp_path):
    whole = {"weight": torch.rand(64, 32), "bias": torch.rand(64)}
    save_file(whole, tmp_path / "x")
    for rank in range(4):
        part = torch.nn.Linear(32, 16)
        rows = slice(16 * rank, 16 * rank + 16)
        load_into(part, tmp_path / "x", slices={"weight": (rows, slice(None)), "bias": rows})
        assert torch.equal(part.weight, whole["weight"][rows])
        assert torch.equal(part.bias, whole["bias"][rows])
    part = torch.nn.Linear(16, 64)
    load_into(part, tmp_path / "x", slices={"weight": ":, 16:32"})
    assert torch.equal(part.weight, whole["weight"][:, 16:32])
    with pytest.raises(MismatchError, match="size mismatch for weight"):
        load_into(torch.nn.Linear(32, 16), tmp_path / "x", strict=False, slices={"bias": "0:16"})


def test_strided_and_overlapping_parameters_are_right(tmp_path):
    class Odd(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.strided = torch.nn.Parameter(torch.zeros(8, 4).T)
            flat = torch.zeros(12)
            self.low = torch.nn.Parameter(flat[:6])
            self.high = torch.nn.Parameter(flat[6:])
            self.register_buffer("whole", torch.zeros(10))
            self.register_buffer("tail", self.whole[5:])

    tensors = {
        "strided": torch.rand(4, 8), "low": torch.rand(6), "high": torch.rand(6),
        "whole": torch.rand(10),
    }  # fmt: skip
    tensors["tail"] = tensors["whole"][5:].clone()
    save_file(tensors, tmp_path / "x")
    odd = Odd()
    assert load_into(odd, tmp_path / "x") == ([], [])
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in odd.state_dict().items())
    assert storage_ptr(odd.low) == storage_ptr(odd.high)


def test_a_failure_halfway_says_what_was_written(tmp_path):
    width = 512
    model = torch.nn.Sequential(*(torch.nn.Linear(width, width, bias=False) for _ in range(24)))
    path = tmp_path / "x.safetensors"
    save_file(dict(model.state_dict()), path)
    checkpoint = inrush.open(path)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size * 2 // 3)
    with pytest.raises(
        inrush.Error, match=r"\d+ of 24 tensors of the Sequential were written"
    ) as e:
        load_into(model, checkpoint)
    assert isinstance(e.value.written, list)
    assert "the others may be written in part" in str(e.value)
    save_file(dict(model.state_dict()), path)
    assert load_into(model, path) == ([], [])


def test_staging_stays_in_the_budget(tmp_path):
    """The model's memory is filled in place: what is beside it is the budget."""
    model = torch.nn.Sequential(*(torch.nn.Linear(1024, 1024) for _ in range(12)))
    save_file(dict(model.state_dict()), tmp_path / "x")
    mine = torch.nn.Sequential(*(torch.nn.Linear(1024, 1024) for _ in range(12)))
    stop = threading.Event()
    peak = [0]

    def watch():
        page = os.sysconf("SC_PAGESIZE")
        while not stop.is_set():
            peak[0] = max(peak[0], int(Path("/proc/self/statm").read_text().split()[1]) * page)
            time.sleep(0.001)

    load_into(mine, tmp_path / "x", budget="16MiB", backend="uring")  # what is loaded once: code
    start = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        load_into(mine, tmp_path / "x", budget="16MiB", backend="uring")
    finally:
        stop.set()
        watcher.join()
    assert equal(mine, model)
    assert peak[0] - start < (16 + 8) << 20


def test_models_of_safetensors_and_ours_are_the_same(tmp_path):
    model = Tower()
    save_model(model, tmp_path / "ours", {"note": "x"})
    safetensors.torch.save_model(model, str(tmp_path / "theirs"), {"note": "x"})
    ours, theirs = (
        safetensors.safe_open(tmp_path / name, "pt").metadata() for name in ("ours", "theirs")
    )
    assert ours == theirs == {"note": "x", "head.weight": "embed.weight"}
    first, second = (load_file(tmp_path / name) for name in ("ours", "theirs"))
    assert first.keys() == second.keys()
    for load in (load_model, safetensors.torch.load_model):
        mine = Tower()
        missing, unexpected = load(mine, str(tmp_path / "theirs"))
        assert (list(missing), list(unexpected)) == ([], [])
        assert equal(mine, model)
    assert load_model(mine.half(), tmp_path / "ours", device=None, backend="pread") == (set(), [])
    assert mine.first.weight.dtype == torch.float16


def test_load_model_returns_what_safetensors_returns(saved, tmp_path):
    state = {name: tensor.clone() for name, tensor in saved[0].state_dict().items()}
    for name in ("first.bias", "norm.running_var", "scale"):
        del state[name]
    safetensors.torch.save_file({**state, "z": torch.rand(2), "a": torch.rand(2)}, tmp_path / "x")
    ours, theirs = (
        load(Tower(), str(tmp_path / "x"), strict=False)
        for load in (load_model, safetensors.torch.load_model)
    )
    assert ours == theirs
    assert ours == ({"first.bias", "norm.running_var", "scale"}, ["a", "z", "head.weight"])


def test_names_and_shapes_that_differ_are_told_together(tmp_path):
    save_file({"weight": torch.rand(2, 2), "stray": torch.rand(2)}, tmp_path / "x")
    with pytest.raises(MismatchError, match=r'(?s)"bias".*"stray".*size mismatch for weight'):
        load_into(torch.nn.Linear(3, 3), tmp_path / "x")


def test_load_model_raises_what_safetensors_raises(saved, tmp_path):
    _, path = saved
    for load in (load_model, safetensors.torch.load_model):
        with pytest.raises(RuntimeError, match="size mismatch for first"):
            load(Tower(width=8), str(path))
        with pytest.raises(RuntimeError, match=r"Missing key\(s\) in state_dict: \"bias\""):
            load(torch.nn.Linear(16, 16), str(path))
        with pytest.raises(FileNotFoundError, match="No such file or directory"):
            load(Tower(), str(tmp_path / "none"))


def test_a_model_with_nothing_in_the_file(tmp_path):
    save_file({"a": torch.rand(2)}, tmp_path / "x")
    assert load_into(torch.nn.ReLU(), tmp_path / "x", strict=False) == ([], ["a"])


def test_a_sharded_checkpoint_fills_a_model(tmp_path):
    model = Tower()
    state = dict(model.state_dict())
    del state["head.weight"]
    names = list(state)
    weight_map = {}
    for shard, part in enumerate((names[:3], names[3:])):
        name = f"model-{shard + 1:05}-of-00002.safetensors"
        save_file({key: state[key] for key in part}, tmp_path / name)
        weight_map |= dict.fromkeys(part, name)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    mine = Tower()
    assert load_into(mine, tmp_path) == ([], [])
    assert equal(mine, model)
