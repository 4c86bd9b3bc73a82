"""Arguments of unusual types: taken where they mean something, else refused as safetensors does."""

import os

import inrush.numpy
import inrush.torch
import numpy
import pytest
import safetensors
import safetensors.torch
import torch
from conftest import random_tensor, write_file

import inrush


class Fspath:
    def __init__(self, path):
        self.path = path

    def __fspath__(self):
        return self.path


@pytest.fixture
def parts(tmp_path):
    """A file with tensor `a` and one with `b`."""
    return [
        write_file(tmp_path / f"{name}.safetensors", {name: random_tensor("F32", [3])})
        for name in "ab"
    ]


@pytest.mark.parametrize(
    "form",
    [str, os.fsencode, lambda path: Fspath(str(path)), lambda path: Fspath(os.fsencode(path))],
)
def test_a_path_may_be_of_any_type_that_python_opens(parts, form):
    one = form(parts[0])
    assert list(inrush.open(one)) == ["a"]
    assert list(inrush.numpy.load_file(one)) == ["a"]
    with inrush.safe_open(one, "np") as file:
        assert file.keys() == ["a"]
    several = [form(path) for path in parts]
    assert list(inrush.open(several)) == ["a", "b"]
    assert list(inrush.open(path for path in several)) == ["a", "b"]


@pytest.mark.parametrize("source", [None, 3, 1.5, object(), memoryview(b"x")])
def test_what_is_no_path_is_a_type_error_and_one_of_ours(source):
    for take in (
        inrush.open,
        inrush.torch.load_file,
        lambda path: inrush.safe_open(path, "pt"),
    ):
        with pytest.raises(TypeError) as caught:
            take(source)
        assert isinstance(caught.value, inrush.UsageError)
    with pytest.raises(TypeError):
        safetensors.torch.load_file(source)


@pytest.mark.parametrize("name", [1, None, b"a", ["a"]])
def test_a_name_that_is_no_text_is_a_type_error_of_a_handle(parts, name):
    with inrush.safe_open(parts[0], "pt") as file:
        for take in (file.get_tensor, file.get_slice, file.get_tensor_metadata):
            with pytest.raises(TypeError, match="expected its name"):
                take(name)


def test_a_checkpoint_is_asked_for_any_key_as_a_mapping_is(parts):
    checkpoint = inrush.open(parts[0])
    for key in (1, None, b"a", ("a",), "\ud800"):
        assert key not in checkpoint
        assert checkpoint.get(key) is None
        with pytest.raises(KeyError):
            checkpoint[key]
    with (
        inrush.safe_open(parts[0], "pt") as file,
        pytest.raises(inrush.SafetensorError, match="does not contain"),
    ):
        file.get_tensor("\ud800")


def test_infos_and_checkpoints_are_equal_by_what_they_say(parts, tmp_path):
    one = inrush.open(parts[0])
    assert one["a"] == one["a"]
    assert one == inrush.open(parts[0])
    assert one != inrush.open(parts[1])
    assert one["a"] != "a"
    assert len({one["a"], inrush.open(parts[0])["a"]}) == 1


def test_what_is_shown_of_a_name_is_one_line(tmp_path):
    path = write_file(tmp_path / "x.safetensors", {"a\n\x1b[31m'": random_tensor("F32", [1])})
    checkpoint = inrush.open(path)
    for shown in (repr(next(iter(checkpoint.values()))), repr(checkpoint.tensor(*checkpoint))):
        assert r"a\n\x1b[31m" in shown
        assert shown.isprintable()


def test_a_framework_that_is_no_text_is_a_type_error(parts):
    with pytest.raises(TypeError):
        safetensors.safe_open(parts[0], 1)
    with pytest.raises(TypeError):
        inrush.safe_open(parts[0], 1)


@pytest.mark.parametrize("save", [inrush.torch.save_file, inrush.torch.save_model])
def test_a_dtype_without_a_name_is_a_key_error_as_with_safetensors(tmp_path, save):
    tensors = {"a": torch.zeros(2, dtype=torch.complex128)}
    with pytest.raises(KeyError):
        safetensors.torch.save_file(tensors, tmp_path / "x")
    model = torch.nn.ParameterDict({"a": tensors["a"]})
    with pytest.raises(KeyError) as caught:
        save(tensors if save is inrush.torch.save_file else model, tmp_path / "x")
    assert isinstance(caught.value, inrush.UsageError)
    assert str(caught.value) == "save 'a': safetensors has no dtype for torch.complex128"


def test_metadata_that_is_none_is_refused(tmp_path):
    tensors = {"a": torch.zeros(2)}
    for metadata in (["a"], "a", {1: "a"}, {"a": 1}):
        with pytest.raises(TypeError, match="metadata"):
            inrush.torch.save_file(tensors, tmp_path / "x", metadata)
    for metadata in ({"a": "\ud800"}, {"\ud800": "a"}):
        with pytest.raises(ValueError, match="UTF-8"):
            inrush.torch.save_file(tensors, tmp_path / "x", metadata)
    assert not list(tmp_path.iterdir())


def test_a_part_of_no_dimension_is_an_array_as_with_safetensors(parts):
    for index in (1, (1,), (1, ...), numpy.int64(2)):
        with (
            inrush.safe_open(parts[0], "np") as ours,
            safetensors.safe_open(parts[0], "np") as theirs,
        ):
            one, other = ours.get_slice("a")[index], theirs.get_slice("a")[index]
        assert type(one) is type(other) is numpy.ndarray
        assert one.shape == other.shape == ()
        assert one.tobytes() == other.tobytes()


def test_empty_tensors_have_the_strides_of_their_framework(tmp_path):
    path = write_file(tmp_path / "x.safetensors", {"a": random_tensor("F32", [3, 0, 2])})
    for backend in ("mmap", "pread"):
        tensor = inrush.torch.load_file(path, backend=backend)["a"]
        assert tensor.stride() == torch.empty(3, 0, 2).stride()


def test_a_budget_may_be_any_whole_number(parts):
    assert inrush.open(parts[0], budget=numpy.int64(8 << 20)).load()


@pytest.mark.parametrize("word", ["slices", "out", "storage_options"])
def test_names_in_options_are_text(parts, word):
    with pytest.raises(inrush.UsageError, match=word):
        inrush.open(parts[0], **{word: {1: "0:1"}}).load()
