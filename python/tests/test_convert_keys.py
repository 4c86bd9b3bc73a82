"""Conversions of what is encrypted, and into it."""

from __future__ import annotations

import os
import warnings

import pytest
from test_convert import check, nothing_left, source

import inrush

__all__ = ["source"]


def test_the_sources_key_is_asked_for_once(tmp_path, source):
    path, tensors = source
    inrush.convert(path, tmp_path / "a.tensors", to="tensorizer", encrypt=bytes(32))
    (tmp_path / "hex").write_text("00" * 32)
    command = f"exec:echo asked >> {tmp_path}/count; cat {tmp_path}/hex"
    inrush.convert(tmp_path / "a.tensors", tmp_path / "b", to="safetensors", encryption=command)
    assert (tmp_path / "count").read_text().count("asked") == 1
    check(tmp_path / "b", tensors)


def test_a_missing_key_costs_no_work_that_is_resumed(tmp_path, source, monkeypatch):
    from inrush import _convert, _destination

    path, tensors = source
    inrush.convert(path, tmp_path / "a.tensors", to="tensorizer", encrypt=bytes(32))
    write, written = _destination.Folder.write, []

    def fails_later(self, name, offset, data):
        written.append(name)
        if len(written) > 6:
            raise inrush.SourceError("no space left")
        write(self, name, offset, data)

    monkeypatch.setattr(_convert, "_RECORD_EVERY", 0)
    words = {"to": "safetensors", "encryption": bytes(32)}
    with monkeypatch.context() as patched:
        patched.setattr(_destination.Folder, "write", fails_later)
        with pytest.raises(inrush.SourceError, match="no space"):
            inrush.convert(tmp_path / "a.tensors", tmp_path / "b", **words)
    kept = (tmp_path / ".b.inrush-partial" / ".ledger").read_text()
    assert "digest" in kept
    with pytest.raises(inrush.UsageError, match="key"):
        inrush.convert(tmp_path / "a.tensors", tmp_path / "b", to="safetensors", resume=True)
    assert (tmp_path / ".b.inrush-partial" / ".ledger").read_text() == kept
    inrush.convert(tmp_path / "a.tensors", tmp_path / "b", resume=True, **words)
    check(tmp_path / "b", tensors)


def test_encrypted_there_and_back(tmp_path, source):
    path, tensors = source
    key = os.urandom(32)
    (tmp_path / "phrase").write_text("open sesame")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inrush.convert(path, tmp_path / "a.tensors", to="tensorizer", encrypt=key)
        with pytest.raises(inrush.UsageError, match="no key"):
            inrush.convert(tmp_path / "a.tensors", tmp_path / "b", to="safetensors")
        again = inrush.Key(passphrase="open sesame")
        inrush.convert(
            tmp_path / "a.tensors", tmp_path / "b.tensors", to="tensorizer", encryption=key,
            encrypt=again, verify="full",
        )  # fmt: skip
        inrush.convert(
            tmp_path / "b.tensors", tmp_path / "c", to="safetensors",
            encryption=f"passphrase-file:{tmp_path / 'phrase'}",
        )  # fmt: skip
    check(tmp_path / "b.tensors", tensors, encryption=again, verify="full")
    check(tmp_path / "c", tensors)
    large = tensors["large"][2][:64]
    assert large not in (tmp_path / "a.tensors").read_bytes()


def test_flags_say_what_is_meant_with_the_keys(tmp_path, source, inrush_command):
    path, tensors = source
    keys = []
    for name in ("first", "second"):
        (tmp_path / name).write_bytes(os.urandom(32))
        keys.append(tmp_path / name)
    secret, again, third, plain = (tmp_path / f"{i}.tensors" for i in range(4))
    to = ("--to", "tensorizer")
    prints = [f"cat '{key}'" for key in keys]
    steps = [
        (path, secret, *to, "--encrypt", "--key-file", keys[0]),
        (secret, again, *to, "--rekey", "--key-file", keys[0], "--encrypt-key-file", keys[1]),
        (
            again,
            third,
            *to,
            "--rekey",
            "--key-command",
            prints[1],
            "--encrypt-key-command",
            prints[0],
        ),
        (again, plain, *to, "--decrypt", "--key-file", keys[1]),
    ]
    for step in steps:
        done = inrush_command("convert", *step)
        assert done.returncode == 0, done.stderr
    check(again, tensors, encryption=f"file:{keys[1]}")
    check(third, tensors, encryption=f"file:{keys[0]}")
    check(plain, tensors)
    twice = ("--encrypt", "--encrypt-key-file", keys[0], "--encrypt-key-command", "true")
    contradictions = [
        ("--encrypt",),
        ("--rekey", "--key-file", keys[0]),
        ("--encrypt", "--decrypt"),
    ]
    for words in [*contradictions, twice]:
        done = inrush_command("convert", path, tmp_path / "none", *to, *words)
        assert done.returncode == 2, done.stderr


def test_warnings_are_one_line_without_our_source(tmp_path, source, inrush_command):
    key = tmp_path / "key"
    key.write_bytes(os.urandom(32))
    inrush.convert(source[0], tmp_path / "a.tensors", to="tensorizer", encrypt=f"file:{key}")
    done = inrush_command("load", tmp_path / "a.tensors", "--key-file", key)
    assert done.returncode == 0
    assert done.stderr.startswith("inrush: warning: tensorizer's encryption does not cover names")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("shard_size", [None, "1MB"])
@pytest.mark.parametrize("passphrase", [False, True])
def test_safetensors_are_sealed_and_opened_again(tmp_path, source, shard_size, passphrase):
    path, tensors = source
    key = inrush.Key(passphrase="words") if passphrase else inrush.Key(os.urandom(32))
    digests = inrush.convert(
        path, tmp_path / "sealed", to="safetensors", encrypt=key, shard_size=shard_size
    )
    checkpoint = check(tmp_path / "sealed", tensors, encryption=key)
    assert checkpoint.format == "sealed" and checkpoint.metadata == {"format": "pt"}
    assert (len(checkpoint.files) > 1) is (shard_size is not None)
    large = tensors["large"][2]
    for name, _ in checkpoint.files:
        assert large[:32] not in (tmp_path / "sealed" / name).read_bytes()
    with pytest.raises(inrush.UsageError, match="no key"):
        inrush.open(tmp_path / "sealed").load()
    again = inrush.convert(
        tmp_path / "sealed", tmp_path / "y.safetensors", to="safetensors", encryption=key
    )
    assert again == digests
    check(tmp_path / "y.safetensors", tensors)
    assert nothing_left(tmp_path)
