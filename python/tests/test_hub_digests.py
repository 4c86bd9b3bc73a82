"""Digests of the Hub that are found wrong only after a load has ended."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from pathlib import Path

import pytest
from conftest import random_tensor, write_file
from hub_server import NAME, TOKEN, Model, sha256
from test_hub import inrush_command, model

import inrush

__all__ = ["model"]


@pytest.fixture
def large(model: Model) -> Path:
    """One file of a wrong repository, whose digest cannot be begun before nearly all is there."""
    contents = {"w": random_tensor("U8", [96 << 20])}
    write_file(path := model.home.parent / "made" / "model.safetensors", contents)
    model.hub.add(NAME, {"model.safetensors": path.read_bytes()}, token=TOKEN)
    model.hub.corrupt = model.hub.first_last = True
    return path


WRONG = r"read hf://org/model\.v1@main/model\.safetensors: its SHA-256 is \w{64}, not \w{64}"
PATIENT = {"hedge": 50, "timeout": 100}


def test_wrong_bytes_that_are_known_late_are_told(
    model: Model, large: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = inrush.open(NAME, storage_options=PATIENT)
    with contextlib.suppress(inrush.DataError):  # only where the digest was faster than this load
        checkpoint.load()
    with pytest.raises(inrush.DataError, match=WRONG) as caught:
        checkpoint.confirm()
    digest = sha256(large.read_bytes())
    assert f"not {digest}" in str(caught.value)
    assert not list(model.folder.glob("blobs/*"))
    # Whoever does not ask reads it in the log, where it can be known only after the load.
    deadline = time.monotonic() + 60
    while not caplog.records and threads_of_digests():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for record in caplog.records:
        assert record.levelname == "ERROR"
        assert digest in record.getMessage()
    # Nor does the same object give them once more.
    with pytest.raises(inrush.DataError, match=WRONG):
        checkpoint.load()
    model.hub.corrupt = model.hub.first_last = False
    again = bytes(memoryview(inrush.open(NAME).load()["w"]).cast("B"))
    assert again == large.read_bytes()[-len(again) :]


def test_functions_that_return_all_of_it_return_nothing_wrong(model: Model, large: Path) -> None:
    torch = pytest.importorskip("torch")
    import inrush.numpy
    import inrush.torch

    net = torch.nn.Module()
    net.w = torch.nn.Parameter(torch.zeros(96 << 20, dtype=torch.uint8), requires_grad=False)
    for load in (
        lambda: inrush.numpy.load_file(NAME, storage_options=PATIENT),
        lambda: inrush.torch.load_file(NAME, storage_options=PATIENT),
        lambda: inrush.torch.load_into(net, NAME, storage_options=PATIENT),
        lambda: inrush.torch.load_into(net, NAME, assign=True, storage_options=PATIENT),
    ):
        model.hub.sent = 0
        with pytest.raises(inrush.DataError, match=WRONG):
            load()
    model.hub.corrupt = model.hub.first_last = False
    loaded = inrush.torch.load_file(NAME)["w"].numpy().tobytes()
    assert loaded == large.read_bytes()[-len(loaded) :]


def test_what_came_with_wrong_bytes_is_not_gone_on_with(model: Model) -> None:
    model.hub.corrupt = True
    with inrush.open(NAME) as checkpoint:
        # All of the first shard, and of the second what does not make it whole.
        with pytest.raises(inrush.DataError, match="SHA-256"):
            checkpoint.load(include=["t1.*", "t2.1"])
            checkpoint.confirm()
        assert not list(model.folder.glob("blobs/*incomplete"))
    model.hub.corrupt = False
    loaded = inrush.open(NAME).load()
    assert {name: bytes(one.as_bytes()) for name, one in loaded.items()} == model.expected


def threads_of_digests() -> bool:
    return any(thread.name == "inrush-digests" for thread in threading.enumerate())


@pytest.mark.parametrize(
    "words",
    [
        ["load"],
        ["verify"],
        ["cache", "prefetch"],
        ["convert", "--to", "serverlessllm", "out"],
    ],
)
def test_commands_wait_for_the_digest(model: Model, large: Path, words: list[str]) -> None:
    command = words[:2] if words[0] == "cache" else words[:1]
    options = [] if command == ["cache", "prefetch"] else ["--storage-options", "hedge=50"]
    rest = words[len(command) :]
    at = [NAME, *rest] if words[0] != "convert" else [NAME, rest[-1], *rest[:-1]]
    done = inrush_command(*command, *at, *options, INRUSH_STORAGE_OPTIONS="hedge=50")
    assert done.returncode == 1, done.stderr
    assert re.search(WRONG, done.stderr)
    assert done.stderr.count("SHA-256") == 1
    assert not Path("out").exists()
    assert not list(model.folder.glob("blobs/*"))
