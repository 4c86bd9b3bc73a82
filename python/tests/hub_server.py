"""A Hub on this machine: the endpoints that huggingface_hub asks, and a CDN on another port.

Large files are redirected to the CDN with a signature that expires, as the Hub does it for LFS and
Xet; small ones are served by the Hub itself, some behind a relative redirect.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import hmac
import json
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from conftest import random_tensor, write_file

REQUEST_ID = "Root=1-6500-hub"
TOKEN = "hf_thisIsNobodysBusiness"
NAME = "org/model.v1"
SHARD = "model-0000{}-of-00002.safetensors"
SECRET = b"of the CDN"


@dataclass
class Repo:
    """A repository: its commits' files, and what its names point to."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    token: str = ""  # that is needed to read it
    gated: bool = False
    closed: bool = False  # its files are refused, though it can be listed


@dataclass
class FakeHub:
    """A running Hub: what it has, how it behaves, what it was asked."""

    url: str = ""
    cdn: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    lifetime: float = 3600.0  # seconds that a signature holds
    rate: float = 0.0  # bytes a second of one answer of the CDN; 0: as fast as it goes
    ranges: bool = True
    listed: bool = True  # whether the listing says sizes and digests
    broken: int = 0  # so many answers of the API are 503
    corrupt: bool = False  # the CDN flips a bit of every byte at 100000
    held_from: int = 0  # parts of the CDN that begin here or later never come; 0: all do
    gone: threading.Event = field(default_factory=threading.Event)  # who waits for them
    first_last: bool = False  # the CDN sends a file's first part when all others are sent
    coded: bool = False  # small files come without a length
    below: str = ""  # the path that all of the Hub lies under
    elsewhere: str = ""  # where everything is redirected to
    moved: dict[str, str] = field(default_factory=dict)  # repositories that were renamed
    requests: list[tuple[str, str, str]] = field(default_factory=list)  # of the Hub
    cdn_requests: list[dict[str, str]] = field(default_factory=list)  # headers, and "path"
    sent: int = 0  # bytes of bodies, the CDN's
    refused: int = 0  # expired signatures
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, name: str, files: dict[str, bytes], **words: object) -> str:
        """A commit on the branch ``main``; its hash."""
        digest = hashlib.sha1(name.encode())
        for path, data in sorted(files.items()):
            digest.update(path.encode() + data)
        commit = digest.hexdigest()
        repo = self.repos.setdefault(name, Repo(**words))  # type: ignore[arg-type]
        repo.commits[commit] = files
        repo.refs["main"] = commit
        return commit

    def paths(self) -> list[str]:
        """Methods and paths that the Hub was asked for."""
        return [f"{method} {path}" for method, path, _ in self.requests]

    def forget(self) -> None:
        """What was asked so far."""
        self.requests.clear()
        self.cdn_requests.clear()
        self.sent = 0


@functools.lru_cache
def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@functools.lru_cache
def damaged(data: bytes) -> bytes:
    wrong = bytearray(data)
    wrong[100_000] ^= 1
    return bytes(wrong)


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def is_large(name: str) -> bool:
    """Whether it is kept by LFS."""
    return name.endswith((".safetensors", ".tensors", ".bin"))


class _Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is printed."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        self.send_header("X-Request-Id", REQUEST_ID)
        headers.setdefault("Content_Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            with contextlib.suppress(OSError):
                self.write(body)

    def write(self, body: bytes) -> None:
        state, step = self.server.state, 1 << 16
        for at in range(0, len(body), step):
            part = body[at : at + step]
            self.wfile.write(part)
            if isinstance(self, Cdn):
                with state.lock:
                    state.sent += len(part)
                if state.rate:
                    time.sleep(len(part) / state.rate)

    def serve(self, data: bytes, etag: str, **headers: str) -> None:
        """The file, or the part that is asked for."""
        given = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        headers["ETag"] = etag
        if self.server.state.coded and not isinstance(self, Cdn):
            self.send_response(200)
            self.send_header("ETag", etag)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Connection", "close")
            self.end_headers()
            self.close_connection = True
            if self.command != "HEAD":
                self.wfile.write(data)
            return
        if given is None or not self.server.state.ranges:
            self.answer(200, data, **headers)
            return
        first = int(given[1])
        last = min(int(given[2] or len(data) - 1), len(data) - 1)
        if first > last:
            self.answer(416, Content_Range=f"bytes */{len(data)}", **headers)
            return
        headers["Content_Range"] = f"bytes {first}-{last}/{len(data)}"
        self.answer(206, data[first : last + 1], **headers)


class Cdn(_Answering):
    """What large files are redirected to."""

    def do_GET(self) -> None:
        state = self.server.state
        parts = urlsplit(self.path)
        words = parse_qs(parts.query)
        with state.lock:
            state.cdn_requests.append({**dict(self.headers), "path": self.path})
        expires = words.get("Expires", ["0"])[0]
        if words.get("Signature") != [signature(parts.path, expires)]:
            self.answer(403, b"<Error><Code>SignatureDoesNotMatch</Code></Error>")
            return
        if time.time() > float(expires):
            with state.lock:
                state.refused += 1
            self.answer(403, b"<Error><Code>AccessDenied</Code><Message>expired</Message></Error>")
            return
        digest = parts.path.rpartition("/")[2]
        for repo in state.repos.values():
            for files in repo.commits.values():
                for data in files.values():
                    if sha256(data) == digest:
                        if state.corrupt:
                            data = damaged(data)
                        if state.held_from and self.is_held(state.held_from):
                            state.gone.wait(120)
                            self.close_connection = True
                            return
                        if state.first_last:
                            self.wait_for_the_rest(len(data))
                        self.serve(data, f'"{digest[:32]}"')
                        return
        self.answer(404)

    def is_held(self, begin: int) -> bool:
        given = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        return given is not None and int(given[1]) >= begin

    def wait_for_the_rest(self, size: int) -> None:
        given = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if given is None or int(given[1]) > 1 << 16 or int(given[2]) == (260 << 10) - 1:
            return
        deadline = time.monotonic() + 60
        while self.server.state.sent < size - int(given[2]) and time.monotonic() < deadline:
            time.sleep(0.01)


def signature(path: str, expires: str) -> str:
    return hmac.new(SECRET, f"{path} {expires}".encode(), "sha256").hexdigest()


class Hub(_Answering):
    """The Hub itself."""

    def do_GET(self) -> None:
        state = self.server.state
        path = unquote(urlsplit(self.path).path)
        if not path.startswith(state.below + "/"):
            self.answer(404, b"{}")
            return
        path = path.removeprefix(state.below)
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        with state.lock:
            state.requests.append((self.command, self.path, token))
        api = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/(refs/pr/\d+|[^/]+)/(.+)", path)
        cached = re.fullmatch(r"/api/resolve-cache/models/([^/]+/[^/]+)/([^/]+)/(.+)", path)
        if state.elsewhere:
            self.answer(307, Location=state.elsewhere + self.path)
            return
        for before, now in state.moved.items():
            if f"/{before}" in path:
                self.answer(307, Location=self.path.replace(f"/{before}", f"/{now}", 1))
                return
        if api:
            self.serve_info(api[1], api[2] or "main")
        elif file:
            self.serve_file(file[1], file[2], file[3])
        elif cached:
            self.serve_small(cached[1], cached[2], cached[3])
        else:
            self.answer(404, b"{}", X_Error_Code="EntryNotFound")

    def allowed(self, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """The commit and its files; None where a refusal was sent."""
        state = self.server.state
        repo = state.repos.get(name)
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token == "hf_wrong":
            self.answer(401, X_Error_Message="Invalid credentials in Authorization header")
        elif repo is None or (repo.token and not repo.gated and token != repo.token):
            self.answer(401, X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")
        elif repo.gated and token != repo.token:
            message = f"Access to model {name} is restricted."
            self.answer(403, X_Error_Code="GatedRepo", X_Error_Message=message)
        else:
            commit = repo.refs.get(revision, revision)
            if commit in repo.commits:
                return commit, repo.commits[commit]
            message = f"Invalid rev id: {revision}"
            self.answer(404, X_Error_Code="RevisionNotFound", X_Error_Message=message)
        return None

    def serve_info(self, name: str, revision: str) -> None:
        state = self.server.state
        if state.broken > 0:
            state.broken -= 1
            self.answer(503, X_Error_Message="we are down")
            return
        found = self.allowed(name, revision)
        if found is None:
            return
        commit, files = found
        siblings = []
        for path, data in files.items():
            one: dict[str, object] = {"rfilename": path}
            if state.listed:
                one |= {"size": len(data), "blobId": git_sha1(data)}
                if is_large(path):
                    pointer = {"sha256": sha256(data), "size": len(data), "pointerSize": 134}
                    one |= {"lfs": pointer}
            siblings.append(one)
        body = json.dumps({"id": name, "modelId": name, "sha": commit, "siblings": siblings})
        self.answer(200, body.encode(), Content_Type="application/json")

    def serve_file(self, name: str, revision: str, path: str) -> None:
        state = self.server.state
        found = self.allowed(name, revision)
        if found is None:
            return
        commit, files = found
        data = files.get(path)
        if state.repos[name].closed:
            message = f"Access to model {name} is restricted."
            self.answer(403, X_Error_Code="GatedRepo", X_Error_Message=message)
        elif data is None:
            self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
        elif is_large(path):
            digest = sha256(data)
            there = f"/repos/{digest}"
            expires = str(time.time() + state.lifetime)
            location = f"{state.cdn}{there}?Expires={expires}&Signature={signature(there, expires)}"
            self.answer(
                302,
                X_Repo_Commit=commit,
                X_Linked_ETag=f'"{digest}"',
                X_Linked_Size=str(len(data)),
                Location=location,
            )
        elif path.endswith("config.json"):
            self.answer(
                307,
                X_Repo_Commit=commit,
                X_Linked_ETag=f'"{git_sha1(data)}"',
                X_Linked_Size=str(len(data)),
                Location=f"{state.below}/api/resolve-cache/models/{name}/{commit}/{path}",
            )
        else:
            self.serve(data, f'"{git_sha1(data)}"', X_Repo_Commit=commit)

    def serve_small(self, name: str, commit: str, path: str) -> None:
        data = self.server.state.repos[name].commits[commit][path]
        self.serve(data, f'"{git_sha1(data)}"', X_Repo_Commit=commit)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    state: FakeHub

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no news."""


@contextlib.contextmanager
def running_hub() -> Iterator[FakeHub]:
    """A Hub and its CDN, until this ends."""
    state = FakeHub()
    servers = []
    for answers in (Hub, Cdn):
        server = _Server(("127.0.0.1", 0), answers)
        server.state = state
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        servers.append(server)
    state.url, state.cdn = (f"http://127.0.0.1:{one.server_address[1]}" for one in servers)
    try:
        yield state
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


class Model:
    """A repository with two shards and an index, and what must come out."""

    def __init__(self, hub: FakeHub, home: Path, folder: Path) -> None:
        self.hub, self.home, self.cache = hub, home, home / "hub"
        self.expected: dict[str, bytes] = {}
        self.files: dict[str, bytes] = {"config.json": b'{"model_type": "none"}'}
        weights: dict[str, str] = {}
        for shard in (1, 2):
            contents = {f"t{shard}.{i}": random_tensor("F32", [1024, 128]) for i in range(5)}
            path = folder / SHARD.format(shard)
            write_file(path, contents)
            self.files[path.name] = path.read_bytes()
            self.expected |= {name: data for name, (_, _, data) in contents.items()}
            weights |= dict.fromkeys(contents, path.name)
        index = {"metadata": {}, "weight_map": weights}
        self.files["model.safetensors.index.json"] = json.dumps(index).encode()
        self.commit = hub.add(NAME, self.files, token=TOKEN)

    @property
    def size(self) -> int:
        return sum(len(data) for name, data in self.files.items() if name.endswith("tensors"))

    @property
    def folder(self) -> Path:
        return self.cache / ("models--" + NAME.replace("/", "--"))

    @property
    def shard(self) -> Path:
        """The first shard's blob."""
        return self.folder / "blobs" / sha256(self.files[SHARD.format(1)])
