"""A checkpoint as a mapping, from one file, several files, and a folder with an index."""

import os
import pickle
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
from conftest import random_tensor, write_file

import inrush


def test_is_a_mapping_of_infos_in_file_order(every_dtype):
    path, contents = every_dtype
    checkpoint = inrush.open(path)
    assert isinstance(checkpoint, Mapping)
    assert len(checkpoint) == len(contents)
    assert sorted(checkpoint) == sorted(contents)
    offsets = [info.offset for info in checkpoint.values()]
    assert offsets == sorted(offsets)
    for name, (dtype, shape, data) in contents.items():
        info = checkpoint[name]
        assert (info.name, info.dtype, list(info.shape)) == (name, dtype, shape)
        assert (info.nbytes, info.file, info.encoding) == (len(data), str(path), "")
    assert "F32" in checkpoint
    assert "F33" not in checkpoint
    assert 5 not in checkpoint
    assert checkpoint.get("F33") is None
    with pytest.raises(KeyError, match="F33"):
        checkpoint["F33"]


def test_says_what_it_is(sharded):
    folder, contents = sharded
    checkpoint = inrush.open(folder)
    assert checkpoint.format == "safetensors"
    assert checkpoint.nbytes == sum(len(data) for _, _, data in contents.values())
    assert checkpoint.metadata == {"format": "pt"}
    assert list(checkpoint.file_metadata.values()) == [{"format": "pt"}] * 2
    assert [size for _, size in checkpoint.files] == [
        file.stat().st_size for file in sorted(folder.glob("*.safetensors"))
    ]
    assert str(folder) in repr(checkpoint)
    assert "BF16" in repr(checkpoint["model.layers.0.q.weight"])


def test_several_files_are_one_checkpoint(sharded):
    folder, contents = sharded
    checkpoint = inrush.open(sorted(folder.glob("*.safetensors")))
    assert set(checkpoint) == set(contents)


def test_the_index_file_decides_what_belongs(sharded):
    folder, contents = sharded
    write_file(folder / "consolidated.safetensors", {"stray": random_tensor("F32", [4])})
    assert set(inrush.open(folder)) == set(contents)


def test_a_missing_shard_is_named(sharded):
    folder, _ = sharded
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(inrush.DataError, match="model-00002-of-00002"):
        inrush.open(folder)


@pytest.mark.parametrize("numbers", [(1, 3), (2, 3), (1, 2), (0, 2)])
def test_a_missing_shard_is_named_where_there_is_no_index(tmp_path, numbers):
    paths = [
        write_file(
            tmp_path / f"m-{i:05}-of-00003.safetensors", {f"t{i}": random_tensor("F32", [4])}
        )
        for i in numbers
    ]
    first = 0 if 0 in numbers else 1
    (lacking,) = {first, first + 1, first + 2} - set(numbers)
    with pytest.raises(inrush.DataError, match=rf"1 more belongs.*m-{lacking:05}-of-00003"):
        inrush.open(tmp_path)
    assert len(inrush.open(paths)) == 2  # the caller says which
    write_file(
        tmp_path / f"m-{lacking:05}-of-00003.safetensors", {"more": random_tensor("F32", [4])}
    )
    write_file(tmp_path / "m-1-of-7.safetensors", {"no part": random_tensor("F32", [4])})
    assert len(inrush.open(tmp_path)) == 4


def test_a_name_in_two_files_names_both(tmp_path):
    one = write_file(tmp_path / "one.safetensors", {"same": random_tensor("F32", [4])})
    two = write_file(tmp_path / "two.safetensors", {"same": random_tensor("F32", [4])})
    with pytest.raises(inrush.DataError, match=r"one\.safetensors.*two\.safetensors"):
        inrush.open([one, two])


@pytest.mark.parametrize(
    ("source", "error", "code"),
    [
        ("/no/such/place", inrush.SourceError, 3),
        ("nosuchscheme://bucket/x", inrush.UsageError, 2),
    ],
)
def test_errors_say_what_and_carry_a_code(source, error, code):
    with pytest.raises(error) as caught:
        inrush.open(source)
    assert caught.value.code == code
    assert source.split("://")[0] in str(caught.value)


def test_errors_are_what_pythons_own_would_be():
    assert issubclass(inrush.SourceError, OSError)
    assert issubclass(inrush.UsageError, ValueError)
    assert issubclass(inrush.DataError, ValueError)
    assert issubclass(inrush.MemoryBudgetError, MemoryError)
    for kind in (inrush.DataError, inrush.UsageError, inrush.SourceError, inrush.Cancelled):
        assert issubclass(kind, inrush.Error)
        assert pickle.loads(pickle.dumps(kind("text"))).args == ("text",)


def test_closed_refuses_and_its_tensors_live_on(every_dtype):
    path, contents = every_dtype
    with inrush.open(path) as checkpoint:
        tensors = checkpoint.load()
        mapped = checkpoint.tensor("F64")
    shutil.rmtree(path.parent)
    for name, tensor in tensors.items():
        assert tensor.nbytes == 0 or bytes(memoryview(tensor).cast("B")) == contents[name][2]
    assert bytes(memoryview(mapped).cast("B")) == contents["F64"][2]
    with pytest.raises(inrush.UsageError, match="closed"):
        checkpoint.load()
    assert "closed" in repr(checkpoint)


def test_names_may_be_anything_a_header_can_say(tmp_path):
    names = ["", "a b", "ä/ö", "模型", "a\tb", "x" * 5000, "re:.*", "[0]*?"]
    contents = {name: random_tensor("U8", [3]) for name in names}
    path = write_file(tmp_path / "names.safetensors", contents)
    loaded = inrush.open(path).load()
    assert {name: bytes(tensor) for name, tensor in loaded.items()} == {
        name: data for name, (_, _, data) in contents.items()
    }


def test_file_names_need_not_be_text(tmp_path):
    entry = random_tensor("U8", [3])
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.safetensors")
    write_file(Path(path), {"x": entry})
    checkpoint = inrush.open(path)
    assert checkpoint["x"].file == path
    assert bytes(checkpoint.load()["x"]) == entry[2]
    os.truncate(path, 20)
    with pytest.raises(inrush.DataError, match="caf"):
        inrush.open([path])


def test_no_tensors_at_all(tmp_path):
    path = write_file(tmp_path / "none.safetensors", {}, metadata={"just": "words"})
    checkpoint = inrush.open(path)
    assert len(checkpoint) == 0
    assert checkpoint.load() == {}
    assert list(checkpoint.tensors()) == []
    assert checkpoint.metadata == {"just": "words"}
