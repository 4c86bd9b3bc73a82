"""The Hub's odder sides: renamed and gated repositories, mirrors under a path, caches by others."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import NAME, REQUEST_ID, SHARD, TOKEN, Model
from test_hub import accepted, inrush_command, loaded, model, refusal

huggingface_hub = pytest.importorskip("huggingface_hub")

__all__ = ["model"]

OLD = "before/model.v0"


def snapshot(model: Model) -> Path:
    return model.folder / "snapshots" / model.commit


@pytest.mark.parametrize("kept", [True, False])
def test_a_renamed_repository_is_found_and_kept_by_the_name_that_was_asked(
    model: Model, kept: bool
) -> None:
    model.hub.moved = {OLD: NAME}
    words = {} if kept else {"storage_options": {"cache": False}}
    assert loaded(f"hf://{OLD}", **words) == model.expected
    # The token went along: it is the same Hub.
    assert {token for _, path, token in model.hub.requests if NAME in path} == {TOKEN}
    if not kept:
        return
    folder = huggingface_hub.snapshot_download(OLD, cache_dir=model.cache, local_files_only=True)
    assert (Path(folder) / SHARD.format(1)).read_bytes() == model.files[SHARD.format(1)]
    assert not huggingface_hub.scan_cache_dir(model.cache).warnings
    model.hub.forget()
    assert loaded(f"hf://{OLD}") == model.expected
    assert model.hub.sent == 0


def test_a_hub_that_moved_elsewhere_is_shown_no_token_there(model: Model) -> None:
    from servers import Answers, answering

    asked: list[dict[str, str]] = []

    class Elsewhere(Answers):
        def do_GET(self) -> None:
            asked.append({name.lower(): value for name, value in self.headers.items()})
            self.answer(404)

        do_HEAD = do_GET

    with answering(Elsewhere) as url:
        model.hub.elsewhere = url
        text = refusal(f"hf://{NAME}")
        assert "404" in text
    assert asked
    assert not [one for one in asked if "authorization" in one]


def test_an_endpoint_may_have_a_path(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    model.hub.below = "/mirrors/hf"
    monkeypatch.setenv("HF_ENDPOINT", model.hub.url + "/mirrors/hf/")
    assert loaded(NAME) == model.expected
    assert accepted(model) == snapshot(model)
    assert all(path.startswith("/mirrors/hf/") for _, path, _ in model.hub.requests)


@pytest.mark.parametrize("token", ["hf_stranger", ""])
def test_who_has_no_access_is_told_where_to_ask_for_it(
    model: Model, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    model.hub.add("org/gated", model.files, token="hf_other", gated=True)
    monkeypatch.setenv("HF_TOKEN", token)
    text = refusal("hf://org/gated")
    assert f"access must be asked for at {model.hub.url}/org/gated" in text
    assert ("a token was sent" if token else "no token was sent: HF_TOKEN") in text
    assert "hf_stranger" not in text
    assert REQUEST_ID in text
    done = inrush_command("load", "hf://org/gated")
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1


def test_a_snapshot_that_lacks_a_file_is_filled_up(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert loaded(NAME) == model.expected
    link = snapshot(model) / SHARD.format(2)
    blob = link.resolve()
    # Offline what is there is read, and what is not is named.
    link.unlink()
    with monkeypatch.context() as offline:
        offline.setenv("HF_HUB_OFFLINE", "1")
        text = refusal(NAME, Exception)
        assert SHARD.format(2) in text
        one = loaded(f"hf://{NAME}/{SHARD.format(1)}")
        assert one.keys() == {name for name in model.expected if name.startswith("t1")}
    # The blob is still there: nothing comes twice.
    model.hub.forget()
    assert loaded(NAME) == model.expected
    assert model.hub.sent == 0
    # A link to nothing; a blob that was cut off.
    for damage in (blob.unlink, lambda: os.truncate(blob, 1000)):
        damage()
        assert loaded(NAME) == model.expected
        accepted(model)


def test_files_that_are_known_not_to_exist_are_no_files(model: Model) -> None:
    assert loaded(NAME) == model.expected
    absent = model.folder / ".no_exist" / model.commit
    absent.mkdir(parents=True)
    for name in ("model.safetensors", "adapter_config.json", SHARD.format(1)):
        (absent / name).touch()
    assert loaded(NAME) == model.expected
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        assert loaded(NAME) == model.expected
    finally:
        del os.environ["HF_HUB_OFFLINE"]
    accepted(model)


def test_a_cache_of_copies_without_links_is_read(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As huggingface_hub makes them where symbolic links cannot be made."""
    assert loaded(NAME) == model.expected
    for link in list(snapshot(model).iterdir()):
        content = link.read_bytes()
        link.unlink()
        link.write_bytes(content)
    shutil.rmtree(model.folder / "blobs")
    model.hub.forget()
    assert loaded(NAME) == model.expected
    assert model.hub.sent == 0
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert loaded(NAME) == model.expected


def test_where_links_may_not_be_made_files_are_written_as_huggingface_hub_does(
    model: Model,
) -> None:
    done = inrush_command("load", NAME, HF_HUB_DISABLE_SYMLINKS="1")
    assert done.returncode == 0, done.stderr
    for shard in (1, 2):
        file = snapshot(model) / SHARD.format(shard)
        assert not file.is_symlink()
        assert file.read_bytes() == model.files[file.name]
    assert not huggingface_hub.scan_cache_dir(model.cache).warnings
    found = huggingface_hub.snapshot_download(NAME, cache_dir=model.cache, local_files_only=True)
    assert found == str(snapshot(model))


@pytest.mark.parametrize("word", ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"])
def test_the_folder_of_the_cache_wins_over_the_home(
    model: Model, tmp_path: Path, word: str
) -> None:
    code = f"import inrush\nwith inrush.open({NAME!r}) as c: c.load(); c.confirm()"
    env = {**os.environ, word: str(tmp_path / "other")}
    assert subprocess.run([sys.executable, "-c", code], env=env).returncode == 0
    assert not model.cache.exists()
    info = huggingface_hub.scan_cache_dir(tmp_path / "other")
    assert [repo.repo_id for repo in info.repos] == [NAME]


@pytest.mark.parametrize("token", ["bad\ntoken", " ", "hf_\u00fcml\u00e4ut"])
def test_a_token_that_is_none_is_one_error_or_none_is_sent(
    model: Model, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    text = refusal(f"hf://{NAME}")
    assert token.strip() not in text or not token.strip()
    assert not [one for _, _, one in model.hub.requests if "token" in one and "\n" in one]
