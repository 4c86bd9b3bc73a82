"""The same trouble by every scheme: survived, or one error with the server's words and code 3."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Contents, random_tensor
from hostile import Misbehaving, misbehaving
from hub_server import NAME, TOKEN, running_hub, sha256
from servers import free_port, nginx
from test_http import check
from test_http_trouble import file_of
from test_https import TLS, write_certificate
from test_s3 import nothing_of_the_users

import inrush

__all__ = ["nothing_of_the_users"]

MiB = 1 << 20
SCHEMES = ("http", "s3", "gs", "az", "hf")
KEY = "box/m.safetensors"


class Place:
    """One file on a server that misbehaves, by any scheme."""

    def __init__(self, server: Misbehaving, scheme: str, folder: Path) -> None:
        self.server, self.scheme = server, scheme
        self.environment: dict[str, str] = {}
        self.folder = folder

    def at(self, misdeed: str, **more: Any) -> tuple[str, dict[str, Any]]:
        """Its URI and the options."""
        base = f"{self.server.url}/{misdeed}"
        options: dict[str, Any] = {"hedge": 0.3, "timeout": 20, **more}
        if self.scheme == "http":
            return f"{base}/{KEY}", options
        if self.scheme == "hf":
            self.hub.cdn = base
            return f"hf://{NAME}/m.safetensors", {**options, "cache": False}
        options["endpoint"] = base
        if self.scheme == "s3":
            options |= {"key": "AKID", "secret": "h1dden"}
        elif self.scheme == "gs":
            options["token"] = "h1dden"
        else:
            options["sas"] = "sv=1&sig=h1dden"
        return f"{self.scheme}://{KEY}", options

    def load(self, misdeed: str, **more: Any) -> dict[str, inrush.Tensor]:
        uri, options = self.at(misdeed, **more)
        words = {"cache_dir": self.folder} if self.scheme != "hf" else {}
        return inrush.open(uri, storage_options=options, **words).load()

    def refusal(self, misdeed: str, kind: type[Exception], **more: Any) -> str:
        before = time.monotonic()
        with pytest.raises(kind) as caught:
            self.load(misdeed, **more)
        assert time.monotonic() - before < 60
        text = str(caught.value)
        assert "\n" not in text
        assert "h1dden" not in text and TOKEN not in text
        assert "m.safetensors" in text
        return text


@pytest.fixture(scope="module")
def contents() -> Contents:
    return {f"t{i}": random_tensor("U8", [MiB // 2 + 1000 * i]) for i in range(5)}


@pytest.fixture(params=SCHEMES)
def place(
    request: pytest.FixtureRequest,
    contents: Contents,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Place]:
    scheme = request.param
    data = file_of(contents)
    files = {KEY: data, f"repos/{sha256(data)}": data}
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(misbehaving(files))
        made = Place(server, scheme, tmp_path / "cache")
        if scheme == "hf":
            pytest.importorskip("huggingface_hub")
            made.hub = stack.enter_context(running_hub())
            made.hub.add(NAME, {"m.safetensors": data}, token=TOKEN)
            monkeypatch.setenv("HF_ENDPOINT", made.hub.url)
            monkeypatch.setenv("HF_TOKEN", TOKEN)
            monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        yield made


@pytest.mark.parametrize(
    "misdeed", ["serves", "truncates", "resets", "storms", "asks-for-time", "stalls"]
)
def test_what_passes_is_survived_by_every_scheme(
    place: Place, contents: Contents, misdeed: str
) -> None:
    check(place.load(misdeed), contents)


@pytest.mark.parametrize(
    ("misdeed", "kind", "reason"),
    [
        ("refuses", inrush.SourceError, "403 Forbidden: AccessDenied"),
        ("401", inrush.SourceError, "401 Unauthorized"),
        ("416", inrush.SourceError, "416 Range Not Satisfiable"),
        ("fails", inrush.SourceError, "500 Internal Server Error (after"),
        ("stalls-for-ever", inrush.SourceError, "nothing"),
        ("wrong-range", inrush.DataError, "instead of"),
        ("no-content-range", inrush.DataError, "without a Content-Range"),
        ("changes", inrush.DataError, "changed while it was being read"),
        ("changes-and-knows", inrush.DataError, "412"),
        ("encodes", inrush.SourceError, "sends it as gzip"),
        ("ignores-range", inrush.SourceError, "the server ignores Range"),
    ],
)
def test_what_does_not_pass_is_one_error_by_every_scheme(
    place: Place, misdeed: str, kind: type[Exception], reason: str
) -> None:
    if place.scheme == "hf" and misdeed in ("encodes", "ignores-range"):
        pytest.skip("huggingface_hub downloads what gives no parts")
    if place.scheme == "hf" and misdeed.startswith("changes"):
        pytest.skip("a commit's content is known by its digest, and no ETag of a CDN's counts")
    # What is asked for again ends with patience; of all else a slow machine may take its time.
    timeout = 1.5 if misdeed in ("fails", "stalls-for-ever") else 30
    text = place.refusal(misdeed, kind, timeout=timeout)
    assert reason in text
    if misdeed == "refuses":
        assert "ID-17" in text


def test_what_is_not_there_is_one_error_by_every_scheme(place: Place) -> None:
    del place.server.files[KEY]
    place.server.files.clear()
    assert "404 Not Found" in place.refusal("serves", inrush.SourceError)


def test_a_server_that_goes_away_in_mid_load_is_one_error_by_every_scheme(
    contents: Contents, place: Place
) -> None:
    uri, options = place.at("waits", timeout=2)
    checkpoint = inrush.open(uri, storage_options=options)
    caught: list[Exception] = []

    def load() -> None:
        try:
            checkpoint.load()
        except Exception as error:
            caught.append(error)

    thread = threading.Thread(target=load)
    thread.start()
    assert place.server.waiting.wait(60)
    place.server.stop()
    place.server.go.set()
    thread.join(60)
    assert not thread.is_alive()
    assert isinstance(caught[0], inrush.SourceError)
    assert "onnect" in str(caught[0]) or "nothing" in str(caught[0])


NOWHERE: dict[str, Callable[[str], tuple[str, dict[str, Any]]]] = {
    "http": lambda base: (f"{base}/{KEY}", {}),
    "s3": lambda base: (f"s3://{KEY}", {"endpoint": base, "key": "A", "secret": "h1dden"}),
    "gs": lambda base: (f"gs://{KEY}", {"endpoint": base, "token": "h1dden"}),
    "az": lambda base: (f"az://{KEY}", {"endpoint": base, "sas": "sig=h1dden"}),
    "hf": lambda base: (f"hf://{NAME}", {"endpoint": base, "token": "h1dden-and-more"}),
}


def judged(uri: str, options: dict[str, Any], *command: str) -> tuple[int, str]:
    """What the command line says of it, and its code."""
    given = ";".join(f"{name}={value}" for name, value in options.items())
    done = subprocess.run(
        [sys.executable, "-m", "inrush", *(command or ("load",)), uri],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "INRUSH_STORAGE_OPTIONS": given},
    )
    assert "h1dden" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    ("base", "reason"),
    [
        ("http://nowhere.invalid", "esolve|Name or service"),
        ("http://127.0.0.1:1", "onnect|refused"),
    ],
)
def test_nobody_there_ends_with_3(scheme: str, base: str, reason: str, tmp_path: Path) -> None:
    import re

    uri, options = NOWHERE[scheme](base)
    os.environ["HF_HOME"] = str(tmp_path)
    try:
        code, text = judged(uri, {**options, "timeout": 1})
    finally:
        del os.environ["HF_HOME"]
    assert code == 3
    assert re.search(reason, text), text
    assert text.count("\n") == 1


@pytest.mark.parametrize("scheme", [one for one in SCHEMES if one != "hf"])
@pytest.mark.parametrize(
    ("name", "days", "reason"),
    [
        ("localhost", 2, "self|issuer|verify"),
        ("elsewhere.invalid", 2, "subject name|hostname"),
        ("localhost", -1, "expired"),
    ],
)
def test_a_certificate_that_is_wrong_ends_with_3(
    tmp_path: Path, scheme: str, name: str, days: int, reason: str
) -> None:
    import re

    write_certificate(tmp_path / "cert.pem", tmp_path / "key.pem", name=name, days=days)
    believed = {"ca_file": str(tmp_path / "cert.pem")} if reason[0] != "s" or days != 2 else {}
    if name == "elsewhere.invalid":
        believed = {"ca_file": str(tmp_path / "cert.pem")}
    with nginx(tmp_path, tmp_path / "nginx", server=TLS.format(folder=tmp_path)) as port:
        uri, options = NOWHERE[scheme](f"https://localhost:{port}")
        code, text = judged(uri, {**options, **believed, "timeout": 1})
    assert code == 3
    assert re.search(reason, text), text


class Silent(threading.Thread):
    """Takes connections and does as it is told to them: nothing, a reset, nonsense, an end."""

    def __init__(self, deed: str) -> None:
        super().__init__(daemon=True)
        self.deed = deed
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.kept: list[socket.socket] = []

    def run(self) -> None:
        while True:
            try:
                one, _ = self.socket.accept()
            except OSError:
                return
            if self.deed == "reset":
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                one.close()
            elif self.deed == "end":
                one.close()
            else:
                if self.deed == "nonsense":
                    one.sendall(b"220 welcome to the wrong kind of server\r\n" * 3)
                self.kept.append(one)


@pytest.mark.parametrize(
    ("deed", "scheme"),
    [
        *itertools.product(["reset", "end", "nonsense"], ["http", "s3", "gs", "az", "redis"]),
        # Half a minute each where a request is repeated: the others wait as HTTP does.
        *itertools.product(["silence"], ["http", "redis"]),
    ],
)
def test_a_port_that_is_no_such_server_ends_with_3(scheme: str, deed: str) -> None:
    server = Silent(deed)
    server.start()
    try:
        if scheme == "redis":
            uri, options = f"redis://:h1dden@127.0.0.1:{server.port}/m", {"timeout": 1}
        else:
            uri, options = NOWHERE[scheme](f"http://127.0.0.1:{server.port}")
            options["timeout"] = 1
        before = time.monotonic()
        code, text = judged(uri, options)
        assert time.monotonic() - before < 60
    finally:
        server.socket.close()
    assert code == 3, text
    assert text.count("\n") == 1


def test_redis_that_is_not_there_ends_with_3() -> None:
    for uri in (f"redis://127.0.0.1:{free_port()}/m", "redis://nowhere.invalid/m"):
        code, text = judged(uri, {})
        assert code == 3
        assert text.count("\n") == 1
