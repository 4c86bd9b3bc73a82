"""The CRC-32s that torch.save writes into its archives, compared while tensors are read."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path

import pytest

import inrush

torch = pytest.importorskip("torch")


def checkpoint_of() -> dict[str, torch.Tensor]:
    """Whole storages, and parts and views of shared ones."""
    flat = torch.rand(5000)
    table = torch.rand(40, 30)
    tied = torch.rand(64, 8, dtype=torch.float64)
    return {
        "whole": torch.randint(0, 256, (3000,), dtype=torch.uint8),
        "embed": tied,
        "head": tied,
        "flat.0": flat[:1000].view(10, 100),
        "flat.1": flat[1000:4000],
        "flat.2": flat[900:1100],
        "transposed": table.T,
        "stepped": table[::3, 1::2],
        "none": flat[:0],
        "scalar": torch.tensor(2.5),
    }


def saved(path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    torch.save(tensors, path)
    return path


def right(path: object, tensors: dict[str, torch.Tensor], **options: object) -> bool:
    found = inrush.open(path, framework="pt", **options).load()
    return set(found) == set(tensors) and all(
        torch.equal(found[name], tensor) for name, tensor in tensors.items()
    )


def entries_of(path: Path) -> list[tuple[str, int, int]]:
    """Name, offset and size of what the archive holds, as zipfile sees it."""
    data = path.read_bytes()
    found = []
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            lengths = [
                int.from_bytes(data[info.header_offset + at :][:2], "little") for at in (26, 28)
            ]
            start = info.header_offset + 30 + sum(lengths)
            assert data[start : start + info.file_size] == archive.read(info)
            found.append((info.filename, start, info.file_size))
    return found


def flip(path: Path, at: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(data)


@pytest.mark.parametrize("verify", ["crc", "full"])
@pytest.mark.parametrize("backend", [None, "uring", "pread", "mmap"])
def test_sound_files_are_loaded(tmp_path, verify, backend):
    tensors = checkpoint_of()
    path = saved(tmp_path / "model.bin", tensors)
    assert right(path, tensors, verify=verify, backend=backend)
    one = inrush.open(path, framework="pt", verify=verify).tensor("transposed")
    assert torch.equal(one, tensors["transposed"])


@pytest.mark.parametrize("verify", ["crc", "full"])
def test_a_flipped_bit_anywhere_in_an_entry_is_found(tmp_path, verify):
    tensors = checkpoint_of()
    path = saved(tmp_path / "model.bin", tensors)
    for name, start, size in entries_of(path):
        for at in {start, start + size // 2, start + size - 1}:
            flip(path, at, at % 8)
            with pytest.raises(inrush.DataError, match=r"model\.bin") as error:
                inrush.open(path, verify=verify).load()
            text = str(error.value)
            assert re.search(r"model\.bin \[\d+, \+\d+\)", text)
            if "/data/" in name:
                assert re.search(r"CRC-32 is [0-9a-f]{8}, but [0-9a-f]{8} is expected", text)
                assert "tensor " in text or f'storage "{name}"' in text
                assert f"[{start}, +{size})" in text
            flip(path, at, at % 8)
    assert right(path, tensors, verify=verify)


def test_a_tensor_is_not_delivered_before_its_whole_storage_was_checked(tmp_path):
    path = saved(tmp_path / "model.bin", checkpoint_of())
    (start,) = {start for name, start, _ in entries_of(path) if name.endswith("/data/2")}
    flip(path, start + 4 * 4500)  # behind all tensors that are parts of it
    assert len(inrush.open(path).load()) == 10
    for name in ("flat.0", "flat.1", "flat.2"):
        with pytest.raises(inrush.DataError, match="storage"):
            inrush.open(path, verify="crc").tensor(name)
    assert inrush.open(path, verify="crc").tensor("embed").nbytes == 64 * 8 * 8


def test_every_bit_matters_or_changes_nothing(tmp_path):
    tensors = {"a": torch.rand(5), "b": torch.rand(2, 3), "t": torch.rand(3, 2).T}
    path = saved(tmp_path / "model.bin", tensors)
    data = path.read_bytes()
    for at in range(0, len(data), 7):
        flip(path, at, at % 8)
        try:
            assert right(path, tensors, verify="crc"), at
        except inrush.DataError as error:
            assert "model.bin" in str(error), at
        path.write_bytes(data)


def test_the_command_names_tensor_file_and_range(inrush_command, tmp_path):
    tensors = checkpoint_of()
    path = saved(tmp_path / "model.bin", tensors)
    done = inrush_command("verify", path)
    assert done.returncode == 0
    assert "all checksums agree" in done.stdout
    answer = json.loads(inrush_command("verify", path, "--json").stdout)
    assert answer["ok"] is True
    assert answer["checksums"] is True
    start, size = next((at, size) for name, at, size in entries_of(path) if "/data/0" in name)
    flip(path, start + 1234, 5)
    done = inrush_command("verify", path)
    assert done.returncode == 1
    assert f'model.bin [{start}, +{size}): tensor "whole": its CRC-32 is' in done.stderr
    assert inrush_command("load", path, "--verify", "crc").returncode == 1
    assert inrush_command("verify", path, "--verify", "none").returncode == 0
    assert inrush_command("verify", path, INRUSH_VERIFY="none").returncode == 0
    done = inrush_command("convert", path, tmp_path / "out", "--to", "safetensors", "--verify=crc")
    assert done.returncode == 1
    assert {one.name for one in tmp_path.iterdir()} == {"model.bin"}


def test_the_command_checks_what_no_tensor_is_made_of(inrush_command, tmp_path):
    marked = torch.rand(100)
    marked.kept = torch.rand(3000)
    tensors = {"none": torch.rand(500)[:0], "marked": marked, "view": torch.rand(9, 9)[3:5, 1:3]}
    path = saved(tmp_path / "model.bin", tensors)
    for name, start, size in entries_of(path):
        flip(path, start + size // 2)
        done = inrush_command("verify", path)
        assert done.returncode == 1, name
        assert f"model.bin [{start}, +{size}): " in done.stderr
        assert "/data/" not in name or "CRC-32 is" in done.stderr
        flip(path, start + size // 2)
    assert inrush_command("verify", path).returncode == 0
    assert right(path, {name: tensor.clone() for name, tensor in tensors.items()}, verify="full")


def test_the_command_checks_what_tensorizer_wrote_too(inrush_command, tmp_path):
    from inrush.tensorizer import TensorSerializer

    value = torch.rand(1000)
    serializer = TensorSerializer(str(tmp_path / "x.tensors"))
    serializer.write_state_dict({"w": value})
    serializer.close()
    assert "all checksums agree" in inrush_command("verify", tmp_path / "x.tensors").stdout
    at = (tmp_path / "x.tensors").read_bytes().index(value.numpy().tobytes())
    flip(tmp_path / "x.tensors", at + 77)
    done = inrush_command("verify", tmp_path / "x.tensors")
    assert done.returncode == 1
    assert "x.tensors [" in done.stderr
    assert 'tensor "w"' in done.stderr


def test_files_saved_without_checksums_say_so(inrush_command, tmp_path):
    torch.serialization.set_crc32_options(compute_crc32=False)
    try:
        path = saved(tmp_path / "model.bin", {"a": torch.rand(9)})
    finally:
        torch.serialization.set_crc32_options(compute_crc32=True)
    with pytest.raises(inrush.DataError, match=r"model\.bin \[0, \+\d+\): .*without CRC-32"):
        inrush.open(path, verify="crc").load()
    done = inrush_command("verify", path)
    assert done.returncode == 0
    assert "structure is sound" in done.stdout


def test_shards_are_checked_each_by_its_own(tmp_path):
    tensors = [{"a": torch.rand(3000)}, {"b": torch.rand(70, 70).T}]
    names = [f"pytorch_model-0000{i}-of-00002.bin" for i in (1, 2)]
    for name, each in zip(names, tensors, strict=True):
        saved(tmp_path / name, each)
    index = {"weight_map": {"a": names[0], "b": names[1]}}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    assert right(tmp_path, {**tensors[0], **tensors[1]}, verify="crc")
    for name in names:
        start = next(at for entry, at, _ in entries_of(tmp_path / name) if "/data/0" in entry)
        flip(tmp_path / name, start)
        with pytest.raises(inrush.DataError, match=re.escape(name)):
            inrush.open(tmp_path, verify="crc").load()
        flip(tmp_path / name, start)


def test_entries_that_share_bytes_are_refused(tmp_path):
    """As a zip bomb is made: many entries over the same bytes."""
    path = saved(tmp_path / "model.bin", {"a": torch.rand(500), "b": torch.rand(500)})
    data = bytearray(path.read_bytes())
    offsets = {}
    at = data.index(b"PK\x01\x02")
    while data[at : at + 4] == b"PK\x01\x02":
        name, extra, comment = (
            int.from_bytes(data[at + each : at + each + 2], "little") for each in (28, 30, 32)
        )
        offsets[bytes(data[at + 46 : at + 46 + name])] = at
        at += 46 + name + extra + comment
    first, second = (at for name, at in offsets.items() if b"/data/" in name)
    data[second + 42 : second + 46] = data[first + 42 : first + 46]
    path.write_bytes(data)
    with pytest.raises(inrush.DataError, match=r"model\.bin \[.*/data/.*reaches into the next"):
        inrush.open(path)


def test_a_storage_much_larger_than_its_view_can_be_cancelled(tmp_path):
    path = saved(tmp_path / "model.bin", {"a": torch.rand(1 << 24)[5:10]})
    with inrush.open(path, verify="crc").start() as job:
        job.cancel()
    with inrush.open(path, verify="crc", framework="pt") as checkpoint:
        assert checkpoint.load()["a"].shape == (5,)
