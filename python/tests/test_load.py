"""Whole loads: every byte of every dtype, in order, in place, within the budget."""

import gc
import mmap
import os
import shutil

import numpy
import pytest
import safetensors
import torch
from conftest import DTYPES, random_tensor, write_file

import inrush

BACKENDS = [backend.value for backend in inrush.Backend if "CUFILE" not in backend.name]


def bytes_of(tensor):
    # Python casts no view that has a zero in its shape.
    return bytes(memoryview(tensor).cast("B")) if tensor.nbytes else b""


def same_bytes(loaded, contents):
    return {name: bytes_of(tensor) for name, tensor in loaded.items()} == {
        name: data for name, (_, _, data) in contents.items()
    }


def test_every_dtype_arrives_byte_for_byte(every_dtype):
    path, contents = every_dtype
    loaded = inrush.open(path).load()
    assert same_bytes(loaded, contents)
    for name, tensor in loaded.items():
        assert (tensor.name, tensor.dtype, list(tensor.shape)) == (name, *contents[name][:2])
        assert tensor.nbytes == len(contents[name][2])


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_backend_gives_the_same_bytes(sharded, backend):
    folder, contents = sharded
    try:
        loaded = inrush.open(folder, backend=backend, strict=True).load()
    except inrush.UsageError as error:
        pytest.skip(f"{backend} cannot be used here: {error}")
    assert same_bytes(loaded, contents)


@pytest.mark.parametrize("shift", range(1, 8))
@pytest.mark.parametrize("mapping", ["auto", "never"])
def test_misaligned_files_give_aligned_tensors(tmp_path, shift, mapping):
    contents = {dtype: random_tensor(dtype, [3, 8]) for dtype in DTYPES}
    path = write_file(tmp_path / "odd.safetensors", contents, shift=shift)
    loaded = inrush.open(path, mapping=mapping).load()
    assert same_bytes(loaded, contents)
    for name, tensor in loaded.items():
        assert tensor.data_ptr % (4 if name == "C64" else max(1, DTYPES[name] // 8)) == 0


def test_agrees_with_safetensors_in_torch(every_dtype):
    path, _ = every_dtype
    loaded = inrush.open(path, framework="pt", exclude="F6_*").load()
    with safetensors.safe_open(path, "pt") as reference:
        for name, tensor in loaded.items():
            expected = reference.get_tensor(name)
            assert (tensor.dtype, tensor.shape) == (expected.dtype, expected.shape)
            if tensor.numel():
                assert torch.equal(
                    tensor.reshape(-1).view(torch.uint8), expected.reshape(-1).view(torch.uint8)
                )


def test_agrees_with_safetensors_in_numpy(every_dtype):
    path, _ = every_dtype
    wanted = [name for name in inrush.open(path) if not name.startswith(("F4", "F6", "F8", "BF"))]
    loaded = inrush.open(path, framework="np", include=wanted).load()
    with safetensors.safe_open(path, "np") as reference:
        for name, array in loaded.items():
            expected = reference.get_tensor(name)
            assert (array.dtype, array.shape) == (expected.dtype, expected.shape)
            assert array.tobytes() == expected.tobytes()
            assert array.flags.writeable


def test_dtypes_that_a_framework_lacks_are_refused_by_name(every_dtype):
    path, _ = every_dtype
    with pytest.raises(inrush.UsageError, match="F6_E2M3"):
        inrush.open(path, framework="pt").load()
    with pytest.raises(inrush.UsageError, match="F4"):
        inrush.open(path, framework="np").load(include=["F4"])


def test_streaming_yields_in_file_order_and_again(sharded):
    folder, contents = sharded
    checkpoint = inrush.open(folder)
    stream = checkpoint.tensors()
    for _ in range(2):
        seen = [(name, bytes_of(tensor)) for name, tensor in stream]
        assert [name for name, _ in seen] == list(checkpoint)
        assert dict(seen) == {name: data for name, (_, _, data) in contents.items()}


def test_two_iterations_of_one_stream_at_once(sharded):
    folder, _ = sharded
    stream = inrush.open(folder).tensors()
    pairs = list(zip(stream, stream, strict=True))
    assert all(one[0] == two[0] and bytes_of(one[1]) == bytes_of(two[1]) for one, two in pairs)


def test_a_stream_left_early_stops_and_frees(sharded):
    folder, contents = sharded
    before = len(os.listdir("/proc/self/task"))
    for name, tensor in inrush.open(folder).tensors(mapping="never"):
        assert bytes_of(tensor) == contents[name][2]
        break
    gc.collect()
    assert len(os.listdir("/proc/self/task")) <= before
    assert bytes_of(tensor) == contents[name][2]


def test_an_error_in_the_loop_stops_the_load(sharded):
    folder, _ = sharded
    with pytest.raises(RuntimeError, match="mine"):
        for _ in inrush.open(folder).tensors():
            raise RuntimeError("mine")


def test_order_as_listed(sharded):
    folder, contents = sharded
    names = sorted(contents, reverse=True)
    loaded = inrush.open(folder, order=names).load()
    assert list(loaded) == names
    assert same_bytes(loaded, contents)


def test_order_as_ready_gives_everything(sharded):
    folder, contents = sharded
    assert same_bytes(inrush.open(folder, order="ready").load(), contents)


@pytest.mark.parametrize("mapping", ["auto", "never"])
def test_a_budget_of_4_mib_works(tmp_path, mapping):
    contents = {f"t{i}": random_tensor("BF16", [1 << 20]) for i in range(8)}
    path = write_file(tmp_path / "big.safetensors", contents, shift=3)
    checkpoint = inrush.open(path, budget="4MiB", mapping=mapping)
    assert same_bytes(checkpoint.load(), contents)
    assert same_bytes(dict(checkpoint.tensors()), contents)
    job = checkpoint.start()
    job.wait()
    assert job.stats()["peak_staging"] <= 4 << 20


def test_a_budget_below_the_least_names_the_least(sharded):
    folder, _ = sharded
    with pytest.raises(inrush.MemoryBudgetError, match=r"least.*\d+ bytes") as caught:
        inrush.open(folder, budget=4096).load()
    assert caught.value.code == 4


def test_many_small_tensors_in_many_files(tmp_path):
    contents = {}
    paths = []
    for shard in range(50):
        part = {f"s{shard}.t{i}": random_tensor("F32", [1 + i % 7]) for i in range(40)}
        paths.append(write_file(tmp_path / f"{shard:03}.safetensors", part, shift=shard % 8))
        contents |= part
    assert same_bytes(inrush.open(paths).load(), contents)
    assert same_bytes(inrush.open(paths, mapping="never").load(), contents)


def test_tensors_are_private_and_writable(sharded):
    folder, contents = sharded
    checkpoint = inrush.open(folder, framework="np", include="*.bias")
    once, again = checkpoint.load(), checkpoint.load()
    for name, array in once.items():
        array[:] = 7
        assert again[name].tobytes() == contents[name][2]
    assert same_bytes(inrush.open(folder).load(), contents)


def test_tensors_outlive_everything(sharded):
    folder, contents = sharded
    checkpoint = inrush.open(folder, framework="np", exclude="*.weight")
    job = checkpoint.start()
    loaded = dict(job)
    del checkpoint, job
    gc.collect()
    shutil.rmtree(folder)
    assert all(array.tobytes() == contents[name][2] for name, array in loaded.items())


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * mmap.PAGESIZE


@pytest.mark.parametrize("mapping", ["auto", "never"])
def test_a_kept_tensor_pins_only_its_own_pages(tmp_path, mapping):
    size = 64 << 20
    contents = {"big": ("U8", [size], os.urandom(size)), "small": random_tensor("F32", [1000])}
    path = write_file(tmp_path / "shard.safetensors", contents)
    del contents["big"]
    gc.collect()
    before = resident()
    loaded = inrush.open(path, mapping=mapping).load()
    numpy.asarray(loaded["big"])[::4096].sum()
    assert resident() - before > size // 2
    kept = loaded["small"]
    del loaded
    gc.collect()
    assert resident() - before < 8 << 20
    assert bytes_of(kept) == contents["small"][2]


def test_fork_after_open_loads_in_both(sharded):
    folder, contents = sharded
    checkpoint = inrush.open(folder)
    checkpoint.tensor("model.layers.0.q.bias")  # the view and its thread are the parent's
    running = checkpoint.start()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            good = same_bytes(checkpoint.load(), contents)
            good = good and same_bytes({n: checkpoint.tensor(n) for n in contents}, contents)
            try:
                running.wait()
            except inrush.UsageError:
                code = 0 if good else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert same_bytes(dict(running), contents)


def test_a_file_replaced_since_it_was_opened_is_refused(sharded):
    folder, _ = sharded
    checkpoint = inrush.open(folder)
    victim = folder / "model-00001-of-00002.safetensors"
    data = victim.read_bytes()
    victim.write_bytes(data[:-1000])
    with pytest.raises(inrush.DataError, match="model-00001-of-00002"):
        checkpoint.load()


def test_one_tensor_at_a_time(sharded):
    folder, contents = sharded
    checkpoint = inrush.open(folder)
    for mapping in ("auto", "never"):
        for name in contents:
            assert bytes_of(checkpoint.tensor(name, mapping=mapping)) == contents[name][2]
    with pytest.raises(KeyError, match="nothing"):
        checkpoint.tensor("nothing")
