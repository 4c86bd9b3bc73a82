"""What is loaded: names, globs, expressions, predicates, slices, and where it goes."""

import gc
import sys

import numpy
import pytest
import torch
from conftest import random_tensor, write_file

import inrush


@pytest.mark.parametrize(
    ("words", "count"),
    [
        ({"include": "model.layers.0.q.weight"}, 1),
        ({"include": "*.bias"}, 2),
        ({"include": ["*.bias", "*.norm.weight"]}, 4),
        ({"include": r"re:layers\.1\.[qkv]\.weight$"}, 3),
        ({"include": lambda name: ".0." in name}, 6),
        ({"include": [lambda name: ".0." in name, "*.bias"]}, 7),
        ({"exclude": "*.weight"}, 2),
        ({"exclude": [lambda name: ".1." in name]}, 6),
        ({"include": "*.q.*", "exclude": "*.bias"}, 2),
        ({"include": "*.q.*", "exclude": "*"}, 0),
    ],
)
def test_include_and_exclude(sharded, words, count):
    folder, contents = sharded
    loaded = inrush.open(folder).load(**words)
    assert len(loaded) == count
    for name, tensor in loaded.items():
        assert bytes(memoryview(tensor).cast("B")) == contents[name][2]


def test_options_of_a_method_win_over_those_of_open(sharded):
    folder, _ = sharded
    checkpoint = inrush.open(folder, include="*.bias")
    assert len(checkpoint.load()) == 2
    assert len(checkpoint.load(include="*.norm.weight")) == 2
    assert len(checkpoint.load(include=None)) == 12


@pytest.mark.parametrize("word", ["include", "slices"])
def test_a_pattern_that_matches_nothing_is_an_error(sharded, word):
    folder, _ = sharded
    value = {"*.nothing": slice(1)} if word == "slices" else "*.nothing"
    with pytest.raises(inrush.UsageError, match=r"\*\.nothing"):
        inrush.open(folder, **{word: value}).load()


def test_a_predicate_that_accepts_nothing_is_an_error(sharded):
    folder, _ = sharded
    with pytest.raises(inrush.UsageError, match="accepts none"):
        inrush.open(folder).load(include=lambda name: False)


def test_a_misspelt_name_gets_a_suggestion(sharded):
    folder, _ = sharded
    with pytest.raises(inrush.UsageError, match=r"model\.layers\.0\.q\.weight"):
        inrush.open(folder).load(include="model.layers.0.q.wieght")


SLICES = [
    numpy.s_[2:5],
    numpy.s_[:, 3:9],
    numpy.s_[1:, ::2],
    numpy.s_[::3, 1::4, :2],
    numpy.s_[-4:-1, :, -1:],
    numpy.s_[5:2],
    numpy.s_[100:],
    numpy.s_[:, 2:3, ::2],
    numpy.s_[:],
]


@pytest.mark.parametrize("index", SLICES, ids=str)
@pytest.mark.parametrize("mapping", ["auto", "never"])
def test_slices_are_what_numpy_slices(tmp_path, index, mapping):
    _, shape, data = entry = random_tensor("I32", [12, 10, 6])
    path = write_file(tmp_path / "x.safetensors", {"before": random_tensor("U8", [5]), "x": entry})
    whole = numpy.frombuffer(data, "i4").reshape(shape)
    checkpoint = inrush.open(path, framework="np", mapping=mapping)
    part = checkpoint.load(slices={"x": index})["x"]
    numpy.testing.assert_array_equal(part, whole[index])
    text = ", ".join(
        ":".join("" if bound is None else str(bound) for bound in (one.start, one.stop, one.step))
        for one in (index if isinstance(index, tuple) else (index,))
    )
    numpy.testing.assert_array_equal(checkpoint.load(slices={"x": text})["x"], whole[index])
    numpy.testing.assert_array_equal(checkpoint.tensor("x", index), whole[index])


@pytest.mark.parametrize("index", [3, (1, -1), (slice(2), 4, slice(None, None, 3)), ..., (..., 2)])
def test_one_tensors_index_may_have_integers(tmp_path, index):
    _, shape, data = entry = random_tensor("F16", [5, 6, 7])
    path = write_file(tmp_path / "x.safetensors", {"x": entry})
    whole = numpy.frombuffer(data, "f2").reshape(shape)
    part = inrush.open(path, framework="np").tensor("x", index)
    assert part.shape == whole[index].shape
    assert part.tobytes() == whole[index].tobytes()


def test_slices_read_only_what_they_need(tmp_path):
    path = write_file(tmp_path / "x.safetensors", {"x": random_tensor("F32", [4096, 1024])})
    job = inrush.open(path, mapping="never", slices={"x": slice(16, 32)}).start()
    job.wait()
    assert job.stats()["bytes"] == 16 * 4096
    assert job.stats()["bytes_read"] <= 16 * 4096 + (1 << 20)


@pytest.mark.parametrize(
    "index", [numpy.s_[::-1], numpy.s_[:, :, :, :], 3, "1", "a:b", numpy.s_[::0]]
)
def test_slices_that_cannot_be_are_refused(tmp_path, index):
    path = write_file(tmp_path / "x.safetensors", {"x": random_tensor("F32", [4, 4])})
    with pytest.raises(inrush.UsageError, match=r"slice|step"):
        inrush.open(path).load(slices={"x": index})


def test_out_is_filled_in_place(sharded):
    folder, contents = sharded
    arrays = {
        "model.layers.0.q.bias": numpy.zeros(1024, "f4"),
        "model.layers.1.q.bias": bytearray(4096),
    }
    tensors = {
        name: torch.zeros(shape, dtype=torch.bfloat16)
        for name, (dtype, shape, _) in contents.items()
        if dtype == "BF16"
    }
    out = {**arrays, **tensors}
    loaded = inrush.open(folder).load(out=out)
    for name, given in out.items():
        assert loaded[name] is given
        data = given.view(torch.uint8).numpy() if isinstance(given, torch.Tensor) else given
        assert bytes(memoryview(data).cast("B")) == contents[name][2]


def test_out_is_let_go_when_the_load_ends(tmp_path):
    path = write_file(tmp_path / "x.safetensors", {"x": random_tensor("F32", [1000])})
    array = numpy.zeros(1000, "f4")
    before = sys.getrefcount(array)
    for _ in range(100):
        inrush.open(path).load(out={"x": array})
    gc.collect()
    assert sys.getrefcount(array) == before


def test_out_takes_slices_parameters_and_streams(tmp_path):
    _, _, data = entry = random_tensor("F32", [8, 6])
    path = write_file(tmp_path / "x.safetensors", {"x": entry}, shift=1)
    parameter = torch.nn.Parameter(torch.zeros(8, 3))
    seen = dict(inrush.open(path).tensors(slices={"x": ":, 3:"}, out={"x": parameter}))
    assert seen["x"] is parameter
    expected = numpy.frombuffer(data, "f4").reshape(8, 6)[:, 3:]
    assert parameter.detach().numpy().tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("array", "problem"),
    [
        (numpy.zeros(4, "f8"), "dtype"),
        (numpy.zeros(5, "f4"), "20 bytes, the tensor 16"),
        (numpy.zeros(8, "f4")[::2], "not contiguous"),
        (numpy.frombuffer(bytes(16), "f4"), "read-only"),
        (bytes(16), "read-only"),
        (torch.zeros(4, dtype=torch.float16), "dtype"),
        (torch.zeros(4, device="meta"), "meta"),
        ("text", "no host memory"),
    ],
)
def test_out_that_cannot_be_filled_is_refused(tmp_path, array, problem):
    path = write_file(tmp_path / "x.safetensors", {"x": random_tensor("F32", [4])})
    with pytest.raises(inrush.UsageError, match=rf"out\['x'\].*{problem}"):
        inrush.open(path).load(out={"x": array})


@pytest.mark.parametrize("backend", [None, "uring", "uring_buffered", "aio", "pread", "mmap"])
def test_out_that_is_not_aligned_is_filled_by_a_copy(tmp_path, backend):
    usable = dict(inrush._core.backends())
    if backend is not None and usable[backend.upper()]:
        pytest.skip(f"{backend}: {usable[backend.upper()]}")
    entries = {
        "large": random_tensor("F32", [3 << 20]),
        "half": random_tensor("BF16", [70_001]),
        "small": random_tensor("F64", [3]),
    }
    path = write_file(tmp_path / "x.safetensors", entries)
    rooms = {name: numpy.full(len(data) + 3, 0xA5, "u1") for name, (_, _, data) in entries.items()}
    out = {
        "large": rooms["large"][1:-2].view("f4"),
        "half": memoryview(rooms["half"])[1:-2],
        "small": torch.from_numpy(rooms["small"])[1:-2].view(torch.uint8).numpy().view("f8"),
    }
    assert all(room.ctypes.data % 2 == 0 for room in rooms.values())
    with inrush.open(path, backend=backend, budget="8MiB").start(out=out) as job:
        assert dict(job)["large"] is out["large"]
        stats = job.stats()
    for name, (_, _, data) in entries.items():
        assert rooms[name].tobytes() == b"\xa5" + data + b"\xa5\xa5"
    assert stats["bytes_copied"] <= stats["bytes"]


def test_memory_given_for_two_tensors_is_refused(tmp_path):
    entries = {name: random_tensor("F32", [100]) for name in "abc"}
    path = write_file(tmp_path / "x.safetensors", entries)
    memory = numpy.zeros(300, "f4")
    apart = {"b": memory[:100], "c": memory[200:], "a": memory[100:200]}
    assert inrush.open(path).load(out=apart)["a"].tobytes() == entries["a"][2]
    shared = [
        {"a": memory[:100], "b": memory[:100]},
        {"c": memory[99:199], "a": memory[:100]},
        {"a": torch.from_numpy(memory[:100]), "b": memoryview(memory)[50:150]},
    ]
    for out in shared:
        kept = memory.tobytes()
        with pytest.raises(inrush.UsageError, match=r"out\['.'\] and out\['.'\] share memory"):
            inrush.open(path).load(out=out)
        assert memory.tobytes() == kept


def test_out_for_a_tensor_that_is_not_loaded_is_refused(tmp_path):
    path = write_file(tmp_path / "x.safetensors", {"x": random_tensor("F32", [4])})
    with pytest.raises(inrush.UsageError, match=r"out\['y'\]"):
        inrush.open(path).load(out={"y": numpy.zeros(4, "f4")})


def test_neighbours_in_the_file_that_are_asked_for_apart_are_right_by_every_way(tmp_path):
    # Of these, in the order of names, some are mapped and some read, onto pages that they share.
    sizes = {"l.1": 8580, "l.4": 8976, "l.7": 9372, "b": 77}
    parts = [
        {"l.0": 8448, "l.3": 8844, "l.6": 9240, "l.9": 9636},
        {"emb": 2048000, **sizes},
        {"l.2": 8712, "l.5": 9108, "l.8": 9504, "o": 210},
    ]
    contents = [{name: random_tensor("U8", [n]) for name, n in part.items()} for part in parts]
    paths = [write_file(tmp_path / f"{i}.safetensors", part) for i, part in enumerate(contents)]
    checkpoint = inrush.open(paths)
    names = sorted(checkpoint)
    for order in (names, names[::-1]):
        for backend in (None, "mmap", "pread_buffered", "uring"):
            loaded = checkpoint.load(order=order, backend=backend)
            for part in contents:
                for name, (_, _, data) in part.items():
                    assert bytes(loaded[name]) == data, (name, backend)
