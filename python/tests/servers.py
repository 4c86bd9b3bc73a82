"""Real servers on free ports of this machine, each ended by the process id it was started with."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest


def free_port() -> int:
    """A port that nobody listens on, and that the kernel gives to nobody who asks for any."""
    for _ in range(1000):
        port = random.SystemRandom().randrange(15000, 32000)
        with socket.socket() as one, contextlib.suppress(OSError):
            one.bind(("127.0.0.1", port))
            return port
    raise OSError("no port is free")


def program(name: str) -> str:
    """The path of a program; the test is skipped without it."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@contextlib.contextmanager
def running(command: list[str], port: int, **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """A server that listens on the port by the time this yields."""
    server = subprocess.Popen(command, **options)  # type: ignore[call-overload]
    try:
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert server.poll() is None, f"{command[0]} ended with {server.returncode}"
            assert time.monotonic() < deadline, f"{command[0]} does not listen on {port}"
            time.sleep(0.05)
        yield server
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


@contextlib.contextmanager
def nginx(root: Path, folder: Path, server: str = "", http: str = "") -> Iterator[int]:
    """Serves the files under `root`; yields the port.

    Parameters
    ----------
    folder
        Where its own files go.
    server, http
        Further lines of the blocks of these names; PORT stands for the port.
    """
    port = free_port()
    folder.mkdir(exist_ok=True)
    user = "user root;" if os.getuid() == 0 else ""
    temporary = " ".join(
        f"{kind}_temp_path {folder / kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    listen = server if "listen" in server else f"listen 127.0.0.1:PORT; {server}"
    text = f"""{user} daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/errors;
    events {{ worker_connections 512; }}
    http {{ access_log off; sendfile on; {temporary} {http}
      server {{ {listen} root {root}; }} }}"""
    configuration = folder / "nginx.conf"
    configuration.write_text(text.replace("PORT", str(port)))
    command = [program("nginx"), "-e", str(folder / "errors"), "-c", str(configuration)]
    with running(command, port, stderr=subprocess.DEVNULL):
        yield port


class Answers(BaseHTTPRequestHandler):
    """What small servers of tests have in common; a subclass answers, and may name its state."""

    protocol_version = "HTTP/1.1"
    request_id = ("x-request-id", "1")

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is printed."""

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Send an answer; `headers` with underscores for hyphens."""
        self.send_response(status)
        headers.setdefault("Content_Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header(*self.request_id)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextlib.contextmanager
def answering(answers: type[Answers]) -> Iterator[str]:
    """A server of these answers, until this ends: its URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), answers)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
