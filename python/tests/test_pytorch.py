"""Checkpoints of torch.save, read without running what they hold."""

from __future__ import annotations

import collections
import io
import json
import pickle
import zipfile
from pathlib import Path

import pytest

import inrush

torch = pytest.importorskip("torch")


def saved(tmp_path: Path, value: object, name: str = "model.bin", **options: object) -> Path:
    path = tmp_path / name
    torch.save(value, path, **options)
    return path


def check(path: object, expected: dict[str, object], **options: object) -> None:
    loaded = inrush.open(path, framework="pt", **options).load()
    assert set(loaded) == set(expected)
    for name, tensor in expected.items():
        assert loaded[name].dtype == tensor.dtype
        assert loaded[name].shape == tensor.shape
        assert torch.equal(
            loaded[name].contiguous().view(torch.uint8) if tensor.dim() else loaded[name],
            tensor.detach().contiguous().view(torch.uint8) if tensor.dim() else tensor,
        )


DTYPES = [
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16,
    torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.uint16, torch.uint32,
    torch.uint64, torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e8m0fnu,
]  # fmt: skip


def of_dtype(dtype: torch.dtype) -> torch.Tensor:
    size = torch.empty(0, dtype=dtype).element_size()
    raw = torch.randint(0, 2 if dtype == torch.bool else 256, (15 * size,), dtype=torch.uint8)
    return raw.view(dtype).reshape(3, 5)


def test_every_dtype_is_read(tmp_path):
    tensors = {str(dtype): of_dtype(dtype) for dtype in DTYPES}
    tensors["scalar"] = torch.tensor(1.5)
    tensors["empty"] = torch.empty(0, 3)
    path = saved(tmp_path, tensors)
    checkpoint = inrush.open(path)
    assert checkpoint.format == "pytorch"
    check(path, tensors)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_is_read(tmp_path, protocol):
    tensors = {f"layers.{i}.weight": torch.rand(i + 1, 3) for i in range(300)}
    path = saved(tmp_path, tensors, pickle_protocol=protocol)
    check(path, tensors)


@pytest.mark.parametrize("backend", ["uring", "pread", "mmap"])
def test_views_and_shared_storages_are_what_torch_makes_of_them(tmp_path, backend):
    base = torch.rand(6, 8)
    tensors = {
        "base": base,
        "transposed": base.T,
        "column": base[:, 3],
        "block": base[1:4, 2:7],
        "stepped": base[::2, 1::3],
        "expanded": base[0].expand(5, 8),
        "same": base,
        "swapped": torch.rand(2, 3, 4).permute(2, 0, 1),
    }
    check(saved(tmp_path, tensors), tensors, backend=backend)


def test_a_slice_of_a_strided_tensor_is_the_slice(tmp_path):
    base = torch.rand(6, 8)
    path = saved(tmp_path, {"t": base.T})
    part = inrush.open(path, framework="pt").tensor("t", (slice(2, 7), slice(1, 5, 2)))
    assert torch.equal(part, base.T[2:7, 1:5:2])


def test_nested_values_are_named_by_their_way_and_other_leaves_are_passed_over(tmp_path):
    weight, momentum = torch.rand(2, 2), torch.rand(3)
    value = {
        "epoch": 3,
        "lr": 1e-3,
        "big": 2**70,
        "negative": -5,
        "names": ["a", ("b", None, True)],
        "state_dict": collections.OrderedDict(weight=torch.nn.Parameter(weight)),
        "optimizer": {"state": {0: {"momentum": momentum}}, "raw": b"bytes"},
        "dtype": torch.float32,
        "shape": torch.Size([1, 2]),
        "device": torch.device("cpu"),
        "list": [torch.rand(1), {"x": torch.rand(1)}],
    }
    names = set(inrush.open(saved(tmp_path, value, "x.pt")))
    assert names == {
        "state_dict.weight",
        "optimizer.state.0.momentum",
        "list.0",
        "list.1.x",
    }
    loaded = inrush.open(tmp_path / "x.pt", framework="pt").load()
    assert torch.equal(loaded["state_dict.weight"], weight)
    assert torch.equal(loaded["optimizer.state.0.momentum"], momentum)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_data_of_python_is_passed_over_whatever_its_type(tmp_path, protocol):
    weight, other = torch.rand(2, 2), torch.rand(3)
    value = {
        "set": {1, "a"},
        "frozenset": frozenset([2]),
        "held": frozenset([other]),
        "bytearray": bytearray(b"bytes"),
        "complex": 1 + 2j,
        "huge": 3**2000,
        "count": collections.Counter("abca"),
        "default": collections.defaultdict(list, weight=weight),
    }
    path = saved(tmp_path, value, pickle_protocol=protocol)
    check(path, {"default.weight": weight, "held.0": other})


def test_a_module_s_state_dict_and_a_bare_tensor(tmp_path):
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    check(saved(tmp_path, module.state_dict(), "m.pth"), dict(module.state_dict()))
    tensor = torch.rand(4)
    check(saved(tmp_path, tensor, "t.pt"), {"tensor": tensor})


def test_complex128_is_bytes_that_say_what_they_are(tmp_path):
    tensor = torch.rand(3, 2, dtype=torch.complex128)
    checkpoint = inrush.open(saved(tmp_path, {"c": tensor, "t": tensor.T}))
    info = checkpoint["c"]
    assert (info.dtype, info.shape, info.encoding) == ("U8", (3, 2, 16), "torch.complex128")
    assert bytes(checkpoint.load()["c"]) == bytes(tensor.view(torch.uint8).numpy())
    assert bytes(checkpoint.load()["t"]) == bytes(tensor.T.contiguous().view(torch.uint8).numpy())


def test_shards_are_found_through_their_index(tmp_path):
    tensors = {"a": torch.rand(3), "b": torch.rand(2, 2)}
    saved(tmp_path, {"a": tensors["a"]}, "pytorch_model-00001-of-00002.bin")
    saved(tmp_path, {"b": tensors["b"]}, "pytorch_model-00002-of-00002.bin")
    saved(tmp_path, {"x": torch.rand(1)}, "training_args.bin")
    weight_map = {
        "a": "pytorch_model-00001-of-00002.bin",
        "b": "pytorch_model-00002-of-00002.bin",
    }
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    check(tmp_path, tensors)
    (tmp_path / "pytorch_model.bin.index.json").unlink()
    check(tmp_path, tensors)


def test_it_is_known_by_its_content(tmp_path):
    tensors = {"a": torch.rand(3)}
    check(saved(tmp_path, tensors, "weights.safetensors"), tensors)
    check(saved(tmp_path, tensors, "0123abcd"), tensors)


class Runs:
    def __reduce__(self):
        import os

        return os.system, ("touch /tmp/inrush-was-here",)


def test_what_would_run_code_is_refused_by_its_name(tmp_path):
    path = saved(tmp_path, {"a": torch.rand(2), "evil": Runs()})
    with pytest.raises(inrush.DataError, match=r"(posix|os)\.system.*is refused"):
        inrush.open(path)
    assert not Path("/tmp/inrush-was-here").exists()


def test_whole_modules_and_other_objects_are_refused_by_name(tmp_path):
    with pytest.raises(inrush.DataError, match=r"torch\.nn\.modules\.linear\.Linear"):
        inrush.open(saved(tmp_path, torch.nn.Linear(2, 2)))
    with pytest.raises(inrush.DataError, match="refused"):
        inrush.open(saved(tmp_path, {"s": torch.rand(2, 2).to_sparse()}))


def test_buffers_and_tensors_with_attributes_are_their_numbers(tmp_path):
    module = torch.nn.BatchNorm1d(4)
    module.mask = torch.nn.Buffer(torch.rand(5, 3).T, persistent=True)
    module.weight.tag = "a parameter's"
    module.running_mean.tag = {"kept": torch.rand(2)}
    kept = module.state_dict(keep_vars=True)
    check(saved(tmp_path, kept), dict(kept))
    marked = torch.rand(3).to(torch.float8_e5m2)
    marked.scale = 2.0
    tensors = {
        "marked": marked,
        "buffer": torch.rand(3).as_subclass(torch.nn.Buffer),
        "parameter": torch.nn.Parameter(torch.nn.Buffer(torch.rand(2)), requires_grad=False),
    }
    check(saved(tmp_path, tensors), tensors)


class Scaled(torch.Tensor):
    pass


class Rebuilt:
    def __init__(self, *what):
        self.what = what

    def __reduce__(self):
        return self.what


def test_what_makes_other_numbers_of_a_tensor_is_refused(tmp_path):
    with pytest.raises(inrush.DataError, match=r"Scaled.* is refused"):
        inrush.open(saved(tmp_path, {"a": torch.rand(3).as_subclass(Scaled)}))
    typed = torch._tensor._rebuild_from_type_v2
    function, arguments = torch.rand(3).__reduce_ex__(2)
    for what, reason in (
        ((typed, (function, torch.Tensor, arguments, {"data": torch.rand(3)})), "data is refused"),
        ((typed, (function, torch.Tensor, arguments, (None, {"imag": 1}))), "imag is refused"),
        ((typed, (function, torch.Tensor, arguments, {3: 1})), "name is something else"),
        ((typed, (typed, torch.Tensor, (), None)), r"_rebuild_from_type_v2.* is refused"),
        ((typed, (print, torch.Tensor, ("ran",), None)), r"print.* is refused"),
        ((typed, (function, torch.Tensor, arguments)), "without a class"),
        ((function, arguments, (torch.rand(3).untyped_storage(), 0, (3,), (1,))), "replaces"),
    ):
        with pytest.raises(inrush.DataError, match=rf"model\.bin \[.*{reason}"):
            inrush.open(saved(tmp_path, {"a": Rebuilt(*what)}))


def test_views_whose_elements_overlap_are_refused(tmp_path):
    checkpoint = inrush.open(saved(tmp_path, {"a": torch.rand(9).unfold(0, 3, 1)}))
    with pytest.raises(inrush.DataError, match=r'"a".*elements overlap, in .*model\.bin'):
        checkpoint.load()


def test_what_torch_would_conjugate_or_negate_is_refused(tmp_path):
    value = torch.rand(3, dtype=torch.complex64)
    for lazy in (value.conj(), value.conj().imag, torch.nn.Parameter(value.conj())):
        with pytest.raises(inrush.DataError, match=r"model\.bin \[.*conjugated or negated"):
            inrush.open(saved(tmp_path, {"a": torch.rand(2), "lazy": lazy}))
    tensors = {"a": value.conj().resolve_conj(), "b": value.conj().imag.resolve_neg()}
    check(saved(tmp_path, tensors), tensors)


def test_an_old_pickle_and_foreign_zips_say_what_they_are(tmp_path):
    path = saved(tmp_path, {"a": torch.rand(2)}, _use_new_zipfile_serialization=False)
    with pytest.raises(inrush.DataError, match="pickle"):
        inrush.open(path)
    with zipfile.ZipFile(tmp_path / "x.bin", "w") as archive:
        archive.writestr("readme", "hello")
    with pytest.raises(inrush.DataError, match=r"no data\.pkl"):
        inrush.open(tmp_path / "x.bin")


def rebuilt(path: Path, change: dict[str, bytes], **options: object) -> Path:
    """The archive with other bytes for some entries, or without them."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    out = path.with_name("rebuilt.bin")
    with zipfile.ZipFile(out, "w", **options) as archive:
        for name, data in entries.items():
            replaced = change.get(name.partition("/")[2], data)
            if replaced is not None:
                archive.writestr(name, replaced)
    return out


def test_archives_that_contradict_themselves_are_refused(tmp_path):
    path = saved(tmp_path, {"a": torch.rand(64)})
    check(rebuilt(path, {}), torch.load(path))
    for change, options, reason in (
        ({"data/0": bytes(255)}, {}, "past the end of its storage"),
        ({"data/0": None}, {}, "not in the zip"),
        ({"byteorder": b"big"}, {}, "byte order"),
        ({}, {"compression": zipfile.ZIP_DEFLATED}, "compressed"),
    ):
        with pytest.raises(inrush.DataError, match=reason):
            inrush.open(rebuilt(path, change, **options))


def pickled(data: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("x/data.pkl", data)
    return out.getvalue()


def laughs() -> bytes:
    """A list of lists of lists, each ten times the one before: 10**12 values in 200 bytes."""
    value: list = ["x"]
    for _ in range(12):
        value = [value] * 10
    return pickle.dumps(value, protocol=2)


def ring() -> bytes:
    value: list = []
    value.append(value)
    return pickle.dumps(value, protocol=2)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "cut off"),
        (b".", "one value"),
        (b"\x80\x09.", "protocol 9"),
        (b"\x80\x02i", "opcode 0x69"),
        (b"\x80\x02R", "nothing to take"),
        (b"\x80\x02h\x05.", "kept"),
        (b"\x80\x02X\xff\xff\xff\xff", "cut off"),
        (b"\x80\x02\x8d" + b"\xff" * 8, "cut off"),
        (b"\x80\x02t.", "mark"),
        (b"\x80\x02K\x01K\x02s.", "stack|items"),
        (b"\x80\x02(" * 4 + b".", "one value|opcode"),
        (b"\x80\x02" + b"]" * 5 + b"a" * 2 + b".", "one value"),
        (laughs(), "16,777,216"),
        (ring(), "nested deeper"),
        (b"\x80\x02c" + b"a" * 2000 + b"\nb\n.", "1000 bytes"),
        (b"\x80\x02Q.", "nothing to take"),
    ],
)
def test_hostile_pickles_are_refused(tmp_path, data, reason):
    (tmp_path / "x.bin").write_bytes(pickled(data))
    with pytest.raises(inrush.DataError, match=reason):
        inrush.open(tmp_path / "x.bin")


def test_files_cut_anywhere_are_refused(tmp_path):
    data = saved(tmp_path, {"a": torch.rand(5), "b": torch.rand(2, 3)}).read_bytes()
    path = tmp_path / "cut.bin"
    for size in range(len(data)):
        path.write_bytes(data[:size])
        with pytest.raises(inrush.DataError, match=r"cut\.bin"):
            inrush.open(path)


def test_flipped_bytes_never_do_more_than_raise(tmp_path):
    data = bytearray(saved(tmp_path, {"a": torch.rand(5), "b": torch.rand(2, 3)}).read_bytes())
    path = tmp_path / "flipped.bin"
    for at in range(0, len(data), 3):
        data[at] ^= 0xFF
        path.write_bytes(data)
        try:
            inrush.open(path).load()
        except inrush.DataError as error:
            assert "flipped.bin" in str(error)
        data[at] ^= 0xFF


@pytest.mark.parametrize("key", [("a", 1), 1.5, None, b"x"])
def test_a_tensor_under_a_key_that_makes_no_name_is_refused_not_dropped(tmp_path, key):
    tensor = torch.rand(2)
    for value in ({key: tensor, "c": tensor}, {"m": [{key: [tensor]}]}):
        with pytest.raises(inrush.DataError, match="under a key that is neither text nor a number"):
            inrush.open(saved(tmp_path, value))
    check(saved(tmp_path, {key: 3, "c": tensor}), {"c": tensor})


def test_ways_that_join_to_one_name_are_two_tensors(tmp_path):
    a, b, c = torch.rand(1), torch.rand(2), torch.rand(3)
    check(saved(tmp_path, {"a": {"b": a}, "a.b": b}), {"a.b": b, '["a","b"]': a})
    check(saved(tmp_path, {"a": {"b.c": a, "b": {"c": b}}}), {"a.b.c": a, '["a","b","c"]': b})
    value = {"a": [a], "a.0": b, 'a"': {"é": c}, 'a".é': a}
    check(saved(tmp_path, value), {"a.0": b, '["a",0]': a, 'a".é': a, '["a\\"","é"]': c})
