"""InstantTensor's signature, order and copy=False; and what went wrong there."""

import enum
import inspect
import os

import pytest
import torch
from conftest import random_tensor, write_file

import inrush
from inrush import instanttensor


def content(tensor):
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


@pytest.fixture
def files(sharded):
    folder, contents = sharded
    return sorted(str(path) for path in folder.glob("*.safetensors")), contents


@pytest.fixture
def even(tmp_path):
    """A file of 24 tensors of 1 MiB."""
    contents = {f"t{i:02}": random_tensor("F32", [256, 1024]) for i in range(24)}
    return write_file(tmp_path / "even.safetensors", contents), contents


def test_the_signature_is_instanttensors():
    parameters = inspect.signature(instanttensor.safe_open).parameters
    assert list(parameters) == [
        "filename", "framework", "device", "process_group", "buffer_size", "chunk_size",
        "concurrency", "io_depth", "max_free_mem_usage", "load_now", "copy", "backend",
        "host_fallback", "tensor_filter", "tensor_name_match_mode",
    ]  # fmt: skip
    assert parameters["load_now"].default is True
    assert parameters["copy"].default is True
    assert parameters["tensor_name_match_mode"].default == "glob"


@pytest.mark.parametrize("load_now", [True, False])
@pytest.mark.parametrize("copy", [True, None, False])
def test_tensors_come_by_file_and_offset_as_often_as_asked(files, copy, load_now):
    paths, contents = files
    words = {"copy": copy, "load_now": load_now}
    with instanttensor.safe_open(paths[::-1], "pt", "cpu", **words) as opened:
        assert opened.keys() == opened.offset_keys() == list(contents)
        assert opened.total_tensor_size == sum(len(data) for _, _, data in contents.values())
        assert opened.metadata() == {"format": "pt"}
        assert opened.get_tensor_metadata("model.layers.0.q.weight") == (
            torch.bfloat16,
            torch.Size([1024, 256]),
        )
        for _ in range(2):
            names = []
            for name, tensor in opened.tensors():
                names.append(name)
                assert content(tensor) == contents[name][2]
            assert names == list(contents)
        assert next(iter(opened.tensors()))[0] == names[0]
        assert content(opened.get_tensor(names[-1])) == contents[names[-1]][2]


def test_owned_tensors_are_no_file_mappings(files):
    paths, _ = files
    with instanttensor.safe_open(paths, None, "cpu") as opened:
        assert not any(tensor.mapped for _, tensor in opened.tensors())
        assert not any(tensor.mapped for tensor in opened.get_tensors().values())


def test_views_that_are_kept_are_never_overwritten(even):
    path, contents = even
    kept = {}
    with instanttensor.safe_open(path, "pt", "cpu", copy=False, buffer_size="8MiB") as opened:
        for number, (name, tensor) in enumerate(opened.tensors()):
            if number % 5 == 0:
                kept[name] = tensor
            for other, old in kept.items():
                assert content(old) == contents[other][2], f"{other} changed at {name}"
    for name, tensor in kept.items():
        assert content(tensor) == contents[name][2]


def test_one_view_may_be_kept_in_a_buffer_of_three(tmp_path):
    contents = {f"t{i}": random_tensor("U8", [12 << 20]) for i in range(6)}
    path = write_file(tmp_path / "model.safetensors", contents)
    with instanttensor.safe_open(path, "pt", "cpu", copy=False, buffer_size=36 << 20) as opened:
        kept = {}
        for name, tensor in opened.tensors():
            assert content(tensor) == contents[name][2]
            if not kept:
                kept[name] = tensor
            del tensor
    assert content(kept["t0"]) == contents["t0"][2]


@pytest.mark.host_memory("tensors on a device own their memory")
def test_views_use_memory_again(even):
    path, contents = even
    with instanttensor.safe_open(path, "pt", "cpu", copy=False, buffer_size="6MiB") as opened:
        places = {tensor.data_ptr() for _, tensor in opened.tensors()}
    assert len(places) < len(contents) / 2


@pytest.mark.host_memory("tensors on a device own their memory")
def test_keeping_every_view_is_an_error_at_once(even):
    path, contents = even
    with instanttensor.safe_open(path, "pt", "cpu", copy=False, buffer_size="6MiB") as opened:
        kept = []
        with pytest.raises(inrush.MemoryBudgetError, match="the caller keeps"):
            kept += opened.tensors()
        kept = []
        with pytest.raises(inrush.MemoryBudgetError):
            for pair in opened.tensors():
                kept.append(pair)
        assert len(kept) >= 4
        assert all(content(tensor) == contents[name][2] for name, tensor in kept)
        kept.clear()
        assert len([name for name, _ in opened.tensors()]) == 24
    assert len(dict(instanttensor.safe_open(path, "pt", "cpu").tensors())) == 24


def test_what_other_methods_return_is_never_a_view_of_the_buffer(even):
    path, contents = even
    with instanttensor.safe_open(path, "pt", "cpu", copy=False, buffer_size=1) as opened:
        loaded = opened.get_tensors()
        one = opened.get_tensor("t03")
    assert all(content(tensor) == contents[name][2] for name, tensor in loaded.items())
    assert content(one) == contents["t03"][2]


class Theirs(enum.Enum):
    URING = 2
    PREAD_BUFFERED = 7


@pytest.mark.parametrize(
    "backend",
    [
        instanttensor.Backend.URING,
        [instanttensor.Backend.AIO, instanttensor.Backend.PREAD],
        instanttensor.BackendPolicy.BUFFERED,
        [Theirs.URING, Theirs.PREAD_BUFFERED],
        "URING,AIO",
    ],
)
def test_backends_are_theirs(files, backend):
    paths, contents = files
    with instanttensor.safe_open(paths, "pt", "cpu", backend=backend) as opened:
        assert {n: content(t) for n, t in opened.tensors()} == {
            name: data for name, (_, _, data) in contents.items()
        }


def test_the_environment_names_backends(files, monkeypatch):
    monkeypatch.setenv("INSTANTTENSOR_BACKEND", "PREAD_BUFFERED")
    with instanttensor.safe_open(files[0], "pt", "cpu") as opened:
        assert opened._options.backend == ["pread_buffered"]
    monkeypatch.setenv("INSTANTTENSOR_BACKEND", "")
    with pytest.raises(inrush.UsageError, match="INSTANTTENSOR_BACKEND is empty"):
        instanttensor.safe_open(files[0], "pt", "cpu")


class Group:
    def __init__(self, size):
        self._size = size

    def size(self):
        return self._size


def test_a_group_of_one_works_and_a_larger_one_is_refused(files):
    with instanttensor.safe_open(files[0], "pt", "cpu", Group(1)) as opened:
        assert (opened.world_size, opened.rank) == (1, 0)
    with pytest.raises(inrush.UsageError, match="process_group of 8 ranks"):
        instanttensor.safe_open(files[0], "pt", "cpu", process_group=Group(8))


@pytest.mark.parametrize(
    ("patterns", "mode", "count"),
    [
        (["*.weight"], "glob", 10),
        (["model.layers.0.q.weight", "nothing"], "exact", 1),
        ([r"model\.layers\.\d\.q\..*"], "regex", 4),
        (["q"], "regex", 0),
        ([], "glob", 0),
    ],
)
def test_a_filter_selects_by_whole_names(files, patterns, mode, count):
    paths, contents = files
    words = {"tensor_filter": patterns, "tensor_name_match_mode": mode}
    with instanttensor.safe_open(paths, "pt", "cpu", **words) as opened:
        names = opened.keys()
        assert len(names) == count
        assert [name for name, _ in opened.tensors()] == names
        assert list(opened.get_tensors()) == names
        assert opened.total_tensor_size == sum(len(contents[name][2]) for name in names)
        with pytest.raises(inrush.SafetensorError, match="does not contain"):
            opened.get_tensor("model.layers.0.q.bias" if mode == "glob" else "nothing")


@pytest.mark.parametrize(
    "words",
    [
        {"io_depth": 0},
        {"chunk_size": -1},
        {"concurrency": "2"},
        {"max_free_mem_usage": 1.5},
        {"backend": []},
        {"tensor_filter": "x"},
        {"tensor_filter": ["("], "tensor_name_match_mode": "regex"},
        {"tensor_filter": [], "tensor_name_match_mode": "no"},
    ],
)
def test_bad_arguments_are_refused(files, words):
    with pytest.raises(inrush.UsageError):
        instanttensor.safe_open(files[0], "pt", "cpu", **words)


def test_a_forked_process_reads_by_itself(files):
    paths, contents = files
    opened = instanttensor.safe_open(paths, None, "cpu")
    child = os.fork()
    if child == 0:
        status = 1
        try:
            names = [name for name, _ in opened.tensors()]
            status = 0 if names == list(contents) else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert [name for name, _ in opened.tensors()] == list(contents)


def test_the_handle_has_instanttensors_attributes_and_its_error_once_closed(tmp_path):
    path = tmp_path / "x.safetensors"
    inrush.torch.save_file({"a": torch.rand(3)}, path)
    with inrush.instanttensor.safe_open(path, "pt", "cpu") as handle:
        assert (handle.filename, handle.framework, handle.device) == (path, "pt", "cpu")
        assert handle.process_group is None
    for closed in (handle.tensors, handle.keys, lambda: handle.get_tensor("a")):
        with pytest.raises(RuntimeError, match="closed") as caught:
            closed()
        assert isinstance(caught.value, inrush.SafetensorError)
    with pytest.raises(inrush.UsageError, match="process_group 3"):
        inrush.instanttensor.safe_open(path, "pt", "cpu", process_group=3)
