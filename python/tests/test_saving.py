"""Saving: fsync, shards, what a full disk, a forbidden folder and a killed process leave."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

import inrush

torch = pytest.importorskip("torch")
from inrush.torch import save_file, save_sharded  # noqa: E402
from safetensors.torch import load_file as reference_load  # noqa: E402
from safetensors.torch import save_file as reference_save  # noqa: E402


def state(count=6, size=1000):
    return {f"layer.{i}": torch.randn(size // 4) for i in range(count)}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_with_and_without_fsync_the_bytes_are_the_same(tmp_path):
    tensors = {"big": torch.randint(0, 255, (10_000_001,), dtype=torch.uint8), **state()}
    save_file(tensors, tmp_path / "a", fsync=True)
    save_file(tensors, tmp_path / "b", fsync=False)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert equal(reference_load(tmp_path / "a"), tensors)


def test_shards_hold_at_most_the_size_given_and_open_as_one_checkpoint(tmp_path):
    tensors = state(7)
    names = save_sharded(tensors, tmp_path / "m", max_shard_size="2KB", metadata={"by": "us"})
    assert names[0] == "model-00001-of-00004.safetensors"
    assert names[-1] == "model.safetensors.index.json"
    assert sorted(os.listdir(tmp_path / "m")) == sorted(names)
    index = json.loads((tmp_path / "m" / names[-1]).read_text())
    assert index["metadata"] == {"total_size": 7000, "by": "us"}
    assert equal(inrush.open(tmp_path / "m", framework="pt").load(), tensors)
    for name, file in index["weight_map"].items():
        assert torch.equal(reference_load(tmp_path / "m" / file)[name], tensors[name])


def test_one_shard_is_a_plain_file(tmp_path):
    tensors = state()
    names = save_sharded(tensors, tmp_path, filename_pattern="w{suffix}.safetensors")
    assert names == ["w.safetensors"] == os.listdir(tmp_path)
    assert inrush.open(tmp_path).metadata == {"format": "pt"}


def test_a_tied_tensor_is_saved_once_and_its_other_names_are_told(tmp_path):
    tensors = state(2)
    tensors["tied"] = tensors["layer.1"]
    save_sharded(tensors, tmp_path)
    assert sorted(reference_load(tmp_path / "model.safetensors")) == ["layer.0", "layer.1"]
    assert inrush.open(tmp_path).metadata == {"format": "pt", "tied": "layer.1"}
    save_sharded(tensors, tmp_path, shared_tensors_to_discard=["layer.1"])
    assert sorted(reference_load(tmp_path / "model.safetensors")) == ["layer.0", "tied"]
    with pytest.raises(RuntimeError, match="discarded"):
        save_sharded(tensors, tmp_path, shared_tensors_to_discard=["layer.1", "tied"])


def test_a_strided_tensor_is_copied_or_refused(tmp_path):
    tensors = {"t": torch.randn(30, 20).t()}
    save_sharded(tensors, tmp_path)
    assert equal(reference_load(tmp_path / "model.safetensors"), tensors)
    with pytest.raises(ValueError, match="contiguous"):
        save_sharded(tensors, tmp_path, force_contiguous=False)


def test_overlapping_tensors_are_refused(tmp_path):
    whole = torch.randn(100)
    with pytest.raises(RuntimeError, match="share memory"):
        save_sharded({"a": whole[:60], "b": whole[50:]}, tmp_path)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("size", ["5", "5GiB", "1.5GB", "GB", ""])
def test_a_size_that_is_none_is_refused(tmp_path, size):
    with pytest.raises(ValueError, match="max_shard_size"):
        save_sharded(state(), tmp_path, max_shard_size=size)


def test_other_processes_write_nothing(tmp_path):
    assert save_sharded(state(), tmp_path / "m", is_main_process=False) == []
    assert not (tmp_path / "m").exists()


def limited(tmp_path, tensors):
    """Saves `tensors` shards in a process whose files may be 1 MB; what is there afterwards."""
    program = (
        "import resource, signal, sys, torch, inrush\n"
        "from inrush.torch import save_sharded\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000000, 1000000))\n"
        "tensors = {str(i): torch.ones(int(n)) for i, n in enumerate(sys.argv[2:])}\n"
        "try:\n    save_sharded(tensors, sys.argv[1], max_shard_size='4MB', fsync=False)\n"
        "except inrush.SourceError as error:\n    print(error)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path), *map(str, tensors)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return done.stdout + done.stderr


def test_when_there_is_no_room_the_old_checkpoint_stays(tmp_path):
    old = state()
    save_sharded(old, tmp_path)
    assert "File too large" in limited(tmp_path, [1000, 1_000_000])
    assert os.listdir(tmp_path) == ["model.safetensors"]
    assert equal(reference_load(tmp_path / "model.safetensors"), old)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_forbidden_folder_is_named(tmp_path):
    tmp_path.chmod(0o555)
    with pytest.raises(inrush.SourceError, match="Permission denied"):
        save_sharded(state(), tmp_path)


def test_killed_at_any_moment_it_leaves_nothing_that_looks_whole(tmp_path):
    """Two checkpoints in turn, `kill -9` at random: one of them opens whole, or none opens."""
    program = (
        "import sys, torch\n"
        "from inrush.torch import save_sharded\n"
        "a = {f'a.{i}': torch.ones(50000) for i in range(3)}\n"
        "b = {f'b.{i}': torch.ones(50000) for i in range(5)}\n"
        "print('up', flush=True)\n"
        "while True:\n"
        "    for each in (a, b):\n"
        "        save_sharded(each, sys.argv[1], max_shard_size='200KB', fsync=False)\n"
    )
    opened = 0
    for _ in range(2):
        command = [sys.executable, "-c", program, str(tmp_path / "m")]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            time.sleep(0.05 + random.random() / 20)
            process.send_signal(signal.SIGKILL)
        try:
            names = set(inrush.open(tmp_path / "m").keys())
        except inrush.Error:
            continue
        opened += 1
        assert names in ({f"a.{i}" for i in range(3)}, {f"b.{i}" for i in range(5)})
    print(f"{opened} of 2 killed saves left a whole checkpoint")


def test_conjugates_and_negatives_are_saved_as_what_they_are(tmp_path):
    base = torch.randn(7, 5, dtype=torch.complex64)
    wanted = {"conjugate": base.conj(), "negative": base.clone().conj().imag, "both": -base.conj()}
    assert wanted["conjugate"].is_conj()
    assert wanted["negative"].is_neg()
    tensors = {name: tensor.contiguous() for name, tensor in wanted.items()}
    inrush.torch.save_file(tensors, tmp_path / "x")
    inrush.torch.save_sharded(wanted, tmp_path / "many", max_shard_size="1KB")
    files = [tmp_path / "x", *(tmp_path / "many").glob("*.safetensors")]
    for name, tensor in wanted.items():
        found = [one for one in map(reference_load, files) if name in one]
        assert len(found) == 2
        assert all(torch.equal(one[name], tensor.resolve_conj().resolve_neg()) for one in found)


def test_a_conjugated_parameter_is_loaded_as_what_it_shows(tmp_path):
    class Marked(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("turned", torch.randn(9, dtype=torch.complex64).conj())

    tensor = torch.randn(9, dtype=torch.complex64)
    inrush.torch.save_file({"turned": tensor}, tmp_path / "x")
    model = Marked()
    inrush.torch.load_into(model, tmp_path / "x")
    assert torch.equal(model.turned, tensor)
    with pytest.raises(inrush.UsageError, match=r"out\['turned'\] is a conjugate"):
        inrush.open(tmp_path / "x").load(out={"turned": torch.randn(9, dtype=torch.cfloat).conj()})


def test_names_that_no_file_can_hold_are_refused_as_safetensors_does(tmp_path):
    for name, kind in ((1, TypeError), ("\ud800", ValueError)):
        for save in (inrush.torch.save_file, reference_save):
            with pytest.raises(kind):
                save({name: torch.rand(2)}, tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_a_model_is_saved_without_fsync_too(tmp_path):
    model = torch.nn.Linear(3, 3)
    inrush.torch.save_model(model, tmp_path / "x", fsync=False, storage_options=None)
    assert torch.equal(reference_load(tmp_path / "x")["weight"], model.weight)


def test_no_pickles_are_written(tmp_path):
    state = {"a": torch.rand(3)}
    assert save_sharded(state, tmp_path, safe_serialization=True) == ["model.safetensors"]
    with pytest.raises(inrush.UsageError, match="safe_serialization=False"):
        save_sharded(state, tmp_path / "none", safe_serialization=False)
