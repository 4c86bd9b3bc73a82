"""Servers on this machine that the network is measured against, each ended with its block."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench.fixtures import BUILD

KEY, SECRET = "AKIDbench", "s3cr3t"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextlib.contextmanager
def running(command: list[str], port: int) -> Iterator[None]:
    """The server, once it listens."""
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        yield
    finally:
        server.terminate()
        server.wait(20)


def certificate(folder: Path) -> Path:
    """The path of a certificate of localhost's own, with its key beside it."""
    made = folder / "own.pem"
    if not made.exists():
        command = [
            "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3650",
            "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost",
            "-keyout", str(folder / "own.key"), "-out", str(made),
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True)
    return made


@contextlib.contextmanager
def nginx(root: Path, *, tls: bool = False) -> Iterator[str]:
    """A server of the files under `root`; yields its URL."""
    found = shutil.which("nginx", path="/usr/sbin:/usr/bin")
    if found is None:
        raise RuntimeError("nginx is not installed")
    port = free_port()
    folder = (BUILD / "nginx").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    user = "user root;" if os.getuid() == 0 else ""
    listen = f"listen 127.0.0.1:{port};"
    if tls:
        own = certificate(folder)
        listen = (
            f"listen 127.0.0.1:{port} ssl; ssl_certificate {own};"
            f"ssl_certificate_key {own.with_suffix('.key')};"
        )
    configuration = folder / "nginx.conf"
    configuration.write_text(
        f"{user} daemon off; pid {folder}/pid; error_log {folder}/errors; events {{}} http {{"
        f"access_log off; sendfile on; client_body_temp_path {folder}/body;"
        f"server {{ {listen} root {root}; }} }}"
    )
    with running([found, "-e", str(folder / "errors"), "-c", str(configuration)], port):
        yield f"http{'s' if tls else ''}://127.0.0.1:{port}"


@contextlib.contextmanager
def rclone(root: Path) -> Iterator[str]:
    """An S3 server whose buckets are the folders under `root`; yields its endpoint."""
    import rclone_api  # type: ignore[import-untyped]

    binary = Path(rclone_api.__file__).parent / "bin" / "rclone"
    port = free_port()
    command = [
        str(binary), "serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key", f"{KEY},{SECRET}",
        "--config", "/dev/null", str(root),
    ]  # fmt: skip
    with running(command, port):
        yield f"http://127.0.0.1:{port}"


class Paced:
    """A server of `bench.paced`, at `url`."""

    def __init__(self, folder: Path, words: list[str]) -> None:
        command = [sys.executable, "-m", "bench.paced", str(folder), *words]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self.process.stdout.readline())}"
        self.sent = 0

    def end(self) -> None:
        said, _ = self.process.communicate("", timeout=20)
        self.sent = int(said)


@contextlib.contextmanager
def paced(
    folder: Path, rate: float = 0, latency: float = 0, dies_after: int = 0, how: str = "reset"
) -> Iterator[Paced]:
    """A server as slow and as far away as that; afterwards it says how many bytes it has sent."""
    words = [f"--rate={rate}", f"--latency={latency}", f"--dies-after={dies_after}", f"--how={how}"]
    server = Paced(folder, words)
    try:
        yield server
    finally:
        server.end()
