"""Checkpoints written as another format: the same tensors, all or nothing, resumable."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
from conftest import random_tensor, write_file

import inrush

FORMATS = ["safetensors", "serverlessllm", "tensorizer"]
NINE = ["F16", "F32", "F64", "I16", "I32", "I64", "U8", "I8", "BF16"]


def contents() -> dict:
    made = {f"layer.{dtype}": random_tensor(dtype, [6, 7]) for dtype in NINE}
    made["scalar"] = random_tensor("F32", [])
    made["empty"] = random_tensor("F16", [0, 7])
    made["large"] = random_tensor("BF16", [3, 300_001])
    made["odd"] = random_tensor("U8", [4099])
    return made


@pytest.fixture
def source(tmp_path: Path) -> tuple[Path, dict]:
    tensors = contents()
    return write_file(tmp_path / "source.safetensors", tensors, metadata={"format": "pt"}), tensors


def check(path: Path, tensors: dict, **options: object) -> inrush.Checkpoint:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        checkpoint = inrush.open(path, **options)
        loaded = checkpoint.load()
    assert set(loaded) == set(tensors)
    for name, (dtype, shape, data) in tensors.items():
        assert (loaded[name].dtype, list(loaded[name].shape)) == (dtype, shape)
        assert bytes(loaded[name].as_bytes()) == data if data else loaded[name].nbytes == 0
    return checkpoint


def nothing_left(folder: Path) -> bool:
    return not [path for path in folder.iterdir() if "partial" in path.name]


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("via", FORMATS)
def test_every_way_there_and_back_keeps_every_byte(tmp_path, source, via, to):
    path, tensors = source
    first = inrush.convert(path, tmp_path / "first", to=via)
    second = inrush.convert(tmp_path / "first", tmp_path / "second", to=to)
    assert first == second
    assert set(first) == set(tensors)
    assert check(tmp_path / "second", tensors).format == to
    assert nothing_left(tmp_path)


def test_digests_are_those_of_manifests(tmp_path, source, inrush_command):
    path, _ = source
    digests = inrush.convert(path, tmp_path / "x.tensors", to="tensorizer")
    done = inrush_command("manifest", path, "-o", tmp_path / "m.json")
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "m.json").read_text())
    assert digests == {name: entry["digest"] for name, entry in manifest["tensors"].items()}


def test_one_safetensors_file_is_what_safetensors_writes(tmp_path, source):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    path, _ = source
    inrush.convert(path, tmp_path / "x.tensors", to="tensorizer")
    inrush.convert(tmp_path / "x.tensors", tmp_path / "y.safetensors", to="safetensors")
    save_file(inrush.open(path, framework="pt").load(), tmp_path / "z.safetensors")
    assert (tmp_path / "y.safetensors").read_bytes() == (tmp_path / "z.safetensors").read_bytes()
    assert torch is not None


def test_shards_have_an_index(tmp_path, source):
    path, tensors = source
    inrush.convert(path, tmp_path / "folder", to="safetensors", shard_size="1MB")
    names = sorted(os.listdir(tmp_path / "folder"))
    assert names[0] == f"model-00001-of-{len(names) - 1:05}.safetensors"
    assert names[-1] == "model.safetensors.index.json"
    assert len(names) > 2
    assert check(tmp_path / "folder", tensors).metadata == {"format": "pt"}


def test_no_partition_ends_within_a_page_and_all_tails_are_there(tmp_path, source):
    path, tensors = source
    inrush.convert(path, tmp_path / "folder", to="serverlessllm", shard_size="1MB")
    index = json.loads((tmp_path / "folder" / "tensor_index.json").read_text())
    files = sorted((tmp_path / "folder").glob("tensor.data_*"))
    assert len(files) > 1
    assert all(file.stat().st_size % 4096 == 0 for file in files)
    whole = b"".join(file.read_bytes() for file in files)
    for name, (dtype, shape, data) in tensors.items():
        offset, size, extents, _, text = index[name]
        assert whole[offset : offset + size] == data
        assert (extents, text.startswith("torch.")) == (shape, True)
        assert offset % 256 == 0 or not data
        assert dtype in NINE


def test_ranks_keep_their_folders(tmp_path):
    tensors = {f"rank_{rank}/w": random_tensor("F32", [5]) for rank in range(3)}
    write_file(tmp_path / "x.safetensors", tensors)
    inrush.convert(tmp_path / "x.safetensors", tmp_path / "ranks", to="serverlessllm")
    assert sorted(os.listdir(tmp_path / "ranks")) == ["rank_0", "rank_1", "rank_2"]
    check(tmp_path / "ranks", tensors)
    check(tmp_path / "ranks" / "rank_1", {"w": tensors["rank_1/w"]})


def test_what_a_format_cannot_say_is_refused_before_anything_is_written(tmp_path):
    write_file(tmp_path / "x.safetensors", {"a": random_tensor("F8_E4M3", [4])})
    with pytest.raises(inrush.UsageError, match="cannot restore F8_E4M3"):
        inrush.convert(tmp_path / "x.safetensors", tmp_path / "y", to="serverlessllm")
    assert os.listdir(tmp_path) == ["x.safetensors"]


def test_what_safetensors_cannot_name_is_refused_before_anything_is_written(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "m.bin"
    torch.save({"__metadata__": torch.rand(3), "a": torch.rand(2)}, path)
    with pytest.raises(inrush.UsageError, match=r"__metadata__.*the name is taken"):
        inrush.convert(path, tmp_path / "to", to="safetensors")
    assert [one.name for one in tmp_path.iterdir()] == ["m.bin"]
    inrush.convert(path, tmp_path / "to", to="safetensors", exclude="__*")


def test_one_file_is_not_promised_to_be_smaller_than_its_tensors(tmp_path, source):
    path, tensors = source
    with pytest.raises(inrush.UsageError, match="shard_size 1000 is less than"):
        inrush.convert(path, tmp_path / "y.tensors", to="tensorizer", shard_size=1000)
    assert not (tmp_path / "y.tensors").exists()
    inrush.convert(path, tmp_path / "y.tensors", to="tensorizer", shard_size="1GB")
    check(tmp_path / "y.tensors", tensors)


def test_only_what_is_included_is_written(tmp_path, source):
    path, tensors = source
    inrush.convert(path, tmp_path / "y", to="safetensors", include="layer.*", exclude="*F64")
    wanted = {n: t for n, t in tensors.items() if n.startswith("layer.") and n != "layer.F64"}
    check(tmp_path / "y", wanted)


@pytest.mark.parametrize(
    "preset", ["INCLUDE=t*", "EXCLUDE=t*", "SLICES=a=0:1", "DEVICE=cuda:0", "ORDER=a"]
)
def test_what_the_environment_presets_for_loads_is_not_of_a_conversion(
    tmp_path, monkeypatch, preset
):
    contents = {name: random_tensor("F32", [5, 7]) for name in ("a", "t0", "t1")}
    source = write_file(tmp_path / "m.safetensors", contents)
    word, _, value = preset.partition("=")
    monkeypatch.setenv("INRUSH_" + word, value)
    digests = inrush.convert(source, tmp_path / "m.tensors", to="tensorizer")
    assert sorted(digests) == sorted(contents)
    monkeypatch.delenv("INRUSH_" + word)
    assert {n: bytes(t) for n, t in inrush.open(tmp_path / "m.tensors").load().items()} == {
        name: data for name, (_, _, data) in contents.items()
    }


def test_several_files_are_one_source(tmp_path):
    contents = {name: random_tensor("F32", [5, 7]) for name in ("a", "b")}
    files = [
        write_file(tmp_path / f"{name}.safetensors", {name: entry})
        for name, entry in contents.items()
    ]
    inrush.convert(files, tmp_path / "m.tensors", to="tensorizer")
    check(tmp_path / "m.tensors", contents)


def test_checks_of_the_source_are_not_asked_of_what_is_written(tmp_path, source, monkeypatch):
    path, tensors = source
    inrush.convert(path, tmp_path / "a.tensors", to="tensorizer")
    monkeypatch.setenv("INRUSH_VERIFY", "full")
    inrush.convert(tmp_path / "a.tensors", tmp_path / "b", to="safetensors")
    monkeypatch.delenv("INRUSH_VERIFY")
    check(tmp_path / "b", tensors)


def test_a_name_that_is_taken_meanwhile_costs_no_work(tmp_path, monkeypatch):
    contents = {name: random_tensor("F32", [5, 7]) for name in ("a", "b")}
    source = write_file(tmp_path / "m.safetensors", contents)
    target = tmp_path / "m.tensors"
    from inrush import _destination

    publish = _destination.Folder.publish

    def taken(self):
        target.write_bytes(b"mine")
        publish(self)

    with monkeypatch.context() as patched:
        patched.setattr(_destination.Folder, "publish", taken)
        with pytest.raises(inrush.UsageError, match="is there already; what was converted is in"):
            inrush.convert(source, target, to="tensorizer")
    assert target.read_bytes() == b"mine"
    target.unlink()
    writes = []
    monkeypatch.setattr(_destination.Folder, "write", lambda *args: writes.append(args))
    inrush.convert(source, target, to="tensorizer", resume=True)
    assert inrush.open(target).load()["b"].shape == (5, 7)
    assert {name for _, name, _, data in writes if len(data) == 140} == set()


def test_a_destination_that_is_there_is_left_alone(tmp_path, source):
    path, _ = source
    (tmp_path / "y").write_text("mine")
    with pytest.raises(inrush.UsageError, match="is there already"):
        inrush.convert(path, tmp_path / "y", to="safetensors")
    assert (tmp_path / "y").read_text() == "mine"


def test_a_source_that_is_damaged_leaves_nothing(tmp_path, source):
    path, _ = source
    inrush.convert(path, tmp_path / "a.tensors", to="tensorizer")
    with open(tmp_path / "a.tensors", "r+b") as file:
        file.seek(-100, os.SEEK_END)
        byte = file.read(1)[0]
        file.seek(-100, os.SEEK_END)
        file.write(bytes([byte ^ 1]))
    with pytest.raises(inrush.DataError, match=r"SHA-256|CRC-32"):
        inrush.convert(tmp_path / "a.tensors", tmp_path / "b", to="safetensors", verify="full")
    assert nothing_left(tmp_path)
    assert not (tmp_path / "b").exists()


KILLED = """
import os, sys, time
from inrush import _convert, _destination
import inrush
_convert._RECORD_EVERY = 0
written = _destination.Folder.write
count = 0
def write(self, name, offset, data):
    global count
    written(self, name, offset, data)
    count += 1
    if count == 9:
        print("now", flush=True)
        time.sleep(60)
_destination.Folder.write = write
inrush.convert(sys.argv[1], sys.argv[2], to=sys.argv[3])
"""


@pytest.mark.parametrize("to", FORMATS)
def test_a_killed_conversion_goes_on_where_it_was(tmp_path, source, to, monkeypatch):
    path, tensors = source
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, path, tmp_path / "out", to], stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"now\n"
    with pytest.raises(inrush.UsageError, match="another conversion"):
        inrush.convert(path, tmp_path / "out", to=to)
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert not nothing_left(tmp_path)
    from inrush import _destination

    pieces = []
    written = _destination.Folder.write

    def write(self, name, offset, data):
        pieces.append(len(data))
        written(self, name, offset, data)

    monkeypatch.setattr(_destination.Folder, "write", write)
    inrush.convert(path, tmp_path / "out", to=to, resume=True)
    assert sum(pieces) < sum(len(data) for _, _, data in tensors.values()) + 300_000
    assert len(pieces) < (2 if to == "tensorizer" else 1) * len(tensors)
    check(tmp_path / "out", tensors)
    assert nothing_left(tmp_path)


def test_what_is_resumed_must_be_the_same_work(tmp_path, source):
    path, tensors = source
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, path, tmp_path / "out", "safetensors"],
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"now\n"
    child.kill()
    child.wait()
    child.stdout.close()
    time.sleep(0.01)
    os.utime(path)
    with pytest.raises(inrush.DataError, match="its source changed"):
        inrush.convert(path, tmp_path / "out", to="safetensors", resume=True)
    inrush.convert(path, tmp_path / "out", to="safetensors")
    check(tmp_path / "out", tensors)


def test_the_command_line_converts(tmp_path, source, inrush_command):
    path, tensors = source
    (tmp_path / "key").write_bytes(os.urandom(32))
    arguments = ("--to", "tensorizer", "--encrypt-key-file", tmp_path / "key")
    done = inrush_command("convert", path, tmp_path / "x.tensors", *arguments)
    assert done.returncode == 0, done.stderr
    assert "written and compared" in done.stdout
    done = inrush_command(
        "convert", tmp_path / "x.tensors", tmp_path / "y", "--to=safetensors", "--json",
        "--key-file", tmp_path / "key",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)["digests"]) == set(tensors)
    check(tmp_path / "y", tensors)
    done = inrush_command("convert", path, tmp_path / "y", "--to=safetensors")
    assert done.returncode == 2
    done = inrush_command("convert", path, tmp_path / "z", "--to=zarr")
    assert done.returncode == 2


def test_tensorizer_reads_what_is_written(tmp_path, source):
    torch = pytest.importorskip("torch")
    tensorizer = pytest.importorskip("tensorizer")
    path, tensors = source
    key = os.urandom(32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inrush.convert(path, tmp_path / "plain.tensors", to="tensorizer")
        inrush.convert(path, tmp_path / "sealed.tensors", to="tensorizer", encrypt=key)
    for name, encryption in (
        ("plain", None),
        ("sealed", tensorizer.DecryptionParams.from_key(key)),
    ):
        file = tmp_path / f"{name}.tensors"
        # An empty bf16 or fp8 tensor is what tensorizer cannot open; none of ours is.
        with tensorizer.TensorDeserializer(
            str(file), device="cpu", verify_hash=True, encryption=encryption
        ) as reader:
            for tensor, (_, shape, data) in tensors.items():
                here = reader[tensor].detach()
                assert list(here.shape) == shape
                raw = here.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
                assert raw == data


def test_a_state_dict_is_byte_for_byte_what_tensorizer_writes(tmp_path, source):
    tensorizer = pytest.importorskip("tensorizer")
    path, _ = source
    inrush.convert(path, tmp_path / "ours.tensors", to="tensorizer")
    serializer = tensorizer.TensorSerializer(str(tmp_path / "theirs.tensors"))
    serializer.write_state_dict(inrush.open(path, framework="pt").load())
    serializer.close()
    ours = (tmp_path / "ours.tensors").read_bytes()
    assert ours == (tmp_path / "theirs.tensors").read_bytes()


def test_more_tensors_than_tensorizer_has_room_for(tmp_path):
    tensors = {f"layers.{i}.some.long.name.weight": random_tensor("U8", [3]) for i in range(6000)}
    write_file(tmp_path / "x.safetensors", tensors)
    inrush.convert(tmp_path / "x.safetensors", tmp_path / "y.tensors", to="tensorizer")
    check(tmp_path / "y.tensors", tensors, verify="full")


def test_meta_tensors_become_zeros(tmp_path):
    golden = Path(__file__).resolve().parents[2] / "tests/formats/golden/v4_meta.tensors"
    inrush.convert(golden, tmp_path / "y.safetensors", to="safetensors")
    loaded = inrush.open(tmp_path / "y.safetensors").load()
    assert bytes(loaded["m"]) == bytes(24)


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("dtype", ["BF16", "float32"])
def test_floating_point_tensors_are_cast_and_others_are_not(tmp_path, to, dtype):
    torch = pytest.importorskip("torch")
    pytest.importorskip("ml_dtypes")
    from safetensors.torch import save_file

    tensors = {
        "w": torch.randn(30, 4), "h": torch.randn(7).half(), "i": torch.arange(5),
        "b": torch.randn(3).bfloat16(), "none": torch.zeros(0, 2), "big": torch.tensor([1e30]),
    }  # fmt: skip
    save_file(tensors, tmp_path / "x.safetensors")
    digests = inrush.convert(tmp_path / "x.safetensors", tmp_path / "y", to=to, dtype=dtype)
    wanted = torch.bfloat16 if dtype == "BF16" else torch.float32
    found = inrush.open(tmp_path / "y", framework="pt").load()
    for name, tensor in tensors.items():
        cast = tensor.to(wanted) if tensor.is_floating_point() else tensor
        assert found[name].dtype == cast.dtype and torch.equal(found[name], cast), name
    assert set(digests) == set(tensors)


def test_a_dtype_that_is_none_is_refused(tmp_path, source):
    for dtype in ("I32", "float99"):
        with pytest.raises(inrush.UsageError, match="dtype="):
            inrush.convert(source[0], tmp_path / "y", to="safetensors", dtype=dtype)
    assert nothing_left(tmp_path)


@pytest.mark.parametrize("ranks", [1, 3, 13])
def test_ranks_hold_whole_tensors_and_all_of_them(tmp_path, source, ranks):
    path, tensors = source
    digests = inrush.convert(path, tmp_path / "y", to="serverlessllm", ranks=ranks)
    assert sorted(os.listdir(tmp_path / "y")) == sorted(f"rank_{i}" for i in range(ranks))
    named = {name.partition("/")[2]: name for name in digests}
    assert set(named) == set(tensors)
    merged = {}
    for rank in range(ranks):
        part = inrush.open(tmp_path / "y" / f"rank_{rank}").load()
        assert part
        merged |= {name: bytes(t.as_bytes()) if t.nbytes else b"" for name, t in part.items()}
    assert merged == {name: data for name, (_, _, data) in tensors.items()}
    again = inrush.convert(tmp_path / "y", tmp_path / "z", to="safetensors")
    assert {n.partition("/")[2]: d for n, d in again.items()} == {
        n.partition("/")[2]: d for n, d in digests.items()
    }


@pytest.mark.parametrize("names", [["rank_0/a", "b"], ["rank_1/a"], ["rank_0/a", "rank_01/b"]])
def test_names_that_make_no_set_of_folders_are_refused_before_anything_is_written(tmp_path, names):
    tensors = {name: random_tensor("F32", [3]) for name in names}
    path = write_file(tmp_path / "source.safetensors", tensors)
    with pytest.raises(inrush.UsageError, match="rank_0, rank_1"):
        inrush.convert(path, tmp_path / "out", to="serverlessllm")
    assert list(tmp_path.iterdir()) == [path]


def test_ranks_that_cannot_be_are_refused(tmp_path, source):
    for words in ({"ranks": 0}, {"ranks": 14}, {"ranks": 2, "to": "safetensors"}):
        with pytest.raises(inrush.UsageError, match="ranks"):
            inrush.convert(source[0], tmp_path / "y", **{"to": "serverlessllm", **words})


def test_a_file_uri_is_a_place_to_write_to(tmp_path, source, inrush_command):
    path, tensors = source
    uri = f"file://{tmp_path}/a%20b"
    inrush.convert(path, uri + ".safetensors", to="safetensors")
    inrush.convert(path, uri, to="serverlessllm")
    for made in ("a b.safetensors", "a b"):
        check(tmp_path / made, tensors)
    assert inrush_command("load", path, "--out", uri + ".copy").returncode == 0
    check(tmp_path / "a b.copy", tensors)
    assert inrush_command("manifest", path, "-o", uri + ".json").returncode == 0
    assert inrush_command("verify", path, "--manifest", uri + ".json").returncode == 0
    with pytest.raises(inrush.UsageError, match="on host"):
        inrush.convert(path, "file://elsewhere/x.safetensors", to="safetensors")
