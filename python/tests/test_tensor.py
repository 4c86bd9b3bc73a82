"""A tensor as DLPack and as a buffer: shared memory, lifetimes, what is refused."""

import ctypes
import gc
import sys
import tracemalloc

import numpy
import pytest
import torch
from conftest import DTYPES, random_tensor, write_file

import inrush


@pytest.fixture
def tensors(every_dtype):
    path, _ = every_dtype
    return inrush.open(path).load()


def test_numpy_and_torch_share_the_memory(tensors):
    tensor = tensors["F32"]
    array = numpy.asarray(tensor)
    taken = torch.from_dlpack(tensor)
    again = numpy.from_dlpack(tensor)
    assert array.__array_interface__["data"][0] == tensor.data_ptr == taken.data_ptr()
    assert again.__array_interface__["data"][0] == tensor.data_ptr
    taken[0, 0] = 42
    assert array[0, 0] == again[0, 0] == 42


@pytest.mark.parametrize("name", [name for name, bits in DTYPES.items() if bits >= 8])
def test_torch_takes_every_dtype_through_dlpack(tensors, every_dtype, name):
    taken = torch.from_dlpack(tensors[name])
    word = inrush._dtypes.FRAMEWORK_NAMES[name]
    assert taken.dtype == getattr(torch, word)
    assert taken.reshape(-1).view(torch.uint8).numpy().tobytes() == every_dtype[1][name][2]


@pytest.mark.parametrize("name", ["F4", "F6_E2M3", "F6_E3M2"])
def test_elements_of_less_than_a_byte_go_as_bytes(tensors, every_dtype, name):
    with pytest.raises(BufferError, match="as_bytes"):
        torch.from_dlpack(tensors[name])
    taken = torch.from_dlpack(tensors[name].as_bytes())
    assert taken.dtype == torch.uint8
    assert taken.numpy().tobytes() == every_dtype[1][name][2]
    assert taken.shape == (6, DTYPES[name])


def test_scalars_and_empty_tensors(tensors, every_dtype):
    scalar = torch.from_dlpack(tensors["scalar"])
    assert scalar.shape == ()
    assert scalar.numpy().tobytes() == every_dtype[1]["scalar"][2]
    assert torch.from_dlpack(tensors["empty"]).shape == (0, 7)
    assert numpy.asarray(tensors["empty"]).shape == (0, 7)


def test_dlpack_capsules_are_versioned_when_the_consumer_can(tensors):
    tensor = tensors["F32"]
    assert tensor.__dlpack_device__() == (1, 0)
    assert '"dltensor"' in repr(tensor.__dlpack__())
    assert '"dltensor"' in repr(tensor.__dlpack__(max_version=(0, 8)))
    assert '"dltensor_versioned"' in repr(tensor.__dlpack__(max_version=(1, 0)))
    assert '"dltensor"' in repr(tensor.__dlpack__(dl_device=(1, 0), copy=False))


def test_dlpack_refuses_what_it_cannot_do(tensors):
    with pytest.raises(BufferError, match="stream"):
        tensors["F32"].__dlpack__(stream=1)
    with pytest.raises(BufferError, match="host memory"):
        tensors["F32"].__dlpack__(dl_device=(2, 0))


def test_dlpack_copies_when_asked(tensors):
    tensor = tensors["I64"]
    copy = numpy.from_dlpack(tensor, copy=True)
    assert copy.__array_interface__["data"][0] != tensor.data_ptr
    numpy.testing.assert_array_equal(copy, numpy.asarray(tensor))
    other = tensor.copy()
    assert other.data_ptr != tensor.data_ptr
    assert bytes(memoryview(other).cast("B")) == bytes(memoryview(tensor).cast("B"))


@pytest.mark.parametrize("take", [numpy.from_dlpack, torch.from_dlpack, numpy.asarray, memoryview])
def test_what_was_taken_keeps_the_memory(tmp_path, take):
    entry = random_tensor("F32", [1 << 20])
    path = write_file(tmp_path / "x.safetensors", {"x": entry})
    taken = take(inrush.open(path, mapping="never").load()["x"])
    gc.collect()
    assert bytes(memoryview(numpy.asarray(taken)).cast("B")) == entry[2]


def test_a_capsule_that_nobody_takes_frees_its_tensor(tmp_path):
    # Were it leaked, so would 4 MiB a time be.
    path = write_file(tmp_path / "x.safetensors", {"x": random_tensor("F32", [1 << 20])})
    checkpoint = inrush.open(path, mapping="never")

    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096

    before = resident()
    for i in range(40):
        tensor = checkpoint.load()["x"]
        for version in (None, (1, 1)):
            capsule = tensor.__dlpack__(max_version=version)
        if i % 2:
            torch.utils.dlpack.from_dlpack(tensor.__dlpack__())
        del tensor, capsule
    assert resident() - before < 40 << 20


@pytest.mark.parametrize(
    ("name", "format_"),
    [("F32", "f"), ("F64", "d"), ("F16", "e"), ("I8", "b"), ("BOOL", "?"), ("U64", "Q"),
     ("I16", "h"), ("BF16", "H"), ("F8_E4M3", "B"), ("F4", "B"), ("C64", "Zf")],
)  # fmt: skip
def test_buffers_name_their_format(tensors, name, format_):
    view = memoryview(tensors[name])
    assert view.format == format_
    assert not view.readonly
    assert view.c_contiguous
    assert view.nbytes == tensors[name].nbytes


def test_buffers_are_writable_in_place(tensors):
    view = memoryview(tensors["U8"])
    view[1, 2] = 77
    assert numpy.asarray(tensors["U8"])[1, 2] == 77
    assert ctypes.string_at(tensors["U8"].data_ptr + 1 * 8 + 2, 1) == bytes([77])


def test_numpy_without_copies_from_the_buffer(tensors):
    tensor = tensors["BF16"]
    array = numpy.frombuffer(tensor, dtype="u2")
    assert array.__array_interface__["data"][0] == tensor.data_ptr
    shaped = numpy.ndarray(tensor.shape, "u2", tensor)
    assert shaped.__array_interface__["data"][0] == tensor.data_ptr


def test_reshape_keeps_the_memory_and_the_number_of_elements(tensors):
    tensor = tensors["F32"].reshape([48])
    assert tensor.shape == (48,)
    assert tensor.data_ptr == tensors["F32"].data_ptr
    with pytest.raises(inrush.UsageError):
        tensor.reshape([47])


def test_says_what_it_is(tensors):
    assert repr(tensors["BF16"]) == "<inrush.Tensor 'BF16' BF16 [6, 8]>"
    assert sys.getrefcount(tensors["BF16"]) < 10


def test_many_torch_tensors_are_each_right(tmp_path):
    contents = {f"layers.{i}.weight": random_tensor("U8", [16]) for i in range(20_000)}
    path = write_file(tmp_path / "many.safetensors", contents)
    loaded = inrush.open(path, framework="pt").load()
    assert {name: bytes(tensor.numpy()) for name, tensor in loaded.items()} == {
        name: data for name, (_, _, data) in contents.items()
    }


def test_opening_many_makes_no_python_object_of_each(tmp_path):
    contents = {f"layers.{i}.weight": random_tensor("U8", [1]) for i in range(20_000)}
    path = write_file(tmp_path / "many.safetensors", contents)
    inrush.open(path)
    tracemalloc.start()
    try:
        checkpoint = inrush.open(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(checkpoint) == len(contents)
    assert peak < 100_000
