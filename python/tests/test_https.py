"""TLS, HTTP/2, proxies and netrc, with a real server."""

import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import Command, Contents
from hostile import misbehaving
from servers import nginx, program
from test_http import check

import inrush

TLS = """listen 127.0.0.1:PORT ssl http2; ssl_certificate {folder}/cert.pem;
ssl_certificate_key {folder}/key.pem; server_name localhost;"""


@pytest.fixture(autouse=True)
def nothing_of_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith(("_proxy", "ca_bundle", "ssl_cert_file", "ssl_cert_dir")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    folder = tmp_path / "tls"
    folder.mkdir()
    subprocess.run(
        [
            program("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt",
            "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=localhost",
            "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
            "-keyout", "key.pem", "-out", "cert.pem",
        ],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    return folder / "cert.pem"


@pytest.fixture
def served(
    sharded: tuple[Path, Contents], tmp_path: Path, certificate: Path
) -> Iterator[tuple[str, Contents]]:
    folder, contents = sharded
    lines = TLS.format(folder=certificate.parent)
    with nginx(folder.parent, tmp_path / "nginx", lines) as port:
        yield f"https://127.0.0.1:{port}/{folder.name}/", contents


def test_a_certificate_that_nobody_vouches_for_is_refused(served: tuple[str, Contents]) -> None:
    with pytest.raises(inrush.SourceError, match=r"(?i)certificate"):
        inrush.open(served[0], storage_options={"timeout": 1})


def test_roots_are_an_option(served: tuple[str, Contents], certificate: Path) -> None:
    options = {"ca_file": str(certificate)}
    check(inrush.open(served[0], storage_options=options).load(), served[1])


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"])
def test_roots_are_the_environments(
    served: tuple[str, Contents],
    certificate: Path,
    name: str,
    inrush_command: Command,
) -> None:
    done = inrush_command("load", served[0], "--json", **{name: str(certificate)})
    assert done.returncode == 0, done.stderr
    assert '"http"' in done.stdout


def test_roots_that_are_not_there_are_told(served: tuple[str, Contents]) -> None:
    with pytest.raises(inrush.UsageError, match=r"TLS roots /no/such: no such file"):
        inrush.open(served[0], storage_options={"ca_file": "/no/such"})


def test_https_does_not_become_http(
    sharded: tuple[Path, Contents], tmp_path: Path, certificate: Path
) -> None:
    with misbehaving({}) as plain:
        lines = TLS.format(folder=certificate.parent) + f"return 302 {plain.url}/serves/x;"
        with nginx(tmp_path, tmp_path / "nginx", lines) as port:
            url = f"https://127.0.0.1:{port}/x.safetensors"
            with pytest.raises(inrush.SourceError, match="from https to http"):
                inrush.open(url, storage_options={"ca_file": str(certificate)})
        assert not plain.headers


def test_a_password_is_found_in_netrc(sharded: tuple[Path, Contents], tmp_path: Path) -> None:
    folder, contents = sharded
    (tmp_path / "users").write_text("me:{PLAIN}s3cret\n")
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password s3cret\n")
    lines = f"auth_basic x; auth_basic_user_file {tmp_path}/users;"
    with nginx(folder.parent, tmp_path / "nginx", lines) as port:
        check(inrush.open(f"http://127.0.0.1:{port}/{folder.name}/").load(), contents)
        (tmp_path / ".netrc").unlink()
        with pytest.raises(inrush.SourceError, match="401 Unauthorized"):
            inrush.open(f"http://127.0.0.1:{port}/{folder.name}/model.safetensors.index.json")


class _Proxy(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Nothing is printed."""

    def do_GET(self) -> None:
        self.server.seen.append(self.path)  # type: ignore[attr-defined]
        self.send_response(418)
        self.send_header("Content-Length", "0")
        self.end_headers()


def test_the_proxy_of_the_environment_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), _Proxy)
    proxy.seen = []  # type: ignore[attr-defined]
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    try:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.server_address[1]}")
        with pytest.raises(inrush.SourceError, match="418"):
            inrush.open("http://host.invalid/x.safetensors")
        assert proxy.seen == ["http://host.invalid/x.safetensors"]  # type: ignore[attr-defined]
    finally:
        proxy.shutdown()
        proxy.server_close()
