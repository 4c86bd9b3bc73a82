"""Checkpoints on a good HTTP server."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Contents
from servers import nginx

import inrush


def check(loaded: dict[str, inrush.Tensor], contents: Contents) -> None:
    """Every tensor is there, with its bytes."""
    assert sorted(loaded) == sorted(contents)
    for name, (_, _, data) in contents.items():
        assert bytes(memoryview(loaded[name]).cast("B")) == data, name


@pytest.fixture
def served(sharded: tuple[Path, Contents], tmp_path: Path) -> Iterator[tuple[str, Contents]]:
    folder, contents = sharded
    with nginx(folder.parent, tmp_path / "nginx") as port:
        yield f"http://127.0.0.1:{port}/{folder.name}", contents


def test_a_folder_is_known_by_its_index(served: tuple[str, Contents]) -> None:
    url, contents = served
    with inrush.open(url + "/") as checkpoint:
        check(checkpoint.load(), contents)
        assert checkpoint.uri == url + "/"


def test_the_index_file_and_single_files_open_too(served: tuple[str, Contents]) -> None:
    url, contents = served
    check(inrush.open(url + "/model.safetensors.index.json").load(), contents)
    shards = [f"{url}/model-{shard:05}-of-00002.safetensors" for shard in (1, 2)]
    check(inrush.open(shards).load(), contents)
    assert len(inrush.open(shards[0])) == len(contents) // 2


def test_the_choice_is_the_stores_engine_and_says_why(served: tuple[str, Contents]) -> None:
    with inrush.open(served[0] + "/").start() as job:
        dict(iter(job))
        stats = job.stats()
    assert stats["choice"] == "http"
    assert "a remote place" in stats["why"]


def test_parts_of_tensors_are_read_alone(served: tuple[str, Contents]) -> None:
    url, contents = served
    name = "model.layers.0.up.weight"
    part = inrush.open(url + "/").tensor(name, slice(10, 20))
    assert bytes(memoryview(part).cast("B")) == contents[name][2][10 * 512 : 20 * 512]


def test_what_is_not_there_is_one_error(served: tuple[str, Contents]) -> None:
    with pytest.raises(inrush.SourceError, match=r"open http://.*/no\.safetensors: 404 Not Found"):
        inrush.open(served[0] + "/no.safetensors")
    with pytest.raises(inrush.SourceError, match="none of the usual files"):
        inrush.open(served[0] + "/nowhere/")
