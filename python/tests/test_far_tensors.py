"""Single tensors of far places: each is one request, on connections that are kept."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Contents, random_tensor
from hostile import Misbehaving, misbehaving
from test_http_trouble import file_of

import inrush

COUNT = 40
FEW = 4  # connections: of opening it, of the engine, and some to spare


@pytest.fixture(autouse=True)
def no_hedges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests are counted: a busy machine's silence is to bring no second ones."""
    monkeypatch.setenv("INRUSH_STORAGE_OPTIONS", "hedge=100")


@pytest.fixture
def contents() -> Contents:
    return {f"t{i:02}": random_tensor("U8", [20_000 + i]) for i in range(COUNT)}


@pytest.fixture
def server(contents: Contents) -> Iterator[Misbehaving]:
    with misbehaving({"m.safetensors": file_of(contents)}) as state:
        yield state


def shuffled(contents: Contents) -> list[str]:
    names = list(contents)
    random.Random(7).shuffle(names)
    return names


def test_safe_open_asks_once_for_each_tensor(server: Misbehaving, contents: Contents) -> None:
    with inrush.safe_open(server.url + "/serves/m.safetensors", None) as opened:
        assert server.asked["serves"] == 1
        for name in shuffled(contents):
            tensor = opened.get_tensor(name)
            assert bytes(memoryview(tensor).cast("B")) == contents[name][2]
    assert server.asked["serves"] == 1 + COUNT
    assert server.connections <= FEW


def test_slices_ask_for_their_bytes_only(server: Misbehaving, contents: Contents) -> None:
    with inrush.safe_open(server.url + "/serves/m.safetensors", None) as opened:
        for name in shuffled(contents):
            part = opened.get_slice(name)[1000:1100]
            assert bytes(memoryview(part).cast("B")) == contents[name][2][1000:1100]
    asked = [headers["Range"] for headers in server.headers[1:]]
    sizes = [int(last) - int(first) + 1 for first, last in (one[6:].split("-") for one in asked)]
    assert len(sizes) == COUNT
    assert max(sizes) <= 8192
    assert server.connections <= FEW


def test_loads_one_after_the_other_share_connections(
    server: Misbehaving, contents: Contents
) -> None:
    with inrush.open(server.url + "/serves/m.safetensors") as checkpoint:
        for name in shuffled(contents):
            with checkpoint.start(include=[name], framework=None) as job:
                dict(iter(job))
            assert job.stats()["reads"] == 1
    assert server.connections <= FEW


def test_a_lazy_deserializer_asks_once_for_each_tensor(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from inrush.tensorizer import TensorDeserializer, TensorSerializer

    state = {f"t{i:02}": torch.randn(50, 50 + i) for i in range(COUNT)}
    path = tmp_path / "m.tensors"
    serializer = TensorSerializer(path)
    serializer.write_state_dict(state)
    serializer.close()
    with misbehaving({"m.tensors": path.read_bytes()}) as server:
        url = server.url + "/serves/m.tensors"
        with TensorDeserializer(url, device="cpu", lazy_load=True) as lazy:
            opening = server.asked["serves"]
            names = list(state)
            random.Random(7).shuffle(names)
            for name in names:
                assert torch.equal(lazy[name], state[name])
        assert server.asked["serves"] == opening + COUNT
        # As a stream, and as a checkpoint: what they begin with is not asked for again.
        assert opening == 2
        assert server.connections <= FEW + 2


def test_connections_that_the_server_closed_meanwhile_are_made_anew(
    server: Misbehaving, contents: Contents
) -> None:
    with inrush.open(server.url + "/serves/m.safetensors") as checkpoint:
        for name in ("t00", "t01", "t02"):
            tensor = checkpoint.tensor(name)
            assert bytes(memoryview(tensor).cast("B")) == contents[name][2]
            server.hang_up()


def test_connections_end_with_the_checkpoint(server: Misbehaving, contents: Contents) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with inrush.open(server.url + "/serves/m.safetensors") as checkpoint:
        checkpoint.load()
        assert bytes(memoryview(checkpoint.tensor("t03")).cast("B")) == contents["t03"][2]
        assert len(os.listdir("/proc/self/fd")) > before
    deadline = time.monotonic() + 30
    while len(os.listdir("/proc/self/fd")) > before:
        assert time.monotonic() < deadline
        time.sleep(0.02)
