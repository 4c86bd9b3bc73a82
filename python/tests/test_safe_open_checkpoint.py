"""safe_open over whole checkpoints: what there is, in what order, and how often."""

import gc
import json
import os
import threading

import numpy
import pytest
import torch
from conftest import random_tensor, write_file

import inrush
from inrush import safe_open


def content(tensor):
    return bytes(memoryview(tensor).cast("B")) if tensor.nbytes else b""


@pytest.fixture(params=["directory", "files", "paths out of order"])
def checkpoint(request, sharded):
    """The same checkpoint, named in several ways."""
    folder, contents = sharded
    shards = sorted(folder.glob("*.safetensors"))
    sources = {"directory": folder, "files": shards, "paths out of order": map(str, shards[::-1])}
    return sources[request.param], contents


@pytest.mark.parametrize("backend", ["mmap", "pread", "uring"])
def test_several_files_are_one_checkpoint(checkpoint, backend):
    source, contents = checkpoint
    with safe_open(source, None, backend=backend) as opened:
        assert opened.keys() == sorted(contents)
        assert opened.offset_keys() == list(contents)
        assert opened.metadata() == {"format": "pt"}
        assert opened.total_tensor_size == sum(len(data) for _, _, data in contents.values())
        assert [name for name, _ in opened.tensors()] == list(contents)
        assert {n: content(t) for n, t in opened.get_tensors().items()} == {
            name: data for name, (_, _, data) in contents.items()
        }
        for name, (dtype, shape, data) in contents.items():
            assert content(opened.get_tensor(name)) == data
            assert opened.get_tensor_metadata(name) == (dtype, tuple(shape))
            assert content(opened.get_slice(name)[:1]) == data[: len(data) // shape[0]]


def test_the_index_decides_which_files_belong(sharded):
    folder, contents = sharded
    write_file(folder / "consolidated.safetensors", {"stray": random_tensor("F32", [4])})
    with safe_open(folder, None) as opened:
        assert opened.offset_keys() == list(contents)


def test_a_file_that_the_index_names_and_is_not_there_is_named(sharded):
    folder, _ = sharded
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(inrush.SafetensorError, match=r"model-00002-of-00002\.safetensors"):
        safe_open(folder, None)


def test_a_plain_directory_is_all_its_files(sharded):
    folder, contents = sharded
    (folder / "model.safetensors.index.json").unlink()
    with safe_open(folder, None) as opened:
        assert opened.offset_keys() == list(contents)


def test_the_first_of_several_missing_files_is_named(tmp_path, sharded):
    good = sorted(sharded[0].glob("*.safetensors"))
    with pytest.raises(FileNotFoundError, match=r"No such file or directory: .*none"):
        safe_open([*good, tmp_path / "none", tmp_path / "neither"], "np")
    with pytest.raises(inrush.SafetensorError, match="expected a path"):
        safe_open(7, "np")


def test_opening_reads_headers_only(tmp_path):
    """A sparse file of 1 TiB opens at once."""
    size = 1 << 40
    header = json.dumps({"x": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    path = tmp_path / "huge.safetensors"
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        try:
            file.truncate(8 + len(header) + size)
        except OSError as error:
            pytest.skip(f"no sparse file of 1 TiB here: {error}")
    opened = safe_open(path, "np")
    assert opened.total_tensor_size == size
    assert opened.get_slice("x")[-3:].tolist() == [0, 0, 0]


@pytest.mark.parametrize("copy", [None, True, False])
def test_an_iteration_can_be_left_and_begun_again(checkpoint, copy):
    source, contents = checkpoint
    opened = safe_open(source, "np", copy=copy)  # and no `with`
    stream = opened.tensors()
    assert next(iter(stream))[0] == next(iter(contents))
    for _ in range(2):
        assert {n: t.tobytes() for n, t in stream} == {n: d for n, (_, _, d) in contents.items()}


def test_threads_share_a_handle(checkpoint):
    source, contents = checkpoint
    opened = safe_open(source, None, copy=True)
    failures = []

    def read(number):
        for name, tensor in opened.tensors():
            if content(tensor) != contents[name][2]:
                failures.append(name)
        name = list(contents)[number]
        if content(opened.get_tensor(name)) != contents[name][2]:
            failures.append(name)

    threads = [threading.Thread(target=read, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def running_threads():
    return len(os.listdir("/proc/self/task"))


def test_safetensors_hints_are_its_own_words(sharded):
    """Those of `Backend` are texts of the same spelling, and name ways to read."""
    from inrush._arguments import hinted

    assert hinted("mmap") == {}
    assert hinted("pread") == {"mapping": "never"}
    for backend in (inrush.Backend.MMAP, inrush.Backend.PREAD):
        assert hinted(backend) == {"backend": backend}
        with safe_open(sharded[0], None, backend=backend) as opened:
            assert opened.keys() == sorted(sharded[1])


@pytest.mark.parametrize("backend", ["mmap", "pread"])
def test_a_forked_process_can_use_a_handle(checkpoint, backend):
    source, contents = checkpoint
    before = running_threads()
    opened = safe_open(source, None, backend=backend)
    opened.keys()
    assert running_threads() == before
    child = os.fork()
    if child == 0:
        status = 1
        try:
            name = list(contents)[-1]
            good = content(opened.get_tensor(name)) == contents[name][2]
            status = 0 if good and len(opened.get_tensors()) == len(contents) else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(opened.get_tensors()) == len(contents)


def mapped_from(folder):
    """Whether this process maps a file of the folder."""
    with open("/proc/self/maps") as maps:
        return str(folder) in maps.read()


def test_owned_memory_is_no_mapping_of_the_file(sharded):
    folder, contents = sharded
    with safe_open(folder, "pt", copy=True) as opened:
        kept = [opened.get_tensor(name) for name in contents]
        kept.append(opened.get_slice(next(iter(contents)))[:2])
        kept += [opened.get_tensors(), dict(opened.tensors())]
        gc.collect()
        assert not mapped_from(folder)
    del kept


def test_metadata_of_a_tensor_is_the_frameworks(every_dtype):
    path, _ = every_dtype
    with safe_open(path, "pt") as opened:
        assert opened.get_tensor_metadata("BF16") == (torch.bfloat16, torch.Size([6, 8]))
        assert opened.get_tensor_metadata("F4") == (torch.float4_e2m1fn_x2, torch.Size([6, 4]))
        for name in opened.offset_keys():
            if not name.startswith("F6"):
                dtype, shape = opened.get_tensor_metadata(name)
                tensor = opened.get_tensor(name)
                assert (tensor.dtype, tensor.shape) == (dtype, shape)
        with pytest.raises(inrush.SafetensorError, match="Dtype not understood: F6_E2M3"):
            opened.get_tensor_metadata("F6_E2M3")
    with safe_open(path, "np") as opened:
        assert opened.get_tensor_metadata("I16") == (numpy.dtype("int16"), (6, 8))
        with pytest.raises(inrush.SafetensorError, match="does not contain tensor no"):
            opened.get_tensor_metadata("no")


@pytest.mark.parametrize("device", [None, "cpu", torch.device("cpu")])
def test_host_memory_has_several_names(every_dtype, device):
    with safe_open(every_dtype[0], "pt", device) as opened:
        assert opened.get_tensor("F32").device.type == "cpu"


def test_torch_moves_tensors_to_other_devices(every_dtype):
    # The meta device stands for one that this machine may not have.
    device = torch.device("meta")
    with safe_open(every_dtype[0], "pt", device) as opened:
        assert opened.get_tensor("F32").device == device
        assert opened.get_slice("F32")[:2].shape == (2, 8)
        assert opened.get_slice("F32")[:2].device == device
    path = every_dtype[0].with_name("plain.safetensors")
    write_file(path, {"x": random_tensor("F32", [3]), "y": random_tensor("I64", [2])})
    with safe_open(path, "pt", device) as opened:
        assert {t.device for t in opened.get_tensors().values()} == {device}
        assert {t.device for _, t in opened.tensors()} == {device}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("device", [0, "cuda", "cuda:0", torch.device("cuda", 0)])
def test_tensors_go_to_a_gpu(sharded, device):
    folder, contents = sharded
    with safe_open(folder, "pt", device) as opened:
        for name, tensor in opened.tensors():
            assert tensor.device.type == "cuda"
            assert tensor.view(torch.uint8).cpu().numpy().tobytes() == contents[name][2]
