"""`inrush load --out`: where it goes, and what is found wrong before anything is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Command, Contents
from test_s3 import client_of, moto, nothing_of_the_users, words  # noqa: F401

import inrush


def as_text(storage: dict[str, str]) -> str:
    return ";".join(f"{name}={value}" for name, value in storage.items())


@pytest.fixture
def broken(sharded: tuple[Path, Contents]) -> Path:
    """A folder that cannot be opened: whoever is told something else did not try."""
    shard = sharded[0] / "model-00001-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])
    return sharded[0]


@pytest.mark.parametrize(
    ("out", "code", "text"),
    [
        ("/no/such/x.safetensors", 3, "/no/such"),
        ("{folder}", 3, "no regular file"),
        ("{folder}/", 2, "no name of a file"),
        ("hf://org/model/x.safetensors", 2, "upload_file"),
        ("https://host/x.safetensors", 2, "nothing can be saved to this kind of place"),
        ("s3://", 2, "s3://"),
        ("gopher://x", 2, "gopher"),
    ],
)
def test_a_bad_place_is_told_before_the_load(
    inrush_command: Command, broken: Path, out: str, code: int, text: str
) -> None:
    done = inrush_command("load", broken, "--out", out.format(folder=broken))
    assert done.returncode == code, done.stderr
    assert text in done.stderr
    assert "model-00001" not in done.stderr


def test_storage_options_are_of_the_place_that_is_far(
    inrush_command: Command,
    sharded: tuple[Path, Contents],
    tmp_path: Path,
    moto: str,  # noqa: F811
) -> None:
    folder, contents = sharded
    client_of(moto).create_bucket(Bucket="loaded")
    options = words(moto)
    flags = ["--storage-options", as_text(options)]
    place = "s3://loaded/all.safetensors"
    done = inrush_command("load", folder, "--out", place, *flags)
    assert done.returncode == 0, done.stderr
    with inrush.open(place, storage_options=options) as checkpoint:
        assert {n: bytes(t.as_bytes()) for n, t in checkpoint.load().items()} == {
            name: data for name, (_, _, data) in contents.items()
        }
    for there in ("s3://loaded/again.safetensors", tmp_path / "here.safetensors"):
        done = inrush_command("load", place, "--out", there, *flags)
        assert done.returncode == 0, done.stderr
    here = (tmp_path / "here.safetensors").read_bytes()
    for key in ("all.safetensors", "again.safetensors"):
        assert client_of(moto).get_object(Bucket="loaded", Key=key)["Body"].read() == here
    done = inrush_command("load", folder, "--out", tmp_path / "x.safetensors", *flags)
    assert done.returncode == 2
    assert "of no use" in done.stderr
