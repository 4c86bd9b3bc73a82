"""A file server as far away and as slow as it is told: ``python -m bench.paced FOLDER [...]``.

One thread a connection; the rate is of all of them together, and the bytes go by sendfile. Prints
its port, and at the end of its standard input how many bytes it has sent.
"""

from __future__ import annotations

import argparse
import os
import re
import socket
import struct
import sys
import threading
import time
from pathlib import Path

_STEP = 64 << 10  # bytes sent at once
_RANGE = re.compile(rb"\r\nrange: *bytes=(\d+)-(\d*)", re.IGNORECASE)


class Link:
    """What all connections share: the rate, the bytes so far, and how the server dies."""

    def __init__(self, rate: float, dies_after: int, how: str) -> None:
        self.rate, self.dies_after, self.how = rate, dies_after, how
        self.free_at = 0.0
        self.sent = 0
        self.lock = threading.Lock()

    def take(self, size: int) -> bool:
        """Waits until the link has room for so many bytes; False once the server is dead."""
        with self.lock:
            if self.dies_after and self.sent >= self.dies_after:
                return False
            self.sent += size
            now = time.monotonic()
            # A little may be caught up on: what the scheduler took is not the link's.
            self.free_at = max(self.free_at, now - 0.02) + (size / self.rate if self.rate else 0)
            pause = self.free_at - now
        if pause > 0.002:
            time.sleep(pause)
        return True


def serve(connection: socket.socket, folder: Path, link: Link, latency: float) -> None:
    """Answers until the client hangs up, or the server dies."""
    received = b""
    time.sleep(latency)  # the handshake
    while True:
        while b"\r\n\r\n" not in received:
            block = connection.recv(65536)
            if not block:
                return
            received += block
        head, _, received = received.partition(b"\r\n\r\n")
        time.sleep(latency)
        if not answer(connection, head, folder, link):
            return


def answer(connection: socket.socket, head: bytes, folder: Path, link: Link) -> bool:
    """One request; False where the connection is of no more use."""
    method, path, _ = head.split(b" ", 2)
    file = folder / path.decode().lstrip("/")
    if not file.is_file():
        connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        return True
    status = file.stat()
    first, last, code = 0, status.st_size - 1, b"200 OK"
    if found := _RANGE.search(head):
        first, code = int(found[1]), b"206 Partial Content"
        last = min(int(found[2] or last), last)
    connection.sendall(
        b'HTTP/1.1 %s\r\nETag: "%x"\r\nContent-Length: %d\r\nContent-Range: bytes %d-%d/%d\r\n\r\n'
        % (code, status.st_size, last - first + 1, first, last, status.st_size)
    )
    if method == b"HEAD":
        return True
    with open(file, "rb") as source:
        while first <= last:
            size = min(_STEP, last + 1 - first)
            if not link.take(size):
                return die(connection, link.how)
            while size:
                sent = os.sendfile(connection.fileno(), source.fileno(), first, size)
                first += sent
                size -= sent
    return True


def die(connection: socket.socket, how: str) -> bool:
    """By a reset, or by saying nothing more."""
    if how == "stall":
        time.sleep(3600)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return False


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.paced", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rate", type=float, default=0, help="bytes a second, of all together")
    parser.add_argument("--latency", type=float, default=0, help="seconds a round trip")
    parser.add_argument("--dies-after", type=int, default=0, help="bytes")
    parser.add_argument("--how", choices=("reset", "stall"), default="reset")
    words = parser.parse_args()
    link = Link(words.rate, words.dies_after, words.how)
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    print(listener.getsockname()[1], flush=True)

    def converse(connection: socket.socket) -> None:
        with connection:
            try:
                if link.dies_after and link.sent >= link.dies_after and link.how == "reset":
                    die(connection, "reset")
                    return
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                serve(connection, words.folder, link, words.latency)
            except OSError:
                pass  # clients may hang up at any time

    def accept() -> None:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=converse, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    sys.stdin.read()
    print(link.sent, flush=True)


if __name__ == "__main__":
    main()
