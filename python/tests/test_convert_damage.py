"""Damaged sources of every format, converted: one error that names the file, and nothing left."""

from __future__ import annotations

import collections
import json
import random
import shutil
import subprocess
import warnings
import zipfile

import pytest

np = pytest.importorskip("numpy")
torch = pytest.importorskip("torch")

import inrush.numpy  # noqa: E402
from test_damage import KEY, VALUES, WRITERS, right, write_safetensors  # noqa: E402

TARGETS = {"safetensors": "out.safetensors", "serverlessllm": "out", "tensorizer": "out.tensors"}
FORMATS = [*WRITERS, "serverlessllm"]


def written(name, folder):
    """A source of this format: its place, and the files that are damaged."""
    place = folder / "model"
    if name in WRITERS:
        WRITERS[name](place)
        return place, [place]
    plain = folder / "model.safetensors"
    write_safetensors(plain)
    inrush.convert(plain, place, to="serverlessllm")
    plain.unlink()
    return place, sorted(place.iterdir())


def options_of(name) -> dict:
    checked = {"verify": "full"} if name == "tensorizer" else {}
    return {"encryption": KEY} if name == "sealed" else checked


def left_in(folder) -> set:
    return {path.relative_to(folder) for path in folder.rglob("*")}


def refused(source, folder, to, **options) -> bool:
    """Whether one clear error came, after which all is as it was; else what came is all there."""
    before = left_in(folder)
    target = folder / TARGETS[to]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            inrush.convert(source, target, to=to, **options)
    except inrush.Error as error:
        text = str(error)
        assert source.name in text, text
        assert "\n" not in text
        assert left_in(folder) == before
        return True
    found = inrush.open(target, framework="np").load()
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    assert left_in(folder) == before
    return not right(found) and "changed without a word"


def damaged(data: bytes, draw: random.Random, count: int):
    for size in draw.sample(range(len(data)), min(count, len(data))):
        yield "cut", size, data[:size]
    for place in draw.sample(range(len(data)), min(count, len(data))):
        changed = bytearray(data)
        changed[place] ^= 1 << draw.randrange(8)
        yield "flipped", place, bytes(changed)


@pytest.mark.parametrize("to", TARGETS)
@pytest.mark.parametrize("name", FORMATS)
def test_damage_is_one_error_or_does_no_harm(tmp_path, name, to):
    source, files = written(name, tmp_path)
    draw = random.Random(f"{name} {to}")
    found = collections.Counter()
    for file in files:
        data = file.read_bytes()
        for how, place, bad in damaged(data, draw, 24):
            file.write_bytes(bad)
            outcome = refused(source, tmp_path, to, **options_of(name))
            # Formats without checksums cannot know that a bit was another one.
            known = how == "cut" or name in ("sealed", "tensorizer")
            assert outcome in (True, False) or not known, (how, file.name, place)
            found[outcome] += 1
        file.write_bytes(data)
    assert found[True] > 10
    assert refused(source, tmp_path, to, **options_of(name)) is False


@pytest.mark.parametrize("name", FORMATS)
def test_on_the_command_line_it_is_one_line_and_exit_code_1(tmp_path, name, inrush_command):
    source, files = written(name, tmp_path)
    data = files[-1].read_bytes()
    files[-1].write_bytes(data[: len(data) - 48])
    (tmp_path / "key").write_bytes(KEY)
    before = left_in(tmp_path)
    key = ["--key-file", tmp_path / "key"] if name == "sealed" else []
    words = ["convert", source, tmp_path / "out", "--to", "safetensors", *key]
    done = inrush_command(*words)
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert "model" in lines[0] and "[" in lines[0]  # the file and the range
    assert left_in(tmp_path) == before


class Runs:
    """Makes a file where a pickle is executed."""

    def __init__(self, mark) -> None:
        self.mark = mark

    def __reduce__(self):
        return open, (str(self.mark), "w")


@pytest.mark.parametrize("to", TARGETS)
def test_pickles_with_code_are_refused_and_do_not_run(tmp_path, to):
    source = tmp_path / "model.bin"
    torch.save({"a": torch.rand(3), "b": Runs(tmp_path / "mark")}, source)
    assert refused(source, tmp_path, to) is True
    with pytest.raises(inrush.DataError, match=r"open\" is refused"):
        inrush.convert(source, tmp_path / TARGETS[to], to=to)
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("to", TARGETS)
def test_indexes_that_lead_out_of_their_folder_are_refused(tmp_path, to):
    folder = tmp_path / "model"
    folder.mkdir()
    secret = tmp_path / "secret.bin"
    torch.save({"a": torch.rand(3)}, secret)
    for name in ("../secret.bin", str(secret), "x/../../secret.bin"):
        index = {"metadata": {}, "weight_map": {"a": name}}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
        assert refused(folder, tmp_path, to) is True


@pytest.mark.parametrize("to", TARGETS)
def test_zips_that_unpack_to_more_than_they_are_are_refused(tmp_path, to):
    source = tmp_path / "model.pt"
    torch.save({"a": torch.zeros(1 << 20)}, source)
    packed = tmp_path / "model.bin"
    with (
        zipfile.ZipFile(source) as plain,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for entry in plain.namelist():
            bomb.writestr(entry, plain.read(entry))
    source.unlink()
    assert packed.stat().st_size < 1 << 16
    assert refused(packed, tmp_path, to) is True


@pytest.mark.parametrize("to", TARGETS)
@pytest.mark.parametrize("name", ["sealed", "tensorizer"])
def test_a_wrong_or_missing_key_leaves_nothing(tmp_path, name, to):
    plain, source = tmp_path / "plain.safetensors", tmp_path / "model"
    write_safetensors(plain)
    if name == "sealed":
        WRITERS[name](source)
    else:
        inrush.convert(plain, source, to=name, encrypt=KEY)
    for options in ({}, {"encryption": bytes(32)}):
        assert refused(source, tmp_path, to, **options) is True
    assert refused(source, tmp_path, to, encryption=KEY) is False


@pytest.mark.parametrize("key", [None, KEY])
@pytest.mark.parametrize("to", TARGETS)
def test_a_full_disk_leaves_nothing_and_a_larger_one_takes_it(tmp_path, to, key):
    if key is not None and to == "serverlessllm":
        pytest.skip("it cannot be encrypted")
    source, small = tmp_path / "model.safetensors", tmp_path / "small"
    small.mkdir()
    large = np.random.default_rng(1).integers(0, 256, 4_000_000, np.uint8)
    inrush.numpy.save_file({**VALUES, "large": large}, source)
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(small)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("may not mount here")
    target = small / TARGETS[to]
    try:
        with pytest.raises(inrush.SourceError, match=rf"{target.name}.*No space left"):
            inrush.convert(source, target, to=to, encrypt=key)
        assert not list(small.iterdir())
        subprocess.run(["mount", "-o", "remount,size=9m", str(small)], check=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            inrush.convert(source, target, to=to, encrypt=key, resume=True)
            assert set(inrush.open(target, encryption=key).load()) == {*VALUES, "large"}
        assert list(small.iterdir()) == [target]
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def test_a_tied_tensor_of_a_zip_is_written_whole(tmp_path):
    """Two names of one storage, one of them turned: each has its own bytes."""
    a = torch.from_numpy(VALUES["a"])
    torch.save({"a": a, "t": a.t()}, tmp_path / "model.pt")
    inrush.convert(tmp_path / "model.pt", tmp_path / "out.safetensors", to="safetensors")
    found = inrush.open(tmp_path / "out.safetensors", framework="np").load()
    np.testing.assert_array_equal(found["t"], VALUES["a"].T)
    np.testing.assert_array_equal(found["a"], VALUES["a"])
