"""Credentials: whose they are, and for how long they are renewed."""

from __future__ import annotations

import gc
import time
from pathlib import Path

import pytest
from servers import Answers, answering

from inrush import SourceError, UsageError, _core, _storage
from inrush import open as open_checkpoint


class Recording(Answers):
    """Has nothing, and remembers how it was asked."""

    asked: list[dict[str, str]]

    def do_GET(self) -> None:
        self.asked.append({name.lower(): value for name, value in self.headers.items()})
        self.answer(404)

    do_HEAD = do_GET


@pytest.fixture
def profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Session credentials that botocore finds in a profile."""
    pytest.importorskip("botocore")
    file = tmp_path / "credentials"
    file.write_text(
        "[team]\naws_access_key_id = AKIDX\naws_secret_access_key = hidden\n"
        "aws_session_token = SESSIONX\n"
    )
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("AWS_PROFILE", "team")


@pytest.mark.usefixtures("profile")
def test_a_mirror_of_another_scheme_is_not_asked_with_the_credentials_of_s3() -> None:
    asked: list[dict[str, str]] = []
    with answering(type("Asked", (Recording,), {"asked": asked})) as url:
        places = [b"s3://bucket/model", url.encode() + b"/m.safetensors"]
        storage = _storage.storage_for(places, None)
        with pytest.raises(SourceError):
            _core.Checkpoint.open(places[1], storage, [])
    assert asked
    assert not [one for one in asked if "authorization" in one]
    assert "SESSIONX" not in str(asked)


@pytest.mark.usefixtures("profile")
def test_s3_itself_is_asked_with_them() -> None:
    asked: list[dict[str, str]] = []
    with answering(type("Asked", (Recording,), {"asked": asked})) as url:
        place = b"s3://bucket/model.safetensors"
        storage = _storage.storage_for([place, b"https://mirror/x"], {"endpoint": url})
        with pytest.raises(SourceError):
            _core.Checkpoint.open(place, storage, [])
    assert asked[0]["x-amz-security-token"] == "SESSIONX"
    assert "AKIDX" in asked[0]["authorization"]


def test_renewing_ends_when_nobody_signs_even_if_it_never_worked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_storage, "_RENEWAL", 0.01)
    renewer = _storage._Renewer()
    tries = []

    def now() -> tuple[str, str, str]:
        tries.append(1)
        raise OSError("expired")

    source, storage = _core.CredentialSource(), _core.StorageOptions()
    storage.take_credentials("s3", source)
    renewer.add(source, now)
    deadline = time.monotonic() + 30
    while not tries and time.monotonic() < deadline:
        time.sleep(0.01)
    assert tries
    del storage
    gc.collect()
    while renewer._renewed and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not renewer._renewed


@pytest.mark.parametrize("headers", [5, ["X-A: b"], {"X-A": "b\nX-C: d"}])
def test_headers_that_are_none_are_usage_errors(headers):
    with pytest.raises(UsageError, match="storage option headers"):
        open_checkpoint("http://127.0.0.1:9/x", storage_options={"headers": headers})
