"""Conversions to a disk that fails, lies, or is left while it works."""

from __future__ import annotations

import concurrent.futures
import os

import pytest
from conftest import random_tensor, write_file

import inrush


def nothing_left(folder):
    return not [path for path in folder.iterdir() if "partial" in path.name]


@pytest.mark.parametrize("resumed", [False, True], ids=["fresh", "resumed"])
def test_what_was_written_wrongly_is_found(tmp_path, monkeypatch, resumed):
    contents = {"a": random_tensor("U8", [3 << 20]), "b": random_tensor("U8", [5])}
    source = write_file(tmp_path / "m.safetensors", contents)
    target = tmp_path / "out.safetensors"
    from inrush import _destination

    if resumed:
        with monkeypatch.context() as patched:
            patched.setattr(_destination.Folder, "publish", _interrupted)
            with pytest.raises(KeyboardInterrupt):
                inrush.convert(source, target, to="safetensors")
    _damaging(monkeypatch)
    with pytest.raises(inrush.DataError, match=r"tensor .a. in .* is not what was written there"):
        inrush.convert(source, target, to="safetensors", resume=resumed)
    assert nothing_left(tmp_path)
    assert not target.exists()


def _damaging(monkeypatch):
    """What is written has a wrong bit when it is compared."""
    from inrush import _destination

    settling = _destination.Folder.settling

    def damage(self, ledger):
        with open(self.place, "r+b") as file:
            file.seek(-(1 << 20), os.SEEK_END)
            byte = file.read(1)[0]
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte ^ 1]))
        return settling(self, ledger)

    monkeypatch.setattr(_destination.Folder, "settling", damage)


def _interrupted(self):
    self._wait()
    raise KeyboardInterrupt


def _failing(monkeypatch):
    """The disk takes no more."""
    from inrush import _destination

    def fail(self, recorded):
        raise inrush.SourceError("fsync: No space left on device")

    monkeypatch.setattr(_destination.Folder, "_bring", fail)


def test_a_disk_that_fails_at_the_end_is_an_error(tmp_path, monkeypatch):
    source = write_file(tmp_path / "m.safetensors", {"a": random_tensor("F32", [5, 7])})
    _failing(monkeypatch)
    with pytest.raises(inrush.SourceError, match="No space left"):
        inrush.convert(source, tmp_path / "out.safetensors", to="safetensors")
    assert nothing_left(tmp_path)
    assert not (tmp_path / "out.safetensors").exists()


def test_a_disk_that_lost_what_it_took_is_named_and_what_was_kept_stays(tmp_path, monkeypatch):
    source = write_file(tmp_path / "m.safetensors", {"a": random_tensor("U8", [3 << 20])})
    target = tmp_path / "out.safetensors"
    from inrush import _destination

    with monkeypatch.context() as patched:
        patched.setattr(_destination.Folder, "publish", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            inrush.convert(source, target, to="safetensors")
    with monkeypatch.context() as patched:
        _failing(patched)
        _damaging(patched)
        with pytest.raises(inrush.SourceError, match="No space left"):
            inrush.convert(source, target, to="safetensors", resume=True)
    assert not nothing_left(tmp_path)


def test_ctrl_c_while_the_disk_is_waited_for_leaves_nothing_locked(tmp_path, monkeypatch):
    source = write_file(tmp_path / "m.safetensors", {"a": random_tensor("U8", [5])})
    target = tmp_path / "out.safetensors"
    from inrush import _destination

    with monkeypatch.context() as patched:
        waited = []

        class Disk(concurrent.futures.ThreadPoolExecutor):
            def shutdown(self, *args, **kwargs):
                super().shutdown(*args, **kwargs)
                waited.append(1)
                if len(waited) < 3:
                    raise KeyboardInterrupt

        patched.setattr(concurrent.futures, "ThreadPoolExecutor", Disk)
        patched.setattr(_destination.Folder, "publish", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            inrush.convert(source, target, to="safetensors")
        assert len(waited) == 3
    assert sorted(inrush.convert(source, target, to="safetensors", resume=True)) == ["a"]


def test_a_source_is_not_removed_with_what_was_left(tmp_path):
    contents = {"a": random_tensor("U8", [300])}
    partial = tmp_path / ".out.inrush-partial"
    partial.mkdir()
    source = write_file(partial / "model.safetensors", contents)
    for given in (source, partial):
        with pytest.raises(inrush.UsageError, match="move it first"):
            inrush.convert(given, tmp_path / "out", to="safetensors")
    assert bytes(inrush.open(source).load()["a"].as_bytes()) == contents["a"][2]


def test_folders_that_were_made_for_it_go_again_when_it_fails(tmp_path, monkeypatch):
    source = write_file(tmp_path / "m.safetensors", {"a": random_tensor("U8", [300])})
    target = tmp_path / "some" / "where" / "out.safetensors"
    with monkeypatch.context() as patched:
        _failing(patched)
        with pytest.raises(inrush.SourceError, match="No space left"):
            inrush.convert(source, target, to="safetensors")
    assert not (tmp_path / "some").exists()
    inrush.convert(source, target, to="safetensors")
    assert [path.name for path in target.parent.iterdir()] == ["out.safetensors"]


@pytest.mark.parametrize("link", [False, True])
def test_a_source_is_never_its_own_destination(tmp_path, link):
    source = write_file(tmp_path / "m.safetensors", {"a": random_tensor("U8", [300])})
    before, target = source.read_bytes(), source
    if link:
        target = tmp_path / "link.safetensors"
        target.symlink_to(source)
    with pytest.raises(inrush.UsageError, match="is there already"):
        inrush.convert(source, target, to="safetensors", dtype="F16")
    assert source.read_bytes() == before
    with pytest.raises(inrush.UsageError, match="NUL"):
        inrush.convert(source, "a\0b", to="safetensors")


def test_a_ledger_that_has_no_room_leaves_what_it_last_said(tmp_path, monkeypatch):
    """Tensors have their room from the beginning; the ledger takes it as it grows."""
    contents = {f"w{i}": random_tensor("U8", [1 << 16]) for i in range(20)}
    source, target = write_file(tmp_path / "m.safetensors", contents), tmp_path / "out.safetensors"
    from inrush import _convert, _destination

    monkeypatch.setattr(_convert, "_RECORD_EVERY", 0)
    bring, brought = _destination.Folder._bring, []

    def full(self, recorded):
        brought.append(recorded)
        if len(brought) > 7:
            raise inrush.SourceError("write: No space left on device")
        bring(self, recorded)

    with monkeypatch.context() as patched:
        patched.setattr(_destination.Folder, "_bring", full)
        with pytest.raises(inrush.SourceError, match="No space left"):
            inrush.convert(source, target, to="safetensors")
    write, sizes = _destination.Folder.write, []

    def counts(self, name, offset, data):
        sizes.append(len(data))
        write(self, name, offset, data)

    monkeypatch.setattr(_destination.Folder, "write", counts)
    inrush.convert(source, target, to="safetensors", resume=True)
    assert sizes.count(1 << 16) == len(contents) - 7
    found = inrush.open(target).load()
    assert {n: bytes(t.as_bytes()) for n, t in found.items()} == {
        n: data for n, (*_, data) in contents.items()
    }
    assert nothing_left(tmp_path)
