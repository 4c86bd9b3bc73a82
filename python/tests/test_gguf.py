"""GGUF files that the gguf package writes."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import inrush

safetensors = pytest.importorskip("safetensors")
gguf = pytest.importorskip("gguf", reason="the gguf package writes the files")


@pytest.fixture
def model(tmp_path: Path) -> tuple[Path, dict[str, np.ndarray]]:
    draw = np.random.default_rng(1)
    plain = {
        "f32": draw.random((3, 5), dtype=np.float32),
        "f16": draw.random((7,)).astype(np.float16),
        "i8": draw.integers(-99, 99, (4, 3), dtype=np.int8),
        "i64": draw.integers(-99, 99, (2, 2, 2), dtype=np.int64),
    }
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_context_length(4096)
    writer.add_name("tiny")
    writer.add_token_list([f"token{i}" for i in range(1000)])
    writer.add_rope_freq_base(10000.5)
    for name, array in plain.items():
        writer.add_tensor(name, array)
    weights = draw.random((4, 512), dtype=np.float32)
    for kind in (gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.Q4_0):
        quantised = gguf.quants.quantize(weights, kind)
        plain[kind.name] = quantised
        writer.add_tensor(kind.name, quantised, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tmp_path / "m.gguf", plain


def test_tensors_and_metadata_are_read(model):
    path, arrays = model
    checkpoint = inrush.open(path)
    assert checkpoint.format == "gguf"
    assert set(checkpoint) == set(arrays)
    loaded = checkpoint.load(framework="np")
    for name, array in arrays.items():
        assert loaded[name].tobytes() == array.tobytes(), name
        assert loaded[name].shape == array.shape
    assert checkpoint["f32"].encoding == ""
    assert checkpoint["Q8_0"].encoding == "q8_0"
    assert checkpoint["Q8_0"].dtype == "U8"
    assert checkpoint["Q8_0"].shape == (4, 512 // 32 * 34)
    metadata = checkpoint.metadata
    assert metadata["general.architecture"] == "llama"
    assert metadata["general.name"] == "tiny"
    assert metadata["llama.context_length"] == "4096"
    assert metadata["llama.rope.freq_base"] == "10000.5"
    assert metadata["tokenizer.ggml.tokens"] == "[1000 values]"


# gguf counts 40 bytes for a block, llama.cpp itself 36 (block_q8_1).
KINDS = [kind for kind in gguf.GGMLQuantizationType if kind.name != "Q8_1"]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_type_that_gguf_knows_is_read(tmp_path, kind):
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = np.random.default_rng(2).integers(0, 255, (3, 2 * size), dtype=np.uint8)
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_tensor("w", blocks, raw_dtype=kind, raw_shape=blocks.shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    theirs = gguf.GGUFReader(tmp_path / "m.gguf").tensors[0]
    assert theirs.n_elements == 3 * 2 * elements
    found = inrush.open(tmp_path / "m.gguf", framework="np")["w"]
    loaded = inrush.open(tmp_path / "m.gguf").load()["w"]
    assert found.encoding == ("" if elements == 1 else kind.name.lower())
    assert bytes(memoryview(loaded.as_bytes())) == theirs.data.tobytes() == blocks.tobytes()


def test_quantised_tensors_are_read_whole_only(model):
    path, _ = model
    with pytest.raises(inrush.UsageError, match="whole"):
        inrush.open(path).tensor("Q8_0", slice(0, 1))


def test_what_is_not_quantised_is_repacked_as_safetensors(model, tmp_path):
    path, arrays = model
    with pytest.raises(inrush.UsageError, match="'Q8_0'"):
        inrush.convert(path, tmp_path / "x", to="safetensors")
    inrush.convert(path, tmp_path / "x", to="safetensors", exclude="Q*")
    loaded = inrush.open(tmp_path / "x", framework="np").load()
    assert set(loaded) == {name for name in arrays if not name.startswith("Q")}
    for name, array in loaded.items():
        np.testing.assert_array_equal(array, arrays[name])


def written(path: Path, add: Callable[[gguf.GGUFWriter], object]) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    add(writer)
    writer.add_tensor("w", np.random.default_rng(3).random((3, 5), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_metadata_goes_along_into_safetensors(tmp_path):
    def add(writer: gguf.GGUFWriter) -> None:
        writer.add_name('a "quoted" näme')
        writer.add_file_type(0)
        writer.add_custom_alignment(64)
        writer.add_quantization_version(2)
        writer.add_uint16("split.count", 1)
        writer.add_bool("llama.flag", val=True)
        writer.add_float64("llama.scale", 0.1)
        writer.add_int64("llama.least", -(2**63))
        writer.add_uint64("llama.most", 2**64 - 1)
        writer.add_string("literal", "plain")
        writer.add_tags(["text", 'with "quotes"', "ü"])
        writer.add_head_count_kv([4, 8, 8, 4])
        writer.add_array("rope.scales", [0.5, 1.25])
        writer.add_array("bound", list(range(512)))
        writer.add_array("over", list(range(513)))
        writer.add_array("raw", [b"\xff\xfe", b"x"])
        writer.add_token_list([f"t{i}" for i in range(32000)])
        writer.add_chat_template("{{ messages }}" * 4000)
        writer.add_string("huge", "x" * 70_000)

    path = written(tmp_path / "m.gguf", add)
    shown = inrush.open(path).metadata
    assert shown["over"] == "[513 values]"
    assert shown["raw"] == "[2 values]"
    assert shown["huge"] == "[70000 bytes]"
    assert shown["tokenizer.ggml.tokens"] == "[32000 values]"
    inrush.convert(path, tmp_path / "m.safetensors", to="safetensors")
    with safetensors.safe_open(tmp_path / "m.safetensors", "np") as file:
        metadata = file.metadata()
        theirs = gguf.GGUFReader(path).tensors[0].data
        np.testing.assert_array_equal(file.get_tensor("w"), theirs)
    assert metadata.pop("tokenizer.chat_template") == "{{ messages }}" * 4000
    assert json.loads(metadata.pop("general.tags")) == ["text", 'with "quotes"', "ü"]
    assert json.loads(metadata.pop("rope.scales")) == [0.5, 1.25]
    assert json.loads(metadata.pop("bound")) == list(range(512))
    assert metadata == {
        "format": "pt",
        "general.architecture": "llama",
        "general.name": 'a "quoted" näme',
        "literal": "plain",
        "llama.flag": "true",
        "llama.scale": "0.1",
        "llama.least": str(-(2**63)),
        "llama.most": str(2**64 - 1),
        "llama.attention.head_count_kv": "[4,8,8,4]",
    }


def test_it_is_known_by_its_content_in_a_folder_too(model):
    path, arrays = model
    path.rename(path.with_name("blob"))
    assert set(inrush.open(path.parent)) == set(arrays)


def test_files_cut_anywhere_are_refused(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "s.gguf", "llama")
    writer.add_token_list(["a", "b"])
    writer.add_tensor("w", np.ones((2, 3), np.float32))
    writer.add_tensor("v", np.ones((5,), np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    data = (tmp_path / "s.gguf").read_bytes()
    end = inrush.open(tmp_path / "s.gguf")["v"].offset + 10
    path = tmp_path / "cut.gguf"
    for size in range(end):
        path.write_bytes(data[:size])
        with pytest.raises(inrush.DataError, match=r"cut\.gguf"):
            inrush.open(path)
    path.write_bytes(data[:end])  # padding behind the last tensor may be missing
    assert len(inrush.open(path)) == 2


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def tensor(name: str, shape: list[int], kind: int, offset: int) -> bytes:
    dims = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return text(name) + dims + struct.pack("<IQ", kind, offset)


def file(tensors: list[bytes], metadata: list[bytes] = [], version: int = 3) -> bytes:  # noqa: B006
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(metadata))
    head += b"".join(metadata) + b"".join(tensors)
    return head + bytes(-len(head) % 32) + bytes(64)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (file([], version=1), "version 1"),
        (file([], version=0x03000000), "big-endian"),
        (file([tensor("a", [4], 99, 0)]), "type 99"),
        (file([tensor("a", [4] * 5, 0, 0)]), "5 dimensions"),
        (file([tensor("a", [2**62, 2**62], 0, 0)]), "overflows"),
        (file([tensor("a", [33], 8, 0)]), "whole blocks"),
        (file([tensor("a", [4], 0, 8)]), "no multiple of 32"),
        (file([tensor("a", [4], 0, 64)]), "past the end"),
        (file([tensor("a", [4], 0, 2**64 - 32)]), "past the end"),
        (file([tensor("a", [4], 0, 0), tensor("a", [4], 0, 32)]), "twice"),
        (file([tensor("a", [9], 0, 0), tensor("b", [4], 0, 32)]), "overlap"),
        (file([], [text("general.alignment") + struct.pack("<II", 4, 33)]), "alignment"),
        (file([], [text("general.alignment") + struct.pack("<II", 4, 0)]), "alignment"),
        (file([], [text("k") + struct.pack("<I", 77)]), "type 77"),
        (file([], [text("k") + struct.pack("<IB", 0, 1)] * 2), "twice"),
        (file([], [text("k") + struct.pack("<IIQ", 9, 10, 2**62)]), "cut off"),
        (file([], [text("k") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 9]), "nested"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**63, 2**63), "cut off"),
    ],
)
def test_hostile_headers_are_refused(tmp_path, data, reason):
    (tmp_path / "x.gguf").write_bytes(data)
    with pytest.raises(inrush.DataError, match=reason):
        inrush.open(tmp_path / "x.gguf")
