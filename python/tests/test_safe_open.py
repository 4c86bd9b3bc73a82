"""safe_open, load_file and save_file beside those of safetensors 0.8."""

import threading

import inrush.numpy
import inrush.torch
import numpy
import pytest
import safetensors
import safetensors.numpy
import safetensors.torch
import torch
from conftest import DTYPES, random_tensor, write_file

import inrush
from inrush import safe_open


def same(one, two):
    assert one.dtype == two.dtype
    assert one.shape == two.shape
    if isinstance(one, numpy.ndarray):
        return one.tobytes() == two.tobytes()
    flat = [t.contiguous().reshape(-1).view(torch.uint8) for t in (one, two) if t.numel()]
    return not flat or torch.equal(*flat)


@pytest.fixture(params=[None, "mmap", "pread"])
def pair(request, every_dtype):
    """Ours, however it reads, and theirs."""
    path, _ = every_dtype
    with (
        safe_open(path, "pt", backend=request.param) as ours,
        safetensors.safe_open(path, "pt") as theirs,
    ):
        yield ours, theirs


def test_lists_what_is_there(pair):
    ours, theirs = pair
    assert ours.keys() == theirs.keys()
    assert ours.metadata() is theirs.metadata() is None
    assert sorted(ours.offset_keys()) == sorted(theirs.offset_keys())
    offsets = [name for name in ours.offset_keys() if name != "empty"]
    assert offsets == [name for name in theirs.offset_keys() if name != "empty"]


def test_tensors_are_the_same(pair):
    ours, theirs = pair
    for name in ours.keys():  # noqa: SIM118 - no dict
        if not name.startswith("F6"):
            assert same(ours.get_tensor(name), theirs.get_tensor(name))


INDICES = [
    1, -1, slice(0, 2), slice(-2, None), slice(0, 100), slice(3, 1), slice(None), ...,
    (slice(None), slice(0, 8, 2)), (slice(None), -1), (..., 1), (1, 2), (), None, [0, 1],
    (slice(None), [0, 2]), True,
]  # fmt: skip


@pytest.mark.parametrize("index", INDICES, ids=str)
@pytest.mark.parametrize("name", ["F32", "BF16", "I64", "BOOL"])
def test_slices_are_the_same(pair, name, index):
    ours, theirs = (one.get_slice(name) for one in pair)
    assert ours.get_shape() == theirs.get_shape()
    assert ours.get_dtype() == theirs.get_dtype()
    assert same(ours[index], theirs[index])


@pytest.mark.parametrize("index", [[0, 1], None, True, (slice(None), [0, 2])], ids=str)
def test_without_a_framework_what_is_no_slice_is_refused(every_dtype, index):
    with inrush.safe_open(every_dtype[0], None) as opened:
        part = opened.get_slice("F32")
        assert part[1:3].shape == (2, 8)
        with pytest.raises(inrush.SafetensorError, match="index"):
            part[index]


@pytest.mark.parametrize(
    "index", [100, -7, (1, 2, 3), slice(None, None, -1), slice(None, None, 0), 1.5]
)
def test_bad_indices_raise_the_same(pair, index):
    ours, theirs = (one.get_slice("F32") for one in pair)
    with pytest.raises((IndexError, ValueError)) as expected:
        theirs[index]
    with pytest.raises(expected.type):
        ours[index]


@pytest.mark.parametrize("backend", ["mmap", "pread"])
@pytest.mark.parametrize("kind", ["np", "pt"])
def test_what_is_written_shows_where_it_does_with_safetensors(tmp_path, kind, backend):
    array = numpy.random.default_rng(5).random((64, 48))
    safetensors.numpy.save_file({"a": array}, tmp_path / "x")
    seen = []
    for opener in (safe_open, safetensors.safe_open):
        with opener(tmp_path / "x", kind, backend=backend) as file:
            got = [
                file.get_slice("a")[2:4], file.get_tensor("a"), file.get_tensor("a"),
                file.get_slice("a")[:, 1:3],
            ]  # fmt: skip
            shown = []
            for value, part in enumerate(got):
                part[...] = -1 - value
                shown.append([one.tolist() for one in (*got, file.get_tensor("a"))])
            seen.append(shown)
    assert seen[0] == seen[1]


def test_threads_that_ask_for_one_tensor_get_arrays_of_their_own(sharded):
    folder, _ = sharded
    with safe_open(folder, "np") as file:
        name = file.keys()[0]
        arrays = []
        threads = [
            threading.Thread(target=lambda: arrays.append(file.get_tensor(name))) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len({array.ctypes.data for array in arrays}) == 8
    assert len({array.tobytes() for array in arrays}) == 1


def test_a_name_that_is_not_there(pair):
    for one in pair:
        with pytest.raises(Exception, match="File does not contain tensor nothing") as caught:
            one.get_tensor("nothing")
        with pytest.raises(type(caught.value), match="File does not contain tensor nothing"):
            one.get_slice("nothing")
    with pytest.raises(inrush.SafetensorError):
        pair[0].get_tensor("nothing")


def test_closed_files_say_so(pair):
    ours, _ = pair
    part = ours.get_slice("F32")
    kept = ours.get_tensor("F32")
    ours.__exit__(None, None, None)
    for use in (ours.keys, ours.metadata, ours.offset_keys, ours.get_tensors):
        with pytest.raises(inrush.SafetensorError, match="File is closed"):
            use()
    for use in (ours.get_tensor, ours.get_slice):
        with pytest.raises(inrush.SafetensorError, match="File is closed"):
            use("F32")
    assert part.get_shape() == [6, 8]
    assert kept.sum() is not None


def test_a_missing_file_is_pythons_own_error():
    for load in (safe_open, safetensors.safe_open):
        with pytest.raises(FileNotFoundError, match="No such file or directory: /no/such"):
            load("/no/such", "pt")
    for load in (inrush.torch.load_file, inrush.numpy.load_file):
        with pytest.raises(FileNotFoundError, match="No such file or directory: /no/such"):
            load("/no/such")


@pytest.mark.parametrize(
    ("arguments", "words", "text"),
    [
        (("xx",), {}, "framework xx is invalid"),
        (("pt",), {"device": "foo"}, "foo.* is invalid"),
        (("pt",), {"backend": "foo"}, "backend .foo"),
        (("np",), {"device": "cuda:1"}, "Device cuda:1 is not supported for framework np"),
        (("np", 0), {}, "Device 0 is not supported for framework np"),
        (("pt", -1), {}, "device -1 is invalid"),
        (("pt", "mps:1"), {}, "device mps:1 is invalid"),
        (("pt",), {"copy": "yes"}, "copy 'yes': expected True, False or None"),
        (("pt",), {"buffer_size": -1}, "buffer_size -1"),
    ],
)
def test_bad_arguments_are_safetensor_errors(every_dtype, arguments, words, text):
    with pytest.raises(inrush.SafetensorError, match=text):
        safe_open(every_dtype[0], *arguments, **words)


def test_the_framework_is_asked_for(every_dtype):
    with pytest.raises(TypeError):
        safe_open(every_dtype[0])


@pytest.mark.parametrize("data", [b"", b"\x01\0\0\0\0\0\0\0\xff", b"\x02\0\0\0\0\0\0\0{}xx"])
def test_malformed_files_are_refused_by_both(tmp_path, data):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(data)
    with pytest.raises(safetensors.SafetensorError):
        safetensors.safe_open(path, "pt")
    with pytest.raises(inrush.SafetensorError, match=r"bad\.safetensors"):
        safe_open(path, "pt")


def test_get_tensors_gives_all(every_dtype):
    path, contents = every_dtype
    with safe_open(path, None) as opened:
        loaded = opened.get_tensors()
    assert {n: bytes(memoryview(t).cast("B")) for n, t in loaded.items() if t.nbytes} == {
        name: data for name, (_, _, data) in contents.items() if data
    }


def test_metadata_is_the_headers(tmp_path):
    path = write_file(
        tmp_path / "x.safetensors", {"x": random_tensor("F32", [2])}, metadata={"a": "b"}
    )
    with safe_open(path, "np") as opened:
        assert opened.metadata() == {"a": "b"}


def test_one_handle_serves_several_threads(sharded):
    folder, contents = sharded
    path = folder / "model-00001-of-00002.safetensors"
    failures = []
    with safe_open(path, "pt") as opened:

        def read():
            for name in opened.keys():  # noqa: SIM118 - no dict
                tensor = opened.get_tensor(name).reshape(-1).view(torch.uint8)
                if tensor.numpy().tobytes() != contents[name][2]:
                    failures.append(name)

        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failures


@pytest.mark.parametrize("shift", [1, 2, 4])
def test_misaligned_tensors_are_read_aligned(tmp_path, shift):
    contents = {dtype: random_tensor(dtype, [4, 8]) for dtype in DTYPES if dtype[:2] != "F6"}
    path = write_file(tmp_path / "x.safetensors", contents, shift=shift)
    with safe_open(path, "pt") as ours, safetensors.safe_open(path, "pt") as theirs:
        for name in contents:
            tensor = ours.get_tensor(name)
            assert tensor.data_ptr() % min(4, tensor.element_size()) == 0
            assert same(tensor, theirs.get_tensor(name))


def torch_tensors():
    tensors = {}
    for name, word in inrush._dtypes.FRAMEWORK_NAMES.items():
        raw = torch.randint(0, 2 if name == "BOOL" else 256, (4, 64), dtype=torch.uint8)
        tensors[f"x.{name}"] = raw.view(getattr(torch, word))
    tensors["scalar"] = torch.tensor(3.5)
    tensors["empty"] = torch.zeros(0, 3)
    return tensors


@pytest.mark.parametrize("metadata", [None, {}, {"format": "pt", "ä": '\n"quoted"'}])
def test_saved_files_are_byte_identical_to_safetensors(tmp_path, metadata):
    tensors = torch_tensors()
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    inrush.torch.save_file(tensors, ours, metadata)
    safetensors.torch.save_file(tensors, theirs, metadata)
    # The order of metadata is not defined there: only one key can be compared.
    if metadata is None or len(metadata) < 2:
        assert ours.read_bytes() == theirs.read_bytes()
        assert inrush.torch.save(tensors, metadata) == ours.read_bytes()
    loaded = safetensors.torch.load_file(ours)
    assert set(loaded) == set(tensors)
    assert all(same(loaded[name], tensor) for name, tensor in tensors.items())
    back = inrush.torch.load_file(theirs)
    assert all(same(back[name], tensor) for name, tensor in tensors.items())


def test_numpy_files_are_byte_identical_too(tmp_path):
    rng = numpy.random.default_rng()
    arrays = {
        word: rng.integers(0, 2, (3, 5)).astype(word)
        for word in ("bool", "u1", "i2", "u4", "i8", "f2", "f4", "f8", "c8")
    }
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    inrush.numpy.save_file(arrays, ours, {"one": "key"})
    safetensors.numpy.save_file(arrays, theirs, {"one": "key"})
    assert ours.read_bytes() == theirs.read_bytes()
    for loaded in (inrush.numpy.load_file(ours), inrush.numpy.load(ours.read_bytes())):
        assert all(same(loaded[name], array) for name, array in arrays.items())


def test_numpy_saves_strided_and_big_endian_arrays_right(tmp_path):
    array = numpy.arange(12, dtype=">i4").reshape(3, 4).T
    inrush.numpy.save_file({"x": array}, tmp_path / "x")
    numpy.testing.assert_array_equal(safetensors.numpy.load_file(tmp_path / "x")["x"], array)


def test_load_takes_bytes_and_names_them_in_errors():
    tensors = torch_tensors()
    loaded = inrush.torch.load(safetensors.torch.save(tensors))
    assert all(same(loaded[name], tensor) for name, tensor in tensors.items())
    with pytest.raises(inrush.DataError, match="<bytes>"):
        inrush.torch.load(b"")


def test_saving_refuses_what_safetensors_refuses(tmp_path):
    path = tmp_path / "x"
    shared = torch.ones(8)
    for tensors, error, text in [
        ([1], ValueError, "Expected a dict"),
        ({"a": 1}, ValueError, "Key `a` is invalid"),
        ({"a": shared[::2]}, ValueError, "non contiguous"),
        ({"a": shared, "b": shared}, RuntimeError, "share memory"),
        ({"a": shared, "b": shared[2:4]}, RuntimeError, "share memory"),
        ({"a": shared.to_sparse()}, ValueError, "sparse"),
    ]:
        with pytest.raises(error, match=text):
            inrush.torch.save_file(tensors, path)
        with pytest.raises(error):
            safetensors.torch.save_file(tensors, path)
        assert not path.exists()
    halves = {"a": shared[:4], "b": shared[4:]}
    inrush.torch.save_file(halves, path)
    with pytest.raises(TypeError):
        inrush.torch.save_file({"a": shared}, path, {"a": 1})
    with pytest.raises(inrush.SafetensorError):
        inrush.torch.save_file({"a": shared}, tmp_path / "no" / "folder")
    with pytest.raises(inrush.UsageError, match="dtype"):
        inrush.numpy.save_file({"a": numpy.array(["text"])}, path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["x"]


def test_saving_over_a_file_that_is_in_use_leaves_its_tensors(tmp_path):
    path = tmp_path / "x.safetensors"
    safetensors.torch.save_file({"x": torch.arange(100000)}, path)
    loaded = inrush.torch.load_file(path)
    inrush.torch.save_file({"x": loaded["x"] + 1}, path)
    assert torch.equal(loaded["x"], torch.arange(100000))
    assert torch.equal(inrush.torch.load_file(path)["x"], torch.arange(100000) + 1)
