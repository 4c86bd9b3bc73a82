"""An HTTP server that does what a good one will not: one misdeed a file, chosen by its path.

``/MISDEED/name`` is the file ``name`` served with that misdeed; parts that concern no misdeed are
answered as RFC 9110 has it.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# Parts from this byte on are served badly: what a checkpoint is opened by is not.
SPARED = 300_000


@dataclass
class Misbehaving:
    """A running server: what it serves, what it was asked, how far away it is."""

    files: dict[str, bytes]
    url: str = ""
    latency: float = 0.0  # seconds before each answer
    bandwidth: float = 0.0  # bytes a second of one connection; 0: as fast as it goes
    target: str = ""  # where redirects lead
    answer: tuple[int, dict[str, str], str] = (500, {}, "")  # of "answers": status, headers, body
    connections: int = 0  # that were accepted
    now: int = 0  # requests that wait for the latency
    most: int = 0  # of them at the same time
    sockets: list[socket.socket] = field(default_factory=list)  # of these
    asked: Counter[str] = field(default_factory=Counter)  # requests by misdeed
    headers: list[dict[str, str]] = field(default_factory=list)  # of each request
    paths: list[str] = field(default_factory=list)  # the same, with their queries
    etag: str = '"one"'
    waiting: threading.Event = field(default_factory=threading.Event)  # once "waits" was asked
    go: threading.Event = field(default_factory=threading.Event)  # what it waits for
    lock: threading.Lock = field(default_factory=threading.Lock)

    stop: Callable[[], None] = lambda: None  # as if the server were killed

    def hang_up(self) -> None:
        """End all connections that there are."""
        with self.lock:
            for one in self.sockets:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
            self.sockets.clear()


class _Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is printed."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        state = self.server.state
        _, misdeed, name = [*self.path.partition("?")[0].split("/", 2), "", ""][:3]
        with state.lock:
            state.asked[misdeed] += 1
            count = state.asked[misdeed]
            state.headers.append(dict(self.headers))
            state.paths.append(self.path)
        if state.latency:
            with state.lock:
                state.now += 1
                state.most = max(state.most, state.now)
            time.sleep(state.latency)
            with state.lock:
                state.now -= 1
        data = state.files.get(name)
        if data is None:
            self.refuse(404)
            return
        first, last = 0, len(data) - 1
        given = self.headers.get("Range", "")
        if given.startswith("bytes="):
            begin, end = given[6:].split("-")
            first, last = int(begin), min(int(end), len(data) - 1)
        act: Callable[[bytes, int, int, int], None] | None = None
        if first >= SPARED or misdeed in AT_ONCE:
            act = getattr(self, "do_" + misdeed.replace("-", "_"), None)
        (act or self.serve)(data, first, last, count)

    def refuse(self, status: int, headers: dict[str, str] | None = None, body: str = "") -> None:
        """An answer without a part of the file."""
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body.encode())

    def head(self, data: bytes, first: int, last: int, **changes: str) -> None:
        """The head of a good answer, or one with other values."""
        fields = {
            "Content-Range": f"bytes {first}-{last}/{len(data)}",
            "Content-Length": str(last - first + 1),
            "ETag": self.server.state.etag,
        }
        fields |= {key.replace("_", "-"): value for key, value in changes.items()}
        self.send_response(int(fields.pop("status", "206")))
        for key, value in fields.items():
            if value:
                self.send_header(key, value)
        self.end_headers()

    def body(self, data: bytes) -> None:
        """Bytes at the pace of the path."""
        rate = self.server.state.bandwidth
        if self.command == "HEAD":
            return
        step = len(data) if not rate else max(int(rate / 50), 1)
        for at in range(0, len(data), max(step, 1)):
            self.wfile.write(data[at : at + step])
            if rate:
                time.sleep(step / rate)

    def serve(self, data: bytes, first: int, last: int, count: int) -> None:
        """A good answer; 412 where the condition does not hold."""
        wanted = self.headers.get("If-Match")
        if wanted and wanted != self.server.state.etag:
            self.refuse(412)
            return
        if "Range" in self.headers:
            self.head(data, first, last)
        else:
            self.head(data, first, last, status="200", Content_Range="")
        self.body(data[first : last + 1])

    def hang_up(self) -> None:
        """Without another word."""
        with contextlib.suppress(OSError):
            self.wfile.flush()
            self.connection.shutdown(2)
        self.close_connection = True

    # Misdeeds: those that a second try may not meet act on some requests only.

    def do_ignores_range(self, data: bytes, *_: int) -> None:
        self.head(data, 0, len(data) - 1, status="200", Content_Range="")
        self.body(data)

    def do_wrong_range(self, data: bytes, first: int, last: int, _: int) -> None:
        self.head(data, first, last, Content_Range=f"bytes {first + 8}-{last + 8}/{len(data)}")
        self.body(data[first : last + 1])

    def do_short_range(self, data: bytes, first: int, last: int, _: int) -> None:
        self.head(data, first, last - 8)
        self.body(data[first : last - 7])

    def do_longer(self, data: bytes, first: int, last: int, _: int) -> None:
        self.head(data, first, last, Content_Length=str(last - first + 101))
        self.body(data[first : last + 1] + bytes(100))

    def do_no_content_range(self, data: bytes, first: int, last: int, _: int) -> None:
        self.head(data, first, last, Content_Range="")
        self.body(data[first : last + 1])

    def do_encodes(self, data: bytes, first: int, last: int, _: int) -> None:
        self.head(data, first, last, Content_Encoding="gzip")
        self.body(data[first : last + 1])

    def do_changes(self, data: bytes, first: int, last: int, _: int) -> None:
        self.head(data, first, last, ETag='"two"')
        self.body(data[first : last + 1])

    def do_changes_and_knows(self, data: bytes, first: int, last: int, _: int) -> None:
        self.refuse(412)

    def do_grows(self, data: bytes, first: int, last: int, _: int) -> None:
        self.head(data, first, last, Content_Range=f"bytes {first}-{last}/{len(data) + 1}", ETag="")
        self.body(data[first : last + 1])

    def do_truncates(self, data: bytes, first: int, last: int, count: int) -> None:
        if count % 3 == 0:
            self.serve(data, first, last, count)
            return
        self.head(data, first, last)
        self.body(data[first : (first + last) // 2])
        self.hang_up()

    def do_resets(self, data: bytes, first: int, last: int, count: int) -> None:
        if count % 2 == 0:
            self.serve(data, first, last, count)
            return
        self.connection.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SO_LINGER: a reset, not an end
        self.head(data, first, last)
        self.body(data[first : first + 1000])
        self.connection.close()
        self.close_connection = True

    def do_storms(self, data: bytes, first: int, last: int, count: int) -> None:
        if count % 3:
            self.refuse((500, 502, 503)[count % 3])
        else:
            self.serve(data, first, last, count)

    def do_asks_for_time(self, data: bytes, first: int, last: int, count: int) -> None:
        if count % 2:
            self.refuse(429, {"Retry-After": "1"})
        else:
            self.serve(data, first, last, count)

    def do_stalls(self, data: bytes, first: int, last: int, count: int) -> None:
        if count % 2 == 0:
            self.serve(data, first, last, count)
            return
        self.head(data, first, last)
        self.body(data[first : first + 1000])
        self.server.sleep()

    def do_stalls_for_ever(self, data: bytes, first: int, last: int, _: int) -> None:
        self.server.sleep()

    def do_waits(self, data: bytes, first: int, last: int, count: int) -> None:
        self.server.state.waiting.set()
        self.server.state.go.wait(600)
        self.serve(data, first, last, count)

    def do_drips(self, data: bytes, first: int, last: int, count: int) -> None:
        if count % 2 == 0:
            self.serve(data, first, last, count)
            return
        self.head(data, first, last)
        for at in range(first, last + 1):
            self.wfile.write(data[at : at + 1])
            if self.server.sleep(0.05):
                return

    def do_refuses(self, data: bytes, *_: int) -> None:
        text = "<Error><Code>AccessDenied</Code><Message>No\x1b[31m entry</Message></Error>"
        self.refuse(403, {"x-amz-request-id": "ID-17"}, text)

    def do_401(self, data: bytes, *_: int) -> None:
        self.refuse(401)

    def do_416(self, data: bytes, *_: int) -> None:
        self.refuse(416, {"Content-Range": f"bytes */{len(data)}"})

    def do_fails(self, data: bytes, *_: int) -> None:
        self.refuse(500)

    def do_answers(self, data: bytes, *_: int) -> None:
        status, headers, body = self.server.state.answer
        self.refuse(status, headers, body)

    do_answers_at_once = do_answers

    def do_redirects(self, data: bytes, *_: int) -> None:
        self.refuse(302, {"Location": self.server.state.target})

    def do_circles(self, data: bytes, *_: int) -> None:
        self.refuse(302, {"Location": self.path})


# Misdeeds that the first look at a file meets already.
AT_ONCE = {"redirects", "circles", "401", "ignores-range-at-once", "answers-at-once"}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, state: Misbehaving) -> None:
        super().__init__(("127.0.0.1", 0), _Answering)
        self.state = state
        self.ending = threading.Event()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self.state.lock:
            self.state.connections += 1
            self.state.sockets.append(request)
        super().process_request(request, client_address)

    def sleep(self, seconds: float = 600) -> bool:
        """Until the time is over (False) or the server ends."""
        return self.ending.wait(seconds)

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are what this is about."""


@contextlib.contextmanager
def misbehaving(files: dict[str, bytes]) -> Iterator[Misbehaving]:
    """The server, while the block runs."""
    state = Misbehaving(files)
    server = _Server(state)
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()

    def stop() -> None:
        server.shutdown()
        server.socket.close()
        state.hang_up()

    state.stop = stop
    try:
        yield state
    finally:
        server.ending.set()
        server.shutdown()
        server.server_close()
        thread.join()
