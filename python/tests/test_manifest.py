"""Loads that compare what they read with a manifest."""

from __future__ import annotations

import json
from pathlib import Path

import inrush.numpy
import inrush.torch
import numpy as np
import pytest

import inrush

LEAF = 1 << 20
SHAPES = {"large": (900, 1200), "small": (7,), "none": (0, 3)}  # float32


@pytest.fixture
def place(tmp_path, inrush_command):
    """A folder, its manifest, and its tensors."""
    draw = np.random.default_rng()
    tensors = {name: draw.random(shape, np.float32) for name, shape in SHAPES.items()}
    folder = tmp_path / "model"
    folder.mkdir()
    inrush.numpy.save_file(tensors, folder / "m.safetensors")
    manifest = tmp_path / "manifest.json"
    assert inrush_command("manifest", folder, "-o", manifest).returncode == 0
    return folder, manifest, tensors


def flip(folder: Path, name: str, at: int) -> int:
    """Change a byte of a tensor; where it lies in the file."""
    path = folder / "m.safetensors"
    data = bytearray(path.read_bytes())
    size = int.from_bytes(data[:8], "little")
    begin = json.loads(data[8 : 8 + size])[name]["data_offsets"][0] + 8 + size
    data[begin + at] ^= 1
    path.write_bytes(data)
    return begin


def change(manifest: Path, **changes: object) -> Path:
    """Another manifest, with other entries for tensors; None: without."""
    values = json.loads(manifest.read_text())
    for name, entry in changes.items():
        if entry is None:
            del values["tensors"][name]
        else:
            values["tensors"][name] = {**values["tensors"].get(name, {}), **entry}
    path = manifest.with_name("changed.json")
    path.write_text(json.dumps(values))
    return path


@pytest.mark.parametrize("backend", [None, "uring", "pread_buffered", "mmap"])
def test_what_agrees_is_delivered(place, backend):
    folder, manifest, tensors = place
    checkpoint = inrush.open(folder, framework="np", manifest=str(manifest), backend=backend)
    loaded = checkpoint.load()
    assert set(loaded) == set(tensors)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(loaded[name], tensor)
        np.testing.assert_array_equal(checkpoint.tensor(name), tensor)
    np.testing.assert_array_equal(
        checkpoint.tensor("large", "5:9, ::7"), tensors["large"][5:9, ::7]
    )


def test_the_leaf_that_differs_is_named_and_nothing_of_it_is_delivered(place):
    folder, manifest, _ = place
    flip(folder, "large", 2 * LEAF + 5)
    checkpoint = inrush.open(folder, manifest=manifest)
    got = []
    with pytest.raises(inrush.DataError, match=r"m\.safetensors.*large.*\[2097152, \+1048576\)"):
        got += [name for name, _ in checkpoint.tensors()]
    assert "large" not in got
    with pytest.raises(inrush.DataError, match="large"):
        checkpoint.tensor("large")
    assert set(inrush.open(folder, manifest=manifest, exclude="large").load()) == {"small", "none"}


def test_a_slice_is_checked_alone(place):
    folder, manifest, tensors = place
    begin = flip(folder, "large", 2 * LEAF + 5)
    checkpoint = inrush.open(folder, framework="np", manifest=manifest)
    row = 1200 * 4
    clean = LEAF // row  # rows that end before the second leaf does
    for rows in (f"0:{clean}", f"{3 * LEAF // row + 1}:900"):
        index = slice(*map(int, rows.split(":")))
        np.testing.assert_array_equal(checkpoint.tensor("large", rows), tensors["large"][index])
    where = rf"\[{begin + 2 * LEAF}, \+{LEAF}\)"
    for wrong in (f"{2 * LEAF // row + 1}:{2 * LEAF // row + 2}", ":, 3", "::200"):
        with pytest.raises(inrush.DataError, match=f"large.*|{where}"):
            checkpoint.tensor("large", wrong)
    with pytest.raises(inrush.DataError, match=where):
        inrush.open(folder, manifest=manifest, slices={"large": ":, 0:1"}, include="large").load()
    for nothing in ("5:5", ":, 3:3"):
        assert checkpoint.tensor("large", nothing).size == 0


def test_a_slice_takes_leaves_or_a_tensor_of_one(place):
    folder, manifest, tensors = place
    entry = json.loads(manifest.read_text())["tensors"]
    for name in ("large", "small"):
        entry[name].pop("leaves")
    values = {**json.loads(manifest.read_text()), "tensors": entry}
    bare = manifest.with_name("bare.json")
    bare.write_text(json.dumps(values))
    checkpoint = inrush.open(folder, framework="np", manifest=bare)
    np.testing.assert_array_equal(checkpoint.tensor("small", "2:5"), tensors["small"][2:5])
    np.testing.assert_array_equal(checkpoint.tensor("large"), tensors["large"])
    with pytest.raises(inrush.UsageError, match="no leaves of it"):
        checkpoint.tensor("large", "2:5")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"gone": {"file": "m.safetensors", "dtype": "U8", "shape": [0], "size": 0}}, "not here"),
        ({"small": None}, "not in the manifest"),
        ({"small": {"shape": [7, 1]}}, r"F32\[7\], and the manifest has F32\[7, 1\]"),
        ({"small": {"digest": "0" * 64, "leaves": []}}, "is expected"),
    ],
)
def test_another_checkpoint_is_refused(place, changes, reason):
    folder, manifest, _ = place
    with pytest.raises(inrush.DataError, match=reason):
        inrush.open(folder, manifest=change(manifest, **changes)).load()


def test_a_tensor_without_a_digest_is_not_taken_on_trust(place):
    folder, manifest, _ = place
    values = json.loads(manifest.read_text())
    values["tensors"]["small"].pop("digest")
    values["tensors"]["small"].pop("leaves", None)
    manifest.write_text(json.dumps(values))
    with pytest.raises(inrush.DataError, match="no digest"):
        inrush.open(folder, manifest=manifest).load()


def test_the_command_line_compares_while_it_loads(place, inrush_command):
    folder, manifest, _ = place
    assert inrush_command("load", folder, "--manifest", manifest).returncode == 0
    flip(folder, "small", 3)
    done = inrush_command("load", folder, "--manifest", manifest)
    assert done.returncode == 1
    assert "small" in done.stderr
    assert inrush_command("load", folder, "--manifest", folder / "no.json").returncode == 3


def test_what_is_compared_is_read_by_the_host(place):
    folder, manifest, _ = place
    with pytest.raises(inrush.UsageError, match="read by the host"):
        inrush.open(folder, device="cuda:0", manifest=manifest).load()
    with pytest.raises(inrush.UsageError, match="not to several"):
        inrush.open(folder, device={"": "cuda:0"}, manifest=manifest).load()


def test_a_module_is_filled_with_what_was_compared(place):
    torch = pytest.importorskip("torch")
    folder, manifest, tensors = place
    module = torch.nn.ParameterDict({name: torch.zeros(t.shape) for name, t in tensors.items()})
    inrush.torch.load_into(module, folder, manifest=manifest)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(module[name].detach().numpy(), tensor)
    flip(folder, "large", 9)
    with pytest.raises(inrush.DataError, match="large"):
        inrush.torch.load_into(module, folder, manifest=manifest)
