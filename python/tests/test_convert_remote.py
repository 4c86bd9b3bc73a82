"""`inrush.convert` from and to S3 and Redis, each a real server on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import inrush.numpy
import numpy
import pytest
from test_redis import Server, server  # noqa: F401
from test_s3 import client_of, moto, nothing_of_the_users, words  # noqa: F401

import inrush

if TYPE_CHECKING:
    from pathlib import Path

KEY = bytes(range(32))


@pytest.fixture
def model(tmp_path: Path) -> tuple[Path, dict[str, bytes]]:
    random = numpy.random.default_rng(5)
    arrays = {f"layer.{i}": random.random((60_000 + 7 * i,)).astype("f4") for i in range(9)}
    arrays["large"] = random.random((5_000_001,)).astype("f4")
    arrays["none"] = numpy.zeros((0, 3), "f4")
    arrays["bytes"] = random.integers(0, 255, 301, "u1")
    inrush.numpy.save_file(arrays, tmp_path / "model.safetensors", {"a": "b"})
    return tmp_path / "model.safetensors", {n: a.tobytes() for n, a in arrays.items()}


def contents(place: str, **options: Any) -> dict[str, bytes]:
    with inrush.open(place, **options) as checkpoint:
        return {name: bytes(tensor.as_bytes()) for name, tensor in checkpoint.load().items()}


@pytest.fixture
def bucket(moto: str, request: pytest.FixtureRequest) -> tuple[str, str]:  # noqa: F811
    name = f"b{abs(hash(request.node.name)) % 10**9}"
    client_of(moto).create_bucket(Bucket=name)
    return moto, f"s3://{name}"


@pytest.mark.parametrize(
    "case",
    [
        ("safetensors", "model.safetensors", {}),
        ("safetensors", "folder", {"shard_size": 5_000_000}),
        ("tensorizer", "m.tensors", {}),
        ("serverlessllm", "served/", {"ranks": 2}),
    ],
)
def test_a_conversion_goes_to_a_bucket_and_comes_back(
    model: tuple[Path, dict[str, bytes]],
    bucket: tuple[str, str],
    tmp_path: Path,
    case: tuple[str, str, dict[str, Any]],
) -> None:
    path, tensors = model
    to, name, options = case
    endpoint, root = bucket
    place, storage = f"{root}/models/{name}", words(endpoint)
    digests = inrush.convert(path, place, to=to, storage_options=storage, **options)
    with pytest.raises(inrush.UsageError, match="is there already"):
        inrush.convert(path, place, to=to, storage_options=storage, **options)
    ranked = "ranks" in options
    parts = [f"{place}rank_{i}/" for i in range(2)] if ranked else [place]
    found: dict[str, bytes] = {}
    for part in parts:
        found |= contents(part, storage_options=storage)
    assert found == tensors
    if ranked:
        whole = contents(place, storage_options=storage)
        assert {name.partition("/")[2]: data for name, data in whole.items()} == tensors
    assert len(digests) == len(tensors)
    if not ranked:
        local = tmp_path / f"local-{name}"
        inrush.convert(path, local, to=to, **options)
        client = client_of(endpoint)
        listed = client.list_objects_v2(Bucket=root[5:])["Contents"]
        for one in listed:
            file = local if local.is_file() else local / one["Key"].rpartition("/")[2]
            body = client.get_object(Bucket=root[5:], Key=one["Key"])["Body"].read()
            assert body == file.read_bytes()
        back = tmp_path / "back.safetensors"
        inrush.convert(place, back, to="safetensors", storage_options=storage)
        assert contents(str(back)) == tensors


def test_what_fails_leaves_nothing_in_a_bucket(
    model: tuple[Path, dict[str, bytes]], bucket: tuple[str, str]
) -> None:
    path, _ = model
    endpoint, root = bucket
    size = path.stat().st_size
    with open(path, "r+b") as file:
        file.truncate(size - 10)
    with pytest.raises(inrush.DataError):
        inrush.convert(path, f"{root}/a/", to="safetensors", storage_options=words(endpoint))
    assert "Contents" not in client_of(endpoint).list_objects_v2(Bucket=root[5:])
    with open(path, "r+b") as file:
        file.truncate(size)
    for more, match in (
        ({"resume": True}, "cannot be resumed"),
        ({"encrypt": KEY}, "header of a sealed file"),
    ):
        with pytest.raises(inrush.UsageError, match=match):
            inrush.convert(
                path, f"{root}/a/", to="safetensors", storage_options=words(endpoint), **more
            )
    assert "Contents" not in client_of(endpoint).list_objects_v2(Bucket=root[5:])


@pytest.mark.parametrize("to", ["safetensors", "serverlessllm"])
def test_a_place_that_has_a_checkpoint_is_left_alone(
    model: tuple[Path, dict[str, bytes]], bucket: tuple[str, str], to: str
) -> None:
    """Also as another format or in other files: what is there would hide what is written."""
    path, tensors = model
    endpoint, root = bucket
    place, storage = f"{root}/m/", words(endpoint)
    inrush.convert(path, place, to="safetensors", shard_size=5_000_000, storage_options=storage)
    listed = client_of(endpoint).list_objects_v2(Bucket=root[5:])["Contents"]
    for source in (str(path), place):
        with pytest.raises(inrush.UsageError, match="a checkpoint is there already"):
            inrush.convert(source, place, to=to, storage_options=storage)
    now = client_of(endpoint).list_objects_v2(Bucket=root[5:])["Contents"]
    assert [one["Key"] for one in now] == [one["Key"] for one in listed]
    assert contents(place, storage_options=storage) == tensors


def test_what_is_compared_is_what_was_written(
    model: tuple[Path, dict[str, bytes]], bucket: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from inrush import _destination

    path, _ = model
    endpoint, root = bucket
    place, storage = f"{root}/m/", words(endpoint)
    inrush.convert(path, place, to="safetensors", shard_size=5_000_000, storage_options=storage)
    monkeypatch.setattr(_destination, "_has_checkpoint", lambda *_: False)  # it comes meanwhile
    with pytest.raises(inrush.DataError, match="opened as other files than were written"):
        inrush.convert(path, place, to="serverlessllm", storage_options=storage)


@pytest.mark.parametrize("to", ["safetensors", "tensorizer"])
@pytest.mark.filterwarnings("ignore:tensorizer.s encryption")
@pytest.mark.parametrize("encrypt", [None, KEY])
def test_a_conversion_goes_to_keys_and_comes_back(
    model: tuple[Path, dict[str, bytes]],
    server: Server,  # noqa: F811
    to: str,
    encrypt: bytes | None,
) -> None:
    path, tensors = model
    name = "m.safetensors" if to == "safetensors" else "m.tensors"
    place = server.base + name
    inrush.convert(path, place, to=to, encrypt=encrypt)
    assert contents(place, encryption=encrypt) == tensors
