"""s3cmd's file, which tensorizer's users have: what of it counts, and when."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import Answers, answering
from test_s3 import nothing_of_the_users

import inrush

__all__ = ["nothing_of_the_users"]

Asked = list[tuple[str, str, dict[str, str]]]


class Recording(Answers):
    """Has nothing, and remembers what it was asked for: host, path, headers."""

    asked: Asked

    def do_GET(self) -> None:
        self.asked.append((self.headers["Host"], self.path, dict(self.headers)))
        self.answer(404)

    do_HEAD = do_GET


@pytest.fixture
def asked() -> Iterator[tuple[str, Asked]]:
    state: Asked = []
    with answering(type("Asked", (Recording,), {"asked": state})) as url:
        yield url, state


def refused(**options: Any) -> str:
    with pytest.raises(inrush.SourceError) as caught:
        inrush.open("s3://box/x.safetensors", storage_options=options)
    return str(caught.value)


def key_of(headers: dict[str, str]) -> str:
    return headers["Authorization"].partition("Credential=")[2].partition("/")[0]


@pytest.mark.parametrize("https", ["False", "false", "no", "off", "0"])
@pytest.mark.parametrize(
    "form",
    [
        "[default]\naccess_key = {key}\nsecret_key = a/b+c=#;d\nhost_base = {host}\n",
        "\ufeff[default]\r\naccess_key={key}\r\nsecret_key=x\r\nhost_base={host}\r\n",
        '[other]\naccess_key = no\n[default]\n  access_key = "{key}"\n  secret_key = "x"\n'
        "# host_base = 127.0.0.1:9\n  host_base = {host}\n",
    ],
)
def test_its_keys_are_shown_to_its_host(
    asked: tuple[str, Asked], tmp_path: Path, https: str, form: str
) -> None:
    host = asked[0].removeprefix("http://")
    text = form.format(key="AKIDCFG", host=host) + f"use_https = {https}\n"
    (tmp_path / ".s3cfg").write_bytes(text.encode())
    assert "404 Not Found" in refused()
    assert asked[1]
    for where, path, headers in asked[1]:
        assert where == host
        assert path.startswith("/box/")
        assert key_of(headers) == "AKIDCFG"


def s3cfg(tmp_path: Path, **values: str) -> None:
    lines = {"access_key": "AKIDCFG", "secret_key": "h1dden", "use_https": "False", **values}
    text = "".join(f"{name} = {value}\n" for name, value in lines.items())
    (tmp_path / ".s3cfg").write_text("[default]\n" + text)


@pytest.mark.parametrize(
    ("host_bucket", "host"),
    [
        ("%(bucket)s.store.test", "box.store.test"),
        ("store.test", "store.test"),
        ("%(bucket)s.s3.amazonaws.com", "store.test"),  # what s3cmd asks for, left as it was
    ],
)
def test_host_bucket_says_whether_buckets_are_hosts(
    asked: tuple[str, Asked], tmp_path: Path, host_bucket: str, host: str
) -> None:
    s3cfg(tmp_path, host_base="store.test", host_bucket=host_bucket)
    assert "404" in refused(proxy=asked[0])
    assert {where for where, _, _ in asked[1]} == {host}


def test_a_session_token_and_a_region_are_taken(asked: tuple[str, Asked], tmp_path: Path) -> None:
    host = asked[0].removeprefix("http://")
    s3cfg(tmp_path, host_base=host, access_token="t0ken", bucket_location="ord1")
    text = refused()
    assert "t0ken" not in text
    assert "h1dden" not in text
    headers = asked[1][0][2]
    assert headers["x-amz-security-token"] == "t0ken"
    assert "/ord1/s3/aws4_request" in headers["Authorization"]


def test_the_host_of_aws_is_known_better(asked: tuple[str, Asked], tmp_path: Path) -> None:
    s3cfg(tmp_path, host_base="s3.amazonaws.com", host_bucket="%(bucket)s.s3.amazonaws.com")
    refused(region="eu-south-2", proxy="http://127.0.0.1:1", timeout=0.3)
    s3cfg(tmp_path, host_base="s3.amazonaws.com", bucket_location="US")
    text = refused(proxy=asked[0], endpoint="http://s3.test")
    assert "404" in text
    assert "/us-east-1/s3/aws4_request" in asked[1][0][2]["Authorization"]


@pytest.mark.parametrize("kind", ["environment", "options", "anon"])
def test_its_host_is_not_shown_the_keys_of_another(
    asked: tuple[str, Asked], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    s3cfg(tmp_path, host_base="127.0.0.1:1")
    options: dict[str, Any] = {"proxy": asked[0], "timeout": 1}
    if kind == "environment":
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDENV")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    elif kind == "options":
        options |= {"key": "AKIDENV", "secret": "x"}
    else:
        options |= {"anon": True}
    # AWS is asked through a tunnel, which this proxy does not make.
    assert "127.0.0.1:1 " not in refused(**options) + " "
    assert not [where for where, _, _ in asked[1] if where == "127.0.0.1:1"]


def test_an_endpoint_that_was_named_wins(asked: tuple[str, Asked], tmp_path: Path) -> None:
    s3cfg(tmp_path, host_base="127.0.0.1:1", host_bucket="%(bucket)s.127.0.0.1:1")
    assert "404" in refused(endpoint=asked[0])
    assert key_of(asked[1][0][2]) == "AKIDCFG"
    os.environ["AWS_ENDPOINT_URL_S3"] = asked[0]
    try:
        assert "404" in refused()
    finally:
        del os.environ["AWS_ENDPOINT_URL_S3"]


@pytest.mark.parametrize(
    "text",
    ["", "[default]\naccess_key = A\n", "access_key = A\nsecret_key = B\n", "\0\xff" * 1000, "[d"],
)
def test_one_without_keys_is_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / ".s3cfg").write_text(text)
    assert "no credentials in the environment, ~/.aws and ~/.s3cfg" in refused()


def test_one_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    s3cfg(tmp_path, host_base="127.0.0.1:1")
    (tmp_path / ".s3cfg").chmod(0)
    code = (
        "import os; from inrush import _core\n"
        "if os.getuid() == 0: os.setgid(65534); os.setuid(65534)\n"
        "_core.Checkpoint.open(b's3://box/x.safetensors', _core.StorageOptions(), [])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert f"{tmp_path}/.s3cfg: Permission denied" in done.stderr


def test_it_wins_over_what_a_machine_is_lent(
    asked: tuple[str, Asked], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("botocore")
    # Instance metadata would be asked for, and would answer.
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", asked[0] + "/metadata")
    s3cfg(tmp_path, host_base=asked[0].removeprefix("http://"))
    refused()
    assert not [path for _, path, _ in asked[1] if path.startswith("/metadata")]
    assert key_of(asked[1][0][2]) == "AKIDCFG"
