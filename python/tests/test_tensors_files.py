"""`.tensors` files: those that tensorizer wrote and keeps with us, and those it writes here."""

from __future__ import annotations

import io
import itertools
import os
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest

import inrush

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "formats" / "golden"
HEAD = 0x49


def test_the_golden_module_is_read():
    checkpoint = inrush.open(GOLDEN / "v1_module.tensors", framework="np", verify="full")
    assert checkpoint.format == "tensorizer"
    loaded = checkpoint.load()
    np.testing.assert_array_equal(
        loaded["lin.weight"], np.arange(6, dtype=np.float32).reshape(2, 3)
    )
    assert loaded["lin.steps"] == 7
    assert loaded["lin.steps"].dtype == np.int64
    assert loaded["lin.tmp"].tolist() == [True, False]


def test_the_golden_bf16_and_meta_tensors_are_read():
    bf16 = inrush.open(GOLDEN / "v2_bf16.tensors", verify="crc").load()["x"]
    assert bf16.dtype == "BF16"
    assert bytes(bf16) == b"\x80\x3f\x00\xc0"
    checkpoint = inrush.open(GOLDEN / "v4_meta.tensors", verify="full", framework="np")
    assert checkpoint["m"].nbytes == 24
    loaded = checkpoint.load()
    np.testing.assert_array_equal(loaded["m"], np.zeros((2, 3), np.float32))
    assert loaded["x"].tolist() == [1.0, 2.0]
    assert checkpoint.tensor("m").tolist() == [[0, 0, 0], [0, 0, 0]]


def test_tensors_are_aligned_whatever_their_type_and_way(tmp_path):
    torch = pytest.importorskip("torch")
    from inrush.tensorizer import (
        DecryptionParams,
        EncryptionParams,
        TensorDeserializer,
        TensorSerializer,
    )

    key = bytes(range(32))
    types = (torch.complex128, torch.complex64, torch.complex32, torch.float64, torch.bfloat16)
    tensors = {
        "n" * i + str(dtype): torch.randint(0, 255, (64,), dtype=torch.uint8).view(dtype)
        for i in range(5)
        for dtype in types
    }
    for words, given in (
        ({}, {}),
        ({"encryption": EncryptionParams(key)}, {"encryption": DecryptionParams.from_key(key)}),
    ):
        serializer = TensorSerializer(str(tmp_path / "x.tensors"), **words)
        serializer.write_state_dict(tensors)
        serializer.close()
        for lazy in (False, True):
            with TensorDeserializer(
                tmp_path / "x.tensors", "cpu", lazy_load=lazy, **given
            ) as found:
                for name, tensor in tensors.items():
                    assert found[name].data_ptr() % tensor.element_size() == 0
                    assert found[name].dtype == tensor.dtype
        words = {"encryption": key} if given else {}
        for copy in (None, False):
            for name, tensor in inrush.open(tmp_path / "x.tensors", copy=copy, **words).tensors():
                assert tensor.data_ptr % tensors[name].element_size() == 0


@pytest.mark.parametrize("size", [1 << 10, 3 << 20])
def test_zeros_that_no_file_holds_are_zeros_in_any_memory(tmp_path, size):
    data = golden_with_shape(tmp_path, size)
    out = np.full(size, 7, np.float32)
    inrush.open(data, out={"m": out}, include="m").load()
    assert not out.any()
    assert not np.asarray(inrush.open(data, framework="np").load()["m"]).any()


def golden_with_shape(tmp_path: Path, count: int) -> Path:
    """The meta tensor with another shape, in the index and in its record."""
    data = (GOLDEN / "v4_meta.tensors").read_bytes()
    shape = struct.pack("<BII", 2, 2, 3)
    assert data.count(shape) == 2
    path = tmp_path / "m.tensors"
    path.write_bytes(data.replace(shape, struct.pack("<BII", 2, 1, count)))
    return path


def opened(path: Path, **options: object) -> inrush.Checkpoint:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return inrush.open(path, **options)


def test_the_golden_passphrase_opens_it(tmp_path):
    path = GOLDEN / "v3_pwhash.tensors"
    (tmp_path / "phrase").write_text("test\n")
    (tmp_path / "key").write_text(
        "185d9543e6945bb30c6ecb2d1ac58a388ddfe954c34cf395a4fa12f986897662\n"
    )
    for encryption in (
        inrush.Key(passphrase="test"),
        f"passphrase-file:{tmp_path / 'phrase'}",
        f"file:{tmp_path / 'key'}",
        f"exec:cat {tmp_path / 'key'}",
        bytes.fromhex((tmp_path / "key").read_text()),
    ):
        with pytest.warns(UserWarning, match="does not cover"):
            loaded = inrush.open(path, framework="np", encryption=encryption, verify="full").load()
        assert loaded["x"].tolist() == list(range(8))
        assert loaded["x"].dtype == np.int32


def test_without_the_right_key_nothing_is_delivered():
    path = GOLDEN / "v3_pwhash.tensors"
    assert inrush.open(path)["x"].encoding == "secretbox"
    for encryption, error, reason in (
        (None, inrush.UsageError, "no key was given"),
        (os.urandom(32), inrush.DataError, "the key is wrong"),
        (inrush.Key(passphrase="tesT"), inrush.DataError, "the key is wrong"),
    ):
        with pytest.raises(error, match=reason), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            inrush.open(path, encryption=encryption).load()
        with pytest.raises(error, match=reason), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            inrush.open(path, encryption=encryption).tensor("x")
    with pytest.raises(inrush.UsageError, match="not encrypted"):
        opened(GOLDEN / "v2_bf16.tensors", encryption=bytes(32)).load()
    with pytest.raises(inrush.UsageError, match="expected 32 bytes"):
        inrush.open(path, encryption="hunter2")
    with pytest.raises(inrush.UsageError, match="31 bytes"):
        inrush.open(path, encryption=bytes(31))


def test_the_command_line_takes_keys_from_files(tmp_path, inrush_command):
    path = GOLDEN / "v3_pwhash.tensors"
    (tmp_path / "phrase").write_text("test")
    done = inrush_command("load", path, "--passphrase-file", tmp_path / "phrase", "--verify=full")
    assert done.returncode == 0, done.stderr
    done = inrush_command("load", path)
    assert done.returncode == 2
    assert "no key" in done.stderr
    (tmp_path / "key").write_bytes(bytes(32))
    done = inrush_command("load", path, INRUSH_KEY_FILE=str(tmp_path / "key"))
    assert done.returncode == 1
    assert "key is wrong" in done.stderr
    done = inrush_command("inspect", path, "--key-file", tmp_path / "key")
    assert done.returncode == 1
    assert "key is wrong" in done.stderr
    assert inrush_command("inspect", path, "--passphrase-file", tmp_path / "phrase").returncode == 0


def test_what_a_file_asks_of_memory_and_time_to_derive_its_key_is_limited(tmp_path):
    data = (GOLDEN / "v3_pwhash.tensors").read_bytes()
    cost = struct.pack("<QQ", 1, 8192)
    assert data.count(cost) == 1
    for operations, memory in ((2**32 - 1, 8192), (1, 2**42)):
        path = tmp_path / "x.tensors"
        path.write_bytes(data.replace(cost, struct.pack("<QQ", operations, memory)))
        with pytest.raises(inrush.UsageError, match="over the limits"):
            opened(path, encryption=inrush.Key(passphrase="test")).load()


def test_whoever_trusts_the_file_raises_the_limits_of_the_key_s_cost(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    tensorizer = pytest.importorskip("tensorizer")
    given = tensorizer.EncryptionParams.from_string("open", 17, 8192)
    path = written(tmp_path / "x.tensors", {"a": torch.ones(3)}, encryption=given)
    with pytest.raises(inrush.UsageError, match="INRUSH_KEY_OPERATIONS"):
        opened(path, encryption=inrush.Key(passphrase="open")).load()
    with pytest.raises(inrush.UsageError, match="limits of 17 and 1024"):
        key = inrush.Key(passphrase="open", most_operations=17, most_memory=1024)
        opened(path, encryption=key).load()
    for key in (inrush.Key(passphrase="open", most_operations=17), inrush.Key(passphrase="open")):
        loaded = opened(path, encryption=key, framework="np").load()
        assert loaded["a"].tolist() == [1, 1, 1]
        monkeypatch.setenv("INRUSH_KEY_OPERATIONS", "17")
        monkeypatch.setenv("INRUSH_KEY_MEMORY", "1MiB")
    monkeypatch.setenv("INRUSH_KEY_OPERATIONS", "many")
    with pytest.raises(inrush.UsageError, match="INRUSH_KEY_OPERATIONS 'many'"):
        opened(path, encryption=inrush.Key(passphrase="open")).load()


def test_a_format_without_checksums_says_so(every_dtype):
    path, _ = every_dtype
    with pytest.raises(inrush.UsageError, match="no checksums of its own"):
        inrush.open(path, verify="full").load()


@pytest.mark.parametrize("name", ["v1_module", "v2_bf16", "v3_pwhash", "v4_meta"])
def test_files_cut_anywhere_are_refused(tmp_path, name):
    data = (GOLDEN / f"{name}.tensors").read_bytes()
    path = tmp_path / "cut.tensors"
    index = inrush.open(GOLDEN / f"{name}.tensors")
    last = max(
        info.offset + (info.nbytes if info.encoding != "zeros" else 0) for info in index.values()
    )
    sizes = [*range(512), *range(HEAD + 262144 - 8, last)]
    for size in sizes:
        path.write_bytes(data[:size])
        with pytest.raises(inrush.DataError, match=r"cut\.tensors"):
            inrush.open(path)


@pytest.mark.parametrize("name", ["v1_module", "v2_bf16", "v4_meta"])
def test_flipped_bits_of_records_are_detected_and_name_the_tensor(tmp_path, name):
    golden = GOLDEN / f"{name}.tensors"
    data = bytearray(golden.read_bytes())
    expected = {name: bytes(tensor) for name, tensor in inrush.open(golden).load().items()}
    path = tmp_path / "flipped.tensors"
    for at in range(HEAD + 262144, len(data) - 8):
        data[at] ^= 1 << at % 8
        path.write_bytes(data)
        try:
            loaded = inrush.open(path, verify="full").load()
        except inrush.DataError as error:
            assert "tensor " in str(error)
        else:  # the module's number, in a header: covered, so never here
            assert {name: bytes(tensor) for name, tensor in loaded.items()} == expected
            raise AssertionError(f"byte {at} is not covered")
        data[at] ^= 1 << at % 8


def test_flipped_bits_of_encrypted_bytes_are_refused(tmp_path):
    golden = GOLDEN / "v3_pwhash.tensors"
    data = bytearray(golden.read_bytes())
    path = tmp_path / "flipped.tensors"
    key = bytes.fromhex("185d9543e6945bb30c6ecb2d1ac58a388ddfe954c34cf395a4fa12f986897662")
    for at in range(len(data) - 40, len(data) - 8):
        data[at] ^= 0x10
        path.write_bytes(data)
        with pytest.raises(inrush.DataError, match='tensor "x"'):
            opened(path, encryption=key).load()
        data[at] ^= 0x10


def changed(tmp_path: Path, name: str, at: int, replaced: bytes) -> Path:
    data = bytearray((GOLDEN / f"{name}.tensors").read_bytes())
    data[at : at + len(replaced)] = replaced
    path = tmp_path / "changed.tensors"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("at", "bytes_there", "reason"),
    [
        (0x05, struct.pack("<I", 0), "version 0"),
        (0x05, struct.pack("<I", 6), "version 6"),
        (0x09, b"\x04", "flags"),
        (0x28, b"\x01", "flags"),
        (0x39, struct.pack("<Q", 0), "no tensors"),
        (0x39, struct.pack("<Q", 2**63), "without a name|cut off"),
        (0x41, struct.pack("<Q", 2**63), "past the end"),
        (0x41, struct.pack("<Q", 20), "cut off"),
        (0x49, struct.pack("<H", 0), "without a name"),
        (0x49, struct.pack("<H", 0xFFFF), "cut off|not valid|not known"),
        (0x4B, b"\xff", "UTF-8"),
        (0x4C, b"\x05", "kind 5"),
        (0x4D, b"\x03", "not known|cut off"),
        (0x4E, b">", "not known"),
    ],
)
def test_hostile_heads_are_refused(tmp_path, at, bytes_there, reason):
    with pytest.raises(inrush.DataError, match=reason):
        inrush.open(changed(tmp_path, "v2_bf16", at, bytes_there))


torch = pytest.importorskip("torch")
tensorizer = pytest.importorskip("tensorizer", reason="tensorizer writes the files")


DTYPES = [
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16,
    torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.uint16, torch.uint32,
    torch.uint64, torch.float8_e4m3fn, torch.float8_e5m2,
]  # fmt: skip


def state() -> dict[str, object]:
    tensors: dict[str, object] = {}
    for dtype in DTYPES:
        size = torch.empty(0, dtype=dtype).element_size()
        raw = torch.randint(0, 2 if dtype == torch.bool else 256, (15 * size,), dtype=torch.uint8)
        tensors[str(dtype)] = raw.view(dtype).reshape(3, 5)
    tensors["scalar"] = torch.tensor(1.5)
    tensors["large"] = torch.rand(3, 1 << 19)
    tensors["turned"] = torch.rand(4, 7).T
    return tensors


def written(path: Path, tensors: object, **options: object) -> Path:
    serializer = tensorizer.TensorSerializer(str(path), **options)
    serializer.write_state_dict(tensors)
    serializer.close()
    return path


def check(path: Path, tensors: dict[str, object], **options: object) -> None:
    loaded = opened(path, framework="pt", **options).load()
    assert set(loaded) == set(tensors)
    for name, tensor in tensors.items():
        here = loaded[name]
        assert here.dtype == tensor.dtype
        assert here.shape == tensor.shape
        expected = tensor.contiguous().reshape(-1).view(torch.uint8)
        assert torch.equal(here.contiguous().reshape(-1).view(torch.uint8), expected), name


@pytest.mark.parametrize("verify", ["none", "crc", "full"])
def test_what_tensorizer_writes_is_read(tmp_path, verify):
    tensors = state()
    check(written(tmp_path / "x.tensors", tensors), tensors, verify=verify)


@pytest.mark.parametrize("backend", ["uring", "pread_buffered", "aio", "mmap"])
def test_any_backend_decrypts_and_verifies(tmp_path, backend):
    tensors = state()
    params = tensorizer.EncryptionParams.random()
    path = written(tmp_path / "x.tensors", tensors, encryption=params)
    for verify in ("none", "crc", "full"):
        check(path, tensors, encryption=params.key, verify=verify, backend=backend)


def test_long_dimensions_make_version_5(tmp_path):
    tensors = {"a": torch.rand(3), "L": torch.empty(2**32 + 5, 0, dtype=torch.uint8)}
    path = written(tmp_path / "x.tensors", tensors)
    data = bytearray(path.read_bytes())
    assert (data[5], data[9]) == (5, 2)
    check(path, tensors, verify="full")
    data[9] = 0  # as before the release: no flag says that the lines have tags
    path.write_bytes(data)
    check(path, tensors, verify="full")


def test_a_meta_tensor_in_an_encrypted_file_is_zeros(tmp_path):
    key = bytes(range(32))
    tensors = {"m": torch.empty(2, 3, device="meta"), "x": torch.arange(8, dtype=torch.int32)}
    params = tensorizer.EncryptionParams(key)
    path = written(tmp_path / "x.tensors", tensors, encryption=params)
    assert path.read_bytes()[5] == 4
    check(path, {**tensors, "m": torch.zeros(2, 3)}, encryption=key, verify="full")


def test_nested_structures_are_named_by_their_way(tmp_path):
    nested = {"a": [torch.rand(2), {"b é": torch.rand(1)}], "c": torch.rand(3)}
    path = written(tmp_path / "x.tensors", nested)
    flat = {"a.0": nested["a"][0], "a.1.b é": nested["a"][1]["b é"], "c": nested["c"]}
    check(path, flat, verify="full")


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        ([("a.b",), ("a", "b")], ["a.b", '["a","b"]']),
        ([("a", "b"), ("a.b",)], ['["a","b"]', "a.b"]),
        ([("a.0",), ("a", 0)], ["a.0", '["a",0]']),
        ([("a", "b.c"), ("a", "b", "c")], ["a.b.c", '["a","b","c"]']),
    ],
)
def test_paths_that_join_to_one_name_are_two_tensors(tmp_path, paths, names):
    from inrush.tensorizer import TensorDeserializer

    state = {}
    for i, way in enumerate(paths):
        below = state
        for part, following in itertools.pairwise(way):
            below = below.setdefault(part, [] if following == 0 else {})
        if way[-1] == 0:
            below.append(torch.rand(i + 1))
        else:
            below[way[-1]] = torch.rand(i + 1)
    serializer = tensorizer.TensorSerializer(str(tmp_path / "x"))
    serializer.write_state_dict(state)
    serializer.close()
    loaded = inrush.open(tmp_path / "x", verify="full", framework="pt").load()
    assert sorted(loaded) == sorted(names)
    for lazy in (False, True):
        for place in (tmp_path / "x", io.BytesIO((tmp_path / "x").read_bytes())):
            tree = TensorDeserializer(place, device="cpu", lazy_load=lazy, verify_hash=True)
            for way, name in zip(paths, names, strict=True):
                tensor = tree
                for part in way:
                    tensor = tensor[part]
                assert torch.equal(tensor, loaded[name])


def test_parameters_of_the_module_itself_have_the_names_that_it_knows(tmp_path):
    def module():
        made = torch.nn.Module()
        made.cls_token = torch.nn.Parameter(torch.rand(3))
        made.head = torch.nn.Linear(2, 3)
        return made

    written = module()
    serializer = tensorizer.TensorSerializer(str(tmp_path / "x"))
    serializer.write_module(written)
    serializer.close()
    assert set(inrush.open(tmp_path / "x")) == set(written.state_dict())
    filled = module()
    inrush.torch.load_into(filled, tmp_path / "x")
    for name, tensor in written.state_dict().items():
        assert torch.equal(filled.state_dict()[name], tensor)


def test_a_module_and_a_state_dict_in_one_file_keep_their_names_apart(tmp_path):
    module = torch.nn.Module()
    module.w = torch.nn.Parameter(torch.rand(3))
    serializer = tensorizer.TensorSerializer(str(tmp_path / "x"))
    serializer.write_module(module)
    serializer.write_state_dict({"w": torch.rand(2)})
    serializer.close()
    shapes = {name: info.shape for name, info in inrush.open(tmp_path / "x").items()}
    assert shapes == {".w": (3,), "w": (2,)}


def test_it_is_known_by_its_content(tmp_path):
    tensors = {"a": torch.rand(3)}
    check(written(tmp_path / "model.safetensors", tensors), tensors)
