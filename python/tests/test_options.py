"""The words of the options: values, the environment, what is refused."""

import re

import inrush.instanttensor
import inrush.numpy
import inrush.torch
import numpy as np
import pytest
import torch
from conftest import random_tensor, write_file
from inrush._options import WORDS, Options, parse_backend, parse_budget
from inrush._sizes import parse_size

import inrush
from inrush import Backend, BackendPolicy


@pytest.fixture
def no_gpu(monkeypatch):
    for vendor in ("CUDA", "HIP"):
        monkeypatch.setenv(f"INRUSH_{vendor}_LIBRARY", "off")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (4096, 4096), ("4096", 4096), ("512MiB", 512 << 20), ("512 mib", 512 << 20),
        ("1.5GiB", 3 << 29), ("2GB", 2 * 10**9), ("8k", 8000), ("8Ki", 8192), ("1TB", 10**12),
        ("10B", 10),
    ],
)  # fmt: skip
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MiB", "-1", -1, 0, "0", "5 parsecs", "1e9", True, None, 2.5])
def test_sizes_that_are_none(text):
    with pytest.raises(inrush.UsageError, match="budget"):
        parse_size(text)


def test_budgets():
    assert parse_budget(None) == parse_budget("auto") == 0
    assert parse_budget({"host": "8MiB", "pinned": 1, "device": "1GiB"}) == 8 << 20
    assert parse_budget({"device": "1GiB"}) == 0
    with pytest.raises(inrush.UsageError, match="disk"):
        parse_budget({"disk": 1})


def test_backends():
    assert parse_backend(None) == parse_backend("auto") == []
    assert parse_backend("URING, aio_buffered") == ["uring", "aio_buffered"]
    assert parse_backend(Backend.PREAD) == ["pread"]
    assert parse_backend([Backend.URING, BackendPolicy.BUFFERED, "mmap"]) == [
        "uring",
        "buffered",
        "mmap",
    ]
    for wrong in ("floppy", ["uring", "floppy"], []):
        with pytest.raises(inrush.UsageError, match="backend"):
            parse_backend(wrong)


def test_backend_names_are_those_of_the_engine():
    names = {name for name, _ in inrush._core.backends()}
    assert names == {backend.name for backend in Backend}


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("page_cache", "maybe"), ("mapping", "always"), ("order", "random"), ("device", "cuda"),
        ("device", "cuda:1"), ("device", 0), ("device", "toaster"), ("budget", "much"),
        ("backend", "floppy"), ("framework", "xx"), ("order", ""),
    ],
)  # fmt: skip
def test_wrong_values_are_usage_errors_that_name_the_word(every_dtype, word, value, no_gpu):
    with pytest.raises(inrush.UsageError, match=f"{word}.*{value}") as caught:
        inrush.open(every_dtype[0], **{word: value}).load()
    assert caught.value.code == 2


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("backend", 3), ("order", 3), ("order", [3]), ("include", 3), ("exclude", [3]),
        ("include", re.compile(b"x")), ("budget", 1.5), ("budget", 10**30), ("budget", [1]),
        ("budget", "host=8MiB,much"), ("buffer_size", 2**63), ("slices", 3), ("slices", ["x"]),
        ("out", 3), ("progress", 3), ("storage_options", 3), ("storage_options", "secret"),
        ("mirrors", 3), ("mirrors", [3]), ("cache_dir", 3),
    ],
)  # fmt: skip
def test_values_of_a_wrong_type_are_usage_errors_before_anything_is_loaded(
    every_dtype, word, value
):
    with pytest.raises(inrush.UsageError, match=word):
        inrush.open(every_dtype[0], **{word: value})


def test_a_compiled_expression_selects_as_its_text_does(tmp_path):
    names = ["a.weight", "a.bias", "b.weight", "re:.*", "re:a/b"]
    path = write_file(tmp_path / "x", {name: random_tensor("F32", [3]) for name in names})
    for text in (r"^a\.", "weight$", "b"):
        checkpoint = inrush.open(path)
        wanted = [name for name in names if re.search(text, name)]
        assert sorted(checkpoint.load(include=re.compile(text))) == sorted(wanted)
        assert sorted(checkpoint.load(include="re:" + text)) == sorted(wanted)
        left = checkpoint.load(exclude=[re.compile(text)])
        assert sorted(left) == sorted({*names} - {*wanted})


def test_what_a_predicate_accepts_is_a_name(tmp_path):
    entries = {name: random_tensor("F32", [3]) for name in ("re:.*", "re:x[0]+", "re:x0", "y")}
    path = write_file(tmp_path / "x", entries)
    for name, (_, _, data) in entries.items():
        loaded = inrush.open(path).load(include=lambda one, name=name: one == name)
        assert {key: bytes(tensor) for key, tensor in loaded.items()} == {name: data}
        assert bytes(inrush.open(path).tensor(name, mapping="never")) == data
        assert bytes(inrush.open(path).tensor(name, "1:")) == data[4:]


def test_budget_and_slices_are_the_same_words_as_text(tmp_path):
    assert parse_budget("host=8MiB, pinned=1GiB") == 8 << 20
    assert parse_budget("host=8MiB,pinned=1GiB", "pinned") == 1 << 30
    path = write_file(tmp_path / "x", {"b": random_tensor("F32", [8])})
    assert inrush.open(path).load(slices="b=0:2")["b"].shape == (2,)


@pytest.mark.parametrize("text", ["b*", "b", "b,a", "ready"])
def test_the_order_of_the_environment_is_that_of_the_command_line(tmp_path, monkeypatch, text):
    entries = {name: random_tensor("F32", [3]) for name in "ab"}
    path = write_file(tmp_path / "x", entries)
    monkeypatch.setenv("INRUSH_ORDER", text)
    expected = "ba" if text == "b,a" else "ab" if text == "ready" else "b"
    assert sorted(inrush.open(path).load()) == sorted(expected)
    assert "".join(dict(inrush.open(path).tensors())) == expected or text == "ready"


def test_unknown_options_are_type_errors(every_dtype):
    with pytest.raises(TypeError, match="budgt"):
        inrush.open(every_dtype[0], budgt=5)


def test_a_device_without_a_driver_says_so(every_dtype, no_gpu):
    with pytest.raises(
        inrush.UsageError, match="cuda:0: there is no driver to use: it is switched"
    ):
        inrush.open(every_dtype[0], device="cuda:0").load()


@pytest.mark.parametrize(
    ("word", "text", "attribute"),
    [
        ("backend", "PREAD,MMAP", ["pread", "mmap"]),
        ("budget", "8MiB", 8 << 20),
        ("page_cache", "drop", "drop"),
        ("mapping", "never", "never"),
        ("order", "ready", "ready"),
        ("order", "b,a", ["b", "a"]),
        ("include", "*.bias,norm", ["*.bias", "norm"]),
        ("exclude", "*.bias", ["*.bias"]),
        ("slices", "*.weight=0:2,:;x=:5", {"*.weight": "0:2,:", "x": ":5"}),
    ],
)
def test_the_environment_presets_every_word(monkeypatch, word, text, attribute):
    monkeypatch.setenv(f"INRUSH_{word.upper()}", text)
    assert getattr(Options({}), word) == attribute


def test_what_is_said_wins_over_the_environment(monkeypatch):
    monkeypatch.setenv("INRUSH_BUDGET", "8MiB")
    monkeypatch.setenv("INRUSH_DEVICE", "cuda")
    assert Options({"budget": "16MiB", "device": "cpu"}).budget == 16 << 20
    assert Options({}).device == "cuda"
    assert Options({"device": "cpu"}).device is None


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("device", "cuda:0"), ("include", "*.bias"), ("exclude", "*.bias"), ("slices", "*=0:1"),
        ("order", "b.bias,a.bias"),
    ],
)  # fmt: skip
def test_the_environment_selects_nothing_of_what_safetensors_has(
    monkeypatch, tmp_path, word, text, no_gpu
):
    model = torch.nn.ModuleDict({"a": torch.nn.Linear(3, 3), "b": torch.nn.Linear(3, 2)})
    wanted = dict(model.state_dict())
    path = tmp_path / "x.safetensors"
    inrush.torch.save_file(wanted, path)
    monkeypatch.setenv(f"INRUSH_{word.upper()}", text)
    with inrush.safe_open(path, "pt", device="cpu") as file:
        one = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        every = [one, file.get_tensors(), dict(file.tensors())]
    every.append(inrush.torch.load_file(path, device="cpu"))
    every.append(inrush.torch.load(path.read_bytes()))
    mine = torch.nn.ModuleDict({"a": torch.nn.Linear(3, 3), "b": torch.nn.Linear(3, 2)})
    assert inrush.torch.load_model(mine, path) == (set(), [])
    every.append(dict(mine.state_dict()))
    with inrush.instanttensor.safe_open(path, "pt", "cpu") as file:
        every.append(dict(file.tensors()))
    for made in every:
        assert made.keys() == wanted.keys()
        assert all(torch.equal(made[name], tensor) for name, tensor in wanted.items())
    assert len(inrush.numpy.load_file(path)) == 4
    assert len(inrush.numpy.deserialize(path.read_bytes())) == 4


def test_every_word_of_the_issue_is_a_word():
    assert set(WORDS) == {
        "device", "backend", "budget", "page_cache", "mapping", "order", "include", "exclude",
        "slices", "out", "verify", "cache_dir", "cache_size", "storage_options",
    }  # fmt: skip
    assert set(WORDS) <= set(Options({})._values)
    for word in WORDS:
        assert f"\n    {word}" in inrush.open.__doc__ or f", {word} :" in inrush.open.__doc__


def test_strict_allows_no_other_and_lists_why(every_dtype):
    with pytest.raises(inrush.UsageError, match=r"CUFILE|cufile"):
        inrush.open(every_dtype[0], backend="cufile", strict=True).load()


def test_candidates_are_tried_in_order(tmp_path):
    path = write_file(tmp_path / "x.safetensors", {"x": random_tensor("U8", [1 << 20])})
    job = inrush.open(path, backend=["cufile", "pread_buffered"]).start()
    job.wait()
    assert job.stats()["choice"] == "pread_buffered"


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("device", "gpu"), ("backend", "fast"), ("budget", "abc"), ("budget", "disk=1GB"),
        ("page_cache", "always"), ("mapping", "always"), ("slices", "a"), ("verify", "md5"),
        ("cache_size", "much"), ("storage_options", "s3cret"),
    ],
)  # fmt: skip
def test_an_error_of_a_preset_names_the_variable(monkeypatch, word, text):
    monkeypatch.setenv(f"INRUSH_{word.upper()}", text)
    with pytest.raises(inrush.UsageError) as caught:
        Options({})
    assert str(caught.value).startswith(f"INRUSH_{word.upper()}")
    assert "s3cret" not in str(caught.value)


def test_an_error_of_an_argument_names_the_argument(monkeypatch):
    monkeypatch.setenv("INRUSH_BUDGET", "1GiB")
    with pytest.raises(inrush.UsageError, match=r"^budget 'abc'"):
        Options({"budget": "abc"})
    monkeypatch.setenv("INRUSH_BUDGET", "abc")
    with pytest.raises(inrush.UsageError, match=r"^page_cache 'x'"):
        Options({"budget": "1GiB", "page_cache": "x"})


def test_out_has_the_shape_of_what_it_takes_or_none(tmp_path):
    values = np.random.default_rng().integers(0, 1 << 16, (3, 4), np.uint16)
    inrush.numpy.save_file({"w": values}, tmp_path / "w.safetensors")
    for shape in ((3, 4), (12,), (1, 3, 4, 1)):
        array = np.zeros(shape, np.uint16)
        inrush.open(tmp_path, out={"w": array}).load()
        np.testing.assert_array_equal(array.reshape(3, 4), values)
    plain = bytearray(24)
    inrush.open(tmp_path, out={"w": plain}).load()
    assert plain == values.tobytes()
    part = np.zeros((3, 2), np.uint16)
    inrush.open(tmp_path, slices={"w": ":, 1:3"}, out={"w": part}).load()
    np.testing.assert_array_equal(part, values[:, 1:3])
    for wrong in ((4, 3), (2, 6), (2, 2, 3)):
        with pytest.raises(inrush.UsageError, match=r"shape .* the tensor \(3, 4\)"):
            inrush.open(tmp_path, out={"w": np.zeros(wrong, np.uint16)}).load()
    with pytest.raises(inrush.UsageError, match=r"shape \(2, 3\), the tensor \(3, 2\)"):
        wrong_part = np.zeros((2, 3), np.uint16)
        inrush.open(tmp_path, slices={"w": ":, 1:3"}, out={"w": wrong_part}).load()


def test_a_manifest_goes_into_a_pipe(tmp_path, inrush_command):
    inrush.numpy.save_file({"w": np.ones(3)}, tmp_path / "w.safetensors")
    done = inrush_command("manifest", tmp_path, "-o", "/dev/stdout")
    assert done.returncode == 0, done.stderr
    assert '"w"' in done.stdout
