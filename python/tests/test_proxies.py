"""Proxies: a small real one, which forwards and tunnels, and may want a password or refuse."""

from __future__ import annotations

import base64
import contextlib
import os
import select
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from conftest import Contents
from servers import Answers, answering, nginx
from test_http import check
from test_https import certificate, nothing_of_the_users, served

import inrush

__all__ = ["certificate", "nothing_of_the_users", "served"]


class Proxy:
    """A running proxy: what it wants, and what it was asked."""

    def __init__(self) -> None:
        self.url = ""
        self.user = ""  # "name:password" that it wants
        self.refusal = 0  # the status that it answers everything with
        self.location = ""  # that it names with that
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.lock = threading.Lock()

    def of(self, user: str) -> str:
        """Its URL with a user and a password."""
        return self.url.replace("//", f"//{user}@")


class Proxying(Answers):
    """Forwards GET and HEAD of whole URLs, and makes tunnels for CONNECT."""

    proxy: Proxy

    def admits(self) -> bool:
        proxy = self.proxy
        with proxy.lock:
            proxy.asked.append((self.command, self.path, dict(self.headers)))
        expected = "Basic " + base64.b64encode(proxy.user.encode()).decode()
        if proxy.refusal:
            more = {"Location": proxy.location} if proxy.location else {}
            self.answer(proxy.refusal, **more)
        elif proxy.user and self.headers.get("Proxy-Authorization") != expected:
            self.answer(407, Proxy_Authenticate='Basic realm="x"')
        else:
            return True
        return False

    def do_GET(self) -> None:
        if not self.admits():
            return
        url = urlsplit(self.path)
        with socket.create_connection((url.hostname or "", url.port or 80)) as server:
            target = f"{url.path}?{url.query}" if url.query else url.path
            lines = [f"{self.command} {target} HTTP/1.1"]
            for name, value in self.headers.items():
                if not name.lower().startswith(("proxy-", "connection")):
                    lines.append(f"{name}: {value}")
            server.sendall("\r\n".join([*lines, "Connection: close", "", ""]).encode())
            while data := server.recv(1 << 16):
                self.wfile.write(data)
        self.close_connection = True

    do_HEAD = do_GET

    def do_CONNECT(self) -> None:
        if not self.admits():
            return
        host, _, port = self.path.rpartition(":")
        with socket.create_connection((host, int(port))) as server:
            self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            ends = {self.connection: server, server: self.connection}
            with contextlib.suppress(OSError):
                while True:
                    for end in select.select(list(ends), [], [])[0]:
                        data = end.recv(1 << 16)
                        if not data:
                            return
                        ends[end].sendall(data)
        self.close_connection = True


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    state = Proxy()
    with answering(type("Proxying", (Proxying,), {"proxy": state})) as url:
        state.url = url
        yield state


@pytest.fixture
def plain(sharded: tuple[Path, Contents], tmp_path: Path) -> Iterator[tuple[str, Contents]]:
    folder, contents = sharded
    with nginx(folder.parent, tmp_path / "nginx") as port:
        yield f"http://127.0.0.1:{port}/{folder.name}/", contents


@pytest.mark.parametrize("way", ["option", "environment"])
def test_http_goes_through_the_proxy(
    proxy: Proxy, plain: tuple[str, Contents], way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "environment":
        monkeypatch.setenv("http_proxy", proxy.url)
        options = {}
    else:
        options = {"proxy": proxy.url}
    check(inrush.open(plain[0], storage_options=options).load(), plain[1])
    assert proxy.asked
    assert all(path.startswith(plain[0]) for _, path, _ in proxy.asked)


@pytest.mark.parametrize("way", ["option", "environment"])
def test_https_goes_through_a_tunnel_that_is_told_nothing(
    proxy: Proxy,
    served: tuple[str, Contents],
    certificate: Path,
    way: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = {"ca_file": str(certificate), "headers": {"X-Token": "t0ken"}}
    if way == "environment":
        monkeypatch.setenv("https_proxy", proxy.url)
    else:
        options["proxy"] = proxy.url
    url = served[0].replace("https://", "https://me:s3cret@")
    check(inrush.open(url, storage_options=options).load(), served[1])
    assert {command for command, _, _ in proxy.asked} == {"CONNECT"}
    for _, path, headers in proxy.asked:
        assert path == urlsplit(served[0]).netloc
        assert "X-Token" not in headers
        assert "Authorization" not in headers


def test_hosts_of_no_proxy_are_asked_themselves(
    proxy: Proxy, plain: tuple[str, Contents], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", proxy.url)
    monkeypatch.setenv("no_proxy", "example.invalid,127.0.0.1")
    check(inrush.open(plain[0]).load(), plain[1])
    assert proxy.asked == []
    monkeypatch.setenv("no_proxy", "example.invalid")
    check(inrush.open(plain[0]).load(), plain[1])
    assert proxy.asked


def test_a_proxy_gets_its_password_and_the_server_does_not(
    proxy: Proxy, served: tuple[str, Contents], certificate: Path
) -> None:
    proxy.user = "me:pr1vate"
    options = {"ca_file": str(certificate), "proxy": proxy.of(proxy.user)}
    check(inrush.open(served[0], storage_options=options).load(), served[1])
    options["proxy"] = proxy.of("me:h1dden")
    with pytest.raises(inrush.SourceError, match="407 Proxy Authentication Required") as caught:
        inrush.open(served[0], storage_options=options)
    assert "h1dden" not in str(caught.value)


def test_what_is_forwarded_has_no_password_of_the_proxy(
    proxy: Proxy, plain: tuple[str, Contents]
) -> None:
    proxy.user = "me:pr1vate"
    options = {"proxy": proxy.of(proxy.user)}
    check(inrush.open(plain[0], storage_options=options).load(), plain[1])
    options["proxy"] = proxy.of("me:h1dden")
    with pytest.raises(inrush.SourceError, match="407 Proxy Authentication Required") as caught:
        inrush.open(plain[0] + "model.safetensors.index.json", storage_options=options)
    assert "h1dden" not in str(caught.value)


@pytest.mark.parametrize(("status", "word"), [(403, "Forbidden"), (502, "Bad Gateway")])
def test_a_proxy_that_makes_no_tunnel_is_one_error(
    proxy: Proxy, served: tuple[str, Contents], certificate: Path, status: int, word: str
) -> None:
    proxy.refusal = status
    options = {"ca_file": str(certificate), "proxy": proxy.url}
    before = time.monotonic()
    text = rf"open https://\S+: the proxy gives no way to 127\.0\.0\.1: {status} {word}"
    with pytest.raises(inrush.SourceError, match=text):
        inrush.open(served[0] + "model.safetensors.index.json", storage_options=options)
    assert time.monotonic() - before < 30  # and not until patience ends
    assert len(proxy.asked) < 10


def test_a_proxy_cannot_lead_elsewhere(
    proxy: Proxy, served: tuple[str, Contents], certificate: Path
) -> None:
    # Whoever makes the tunnel would else say what an https server has.
    proxy.refusal = 302
    proxy.location = served[0] + "model.safetensors.index.json"
    options = {"ca_file": str(certificate), "proxy": proxy.url}
    with pytest.raises(inrush.SourceError, match="the proxy gives no way"):
        inrush.open("https://elsewhere.invalid/x.safetensors", storage_options=options)


@pytest.mark.parametrize(
    "place", ["http://me:h1dden@127.0.0.1:1", "quux://me:h1dden@127.0.0.1:1", "me:h1dden@[x"]
)
def test_a_proxy_that_is_not_there_is_one_error_without_its_password(place: str) -> None:
    with pytest.raises(inrush.Error, match="open http://host") as caught:
        inrush.open("http://host.invalid/x.safetensors", storage_options={"proxy": place})
    assert "h1dden" not in str(caught.value)


def test_names_are_left_to_the_proxy(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy.refusal = 418
    monkeypatch.setenv("http_proxy", proxy.url)
    with pytest.raises(inrush.SourceError, match="418"):
        inrush.open("http://host.invalid/x.safetensors")
    assert [path for _, path, _ in proxy.asked] == ["http://host.invalid/x.safetensors"]
    assert "HTTP_PROXY" not in os.environ
