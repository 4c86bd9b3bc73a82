"""What is kept of remote checkpoints, against a real nginx that counts what it was asked for."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from conftest import random_tensor, write_file
from inrush._cache import kept
from servers import Answers, answering, nginx

import inrush

Expected = dict[str, bytes]

# Bytes that an open fetches, at most: the head of a file, to see what it is.
HEAD = 1 << 20


class Place:
    """A checkpoint behind nginx, and the bytes that were fetched of it."""

    def __init__(self, uri: str, log: Path, root: Path, expected: Expected) -> None:
        self.uri, self.log, self.root, self.expected = uri, log, root, expected

    def fetched(self) -> int:
        """Bytes of bodies that the server has sent so far."""
        # The log is written when a request has ended, one line behind the other: when this is in
        # it, so is all that was asked before.
        base = self.uri.rpartition("/")[0]
        mark = uuid.uuid4().hex
        with contextlib.suppress(urllib.error.HTTPError):
            urllib.request.urlopen(f"{base}/{mark}").close()
        deadline = time.monotonic() + 60
        while mark not in (text := self.log.read_text() if self.log.exists() else ""):
            assert time.monotonic() < deadline, "nginx writes no log"
            time.sleep(0.01)
        lines = [line.split() for line in text.splitlines()]
        return sum(int(size) for size, uri in lines if uri.endswith(".safetensors"))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    # Bytes are counted: a busy machine's silence is to bring no second requests.
    monkeypatch.setenv("INRUSH_STORAGE_OPTIONS", "hedge=100")
    contents = {f"t{i}": random_tensor("F32", [1024, 256]) for i in range(24)}
    root = tmp_path / "served"
    root.mkdir()
    write_file(root / "model.safetensors", contents)
    log = tmp_path / "bytes.log"
    http = "log_format sent '$body_bytes_sent $uri'; limit_rate 2m;"
    with nginx(root, tmp_path / "nginx", server=f"access_log {log} sent;", http=http) as port:
        expected = {name: data for name, (_, _, data) in contents.items()}
        yield Place(f"http://127.0.0.1:{port}/model.safetensors", log, root, expected)


def loaded(place: Place, cache: Path, **words: object) -> Expected:
    """Everything through the cache, as bytes."""
    with inrush.open(place.uri, cache_dir=cache, **words) as checkpoint:
        return {name: bytes(memoryview(tensor).cast("B")) for name, tensor in checkpoint.tensors()}


def inrush_command(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "inrush", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_the_second_load_comes_from_here(place: Place, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert loaded(place, cache) == place.expected
    size = place.fetched()
    assert loaded(place, cache) == place.expected
    assert place.fetched() - size < HEAD
    with inrush.open(place.uri, cache_dir=cache) as checkpoint, checkpoint.start() as job:
        dict(job)
        assert job.explain()["facts"]["filesystem"]["engine"] == ""


def test_it_is_private(place: Place, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    loaded(place, cache)
    for folder, _, files in os.walk(cache):
        assert os.stat(folder).st_mode & 0o77 == 0
        assert all(os.stat(Path(folder) / name).st_mode & 0o77 == 0 for name in files)
    cache.chmod(0o777)
    with pytest.raises(inrush.UsageError, match="others may write to it"):
        inrush.open(place.uri, cache_dir=cache)


def test_a_killed_load_is_gone_on_with(place: Place, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    code = f"import inrush; inrush.open({place.uri!r}, cache_dir={str(cache)!r}).load()"
    child = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 60
    while not list(cache.glob("*/*.ledger")) or present(cache) < 2 << 20:
        assert child.poll() is None or present(cache) >= 2 << 20
        assert time.monotonic() < deadline
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    kept = present(cache)
    before = place.fetched()
    assert loaded(place, cache) == place.expected
    size = (place.root / "model.safetensors").stat().st_size
    assert place.fetched() - before <= size - kept + HEAD


def present(cache: Path) -> int:
    """Bytes that the ledgers say are there."""
    total = 0
    for ledger in cache.glob("*/*.ledger"):
        for line in ledger.read_text().splitlines():
            words = line.split()
            total += int(words[2]) if words[:1] == ["done"] else 0
    return total


def test_a_changed_file_is_fetched_anew(place: Place, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    loaded(place, cache)
    contents = {name: random_tensor("F32", [1024, 256]) for name in place.expected}
    time.sleep(1.1)  # nginx's ETag is made of seconds and the size
    write_file(place.root / "model.safetensors", contents)
    assert loaded(place, cache) == {name: data for name, (_, _, data) in contents.items()}
    assert len(list(cache.glob("*/*.bytes"))) == 1


def test_a_ledger_that_is_torn_is_not_believed(place: Place, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    loaded(place, cache)
    (ledger,) = cache.glob("*/*.ledger")
    ledger.write_text(ledger.read_text()[:-20])
    (copy,) = cache.glob("*/*.bytes")
    copy.write_bytes(os.urandom(copy.stat().st_size))
    assert loaded(place, cache) == place.expected


def test_what_was_not_sealed_is_not_believed_after_a_restart(place: Place, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    loaded(place, cache)
    (ledger,) = cache.glob("*/*.ledger")
    deadline = time.monotonic() + 30
    while not ledger.read_text().startswith("inrush cache 1 sealed"):  # by the last lane to end
        assert time.monotonic() < deadline
        time.sleep(0.01)
    _, _, body = ledger.read_text().partition("\n")
    ledger.write_text("inrush cache 1 of-another-start\n" + body)
    (copy,) = cache.glob("*/*.bytes")
    copy.write_bytes(bytes(copy.stat().st_size))
    assert loaded(place, cache) == place.expected


def test_two_processes_fetch_it_once(place: Place, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    code = (
        "import inrush, sys, zlib\n"
        f"with inrush.open({place.uri!r}, cache_dir={str(cache)!r}) as checkpoint:\n"
        "    got = {n: zlib.crc32(memoryview(t).cast('B')) for n, t in checkpoint.tensors()}\n"
        "print(sorted(got.items()))\n"
    )
    children = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    answers = {child.communicate(timeout=120)[0] for child in children}
    assert all(child.returncode == 0 for child in children)
    assert len(answers) == 1
    size = (place.root / "model.safetensors").stat().st_size
    assert place.fetched() < size + 3 * HEAD


def test_a_part_is_kept_and_the_rest_comes_later(place: Place, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert set(loaded(place, cache, include="t1*")) >= {"t1", "t10", "t15"}
    first = place.fetched()
    assert loaded(place, cache) == place.expected
    size = (place.root / "model.safetensors").stat().st_size
    # What straddles the edge of what is here is fetched as a whole.
    assert place.fetched() < size + first / 2
    assert first < size * 3 / 4


def test_no_room_only_ends_the_filling(place: Place, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert loaded(place, cache, cache_size="1MB") == place.expected
    assert sum(path.stat().st_blocks for path in cache.glob("*/*.bytes")) == 0


def test_a_full_disk_only_ends_the_filling(place: Place, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m,mode=700", "none", str(small)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("may not mount here")
    try:
        assert loaded(place, small / "cache") == place.expected
        assert loaded(place, small / "cache") == place.expected
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def test_what_was_used_longest_ago_makes_room(place: Place, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    size = (place.root / "model.safetensors").stat().st_size
    for name in ("a", "b"):
        os.link(place.root / "model.safetensors", place.root / f"{name}.safetensors")
    other = Place(place.uri.replace("model", "a"), place.log, place.root, place.expected)
    loaded(place, cache)
    loaded(other, cache, cache_size=size + size // 2)
    uris = [path.read_text() for path in cache.glob("*/uri")]
    assert uris == [other.uri]


def test_a_read_only_volume_serves_it(place: Place, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    loaded(place, cache)
    shared = tmp_path / "shared"
    shared.mkdir()
    bind = ["mount", "--bind", "-o", "ro", str(cache), str(shared)]
    if subprocess.run(bind, capture_output=True).returncode != 0:
        pytest.skip("may not mount here")
    try:
        before = place.fetched()
        assert loaded(place, shared) == place.expected
        assert place.fetched() - before < HEAD
    finally:
        subprocess.run(["umount", "-l", str(shared)], check=True)


def test_the_command_line_lists_verifies_prefetches_and_removes(
    place: Place, tmp_path: Path
) -> None:
    where = ["--cache-dir", str(tmp_path / "cache"), "--json"]
    done = inrush_command("cache", "prefetch", place.uri, *where)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["whole"] is True
    before = place.fetched()
    listed = json.loads(inrush_command("cache", "ls", *where).stdout)["checkpoints"]
    assert [one["uri"] for one in listed] == [place.uri]
    assert inrush_command("cache", "verify", *where).returncode == 0
    (copy,) = (tmp_path / "cache").glob("*/*.bytes")
    with copy.open("r+b") as file:
        file.seek(4_000_000)
        file.write(b"rot")
    wrong = inrush_command("cache", "verify", *where)
    assert wrong.returncode == 1
    assert "its bytes are others" in json.loads(wrong.stdout)["wrong"][0]
    assert place.fetched() == before
    assert inrush_command("cache", "rm", "nothing", *where).returncode == 2
    assert inrush_command("cache", "rm", place.uri, *where).returncode == 0
    assert json.loads(inrush_command("cache", "ls", *where).stdout)["checkpoints"] == []


def test_commands_take_the_uri_that_was_loaded_and_tell_no_secret(
    place: Place, tmp_path: Path
) -> None:
    where = ["--cache-dir", str(tmp_path / "cache")]
    uri = place.uri.replace("http://", "http://user:h1dden@") + "?X-Amz-Signature=pr1vate"
    prefetched = inrush_command("cache", "prefetch", uri, *where)
    assert prefetched.returncode == 0, prefetched.stderr
    listed = inrush_command("cache", "ls", *where)
    removed = inrush_command("cache", "rm", uri, *where)
    assert removed.returncode == 0, removed.stderr
    again = inrush_command("cache", "rm", uri, *where)
    assert again.returncode == 2
    benched = inrush_command("bench", uri)
    assert benched.returncode == 2
    for done in (prefetched, listed, removed, again, benched):
        assert "h1dden" not in done.stdout + done.stderr
        assert "pr1vate" not in done.stdout + done.stderr


def test_a_folder_is_needed_and_must_be_there(tmp_path: Path) -> None:
    assert inrush_command("cache", "ls").returncode == 2
    assert inrush_command("cache", "ls", "--cache-dir", str(tmp_path / "none")).returncode == 2


class Versionless(Answers):
    """Content by its query; one date for all, and no ETag."""

    contents: dict[str, bytes]
    dated = True

    def do_GET(self) -> None:
        data = self.contents.get(urlsplit(self.path).query.partition("&X-Amz-")[0])
        if data is None:
            self.answer(404)
            return
        first, last = self.headers["Range"].removeprefix("bytes=").split("-")
        end = min(int(last), len(data) - 1)
        dates = {"Last_Modified": "Mon, 02 Nov 2026 10:00:00 GMT"} if self.dated else {}
        span = f"bytes {first}-{end}/{len(data)}"
        self.answer(206, data[int(first) : end + 1], Content_Range=span, **dates)

    do_HEAD = do_GET


def test_what_a_query_names_is_not_taken_for_what_another_one_names(tmp_path: Path) -> None:
    expected = {f"file={i}": random_tensor("F32", [100_000]) for i in range(2)}
    contents = {}
    for query, tensor in expected.items():
        write_file(tmp_path / "one", {"t": tensor})
        contents[query] = (tmp_path / "one").read_bytes()
    with answering(type("Served", (Versionless,), {"contents": contents})) as url:
        for _ in range(2):
            for query, (_, _, data) in expected.items():
                place = f"{url}/get?{query}"
                with inrush.open(place, cache_dir=tmp_path / "cache") as checkpoint:
                    assert bytes(memoryview(checkpoint.load()["t"]).cast("B")) == data
        assert len(list((tmp_path / "cache").glob("*/*.bytes"))) == 2
        both = [f"{url}/get?file=0", f"{url}/get?file=1&shard=2"]
        contents["file=1&shard=2"] = contents["file=1"].replace(b'"t"', b'"u"')
        with inrush.open(both, cache_dir=tmp_path / "cache") as checkpoint:
            got = {n: bytes(memoryview(t).cast("B")) for n, t in checkpoint.tensors()}
        assert got == {"t": expected["file=0"][2], "u": expected["file=1"][2]}
        assert len(list((tmp_path / "cache").glob("*/*.bytes"))) == 3
        # A signature is another one each time, and means no other content.
        signed = f"{url}/get?file=0&X-Amz-Signature=pr1vate"
        inrush.open(signed, cache_dir=tmp_path / "cache").load()
        assert len(list((tmp_path / "cache").glob("*/*.bytes"))) == 3
        for path in (tmp_path / "cache").rglob("*"):
            assert not path.is_file() or b"pr1vate" not in path.read_bytes()


def test_an_open_that_fails_leaves_nothing_in_the_cache(place: Place, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    for uri, kind in (
        (place.uri.replace("model.", "none."), inrush.SourceError),
        ("http://127.0.0.1:1/model.safetensors", inrush.SourceError),
        (place.uri.rpartition("/")[0] + "/none/", inrush.SourceError),
    ):
        with pytest.raises(kind):
            inrush.open(uri, cache_dir=cache, storage_options={"timeout": 0.5})
    assert list(cache.iterdir()) == []
    listed = inrush_command("cache", "ls", "--cache-dir", str(cache), "--json")
    assert json.loads(listed.stdout)["checkpoints"] == []
    # Folders without a copy, of processes that were killed: not listed, and gone with all others.
    (cache / "0123").mkdir()
    (cache / "0123" / "uri").write_text(place.uri)
    listed = inrush_command("cache", "ls", "--cache-dir", str(cache), "--json")
    assert json.loads(listed.stdout)["checkpoints"] == []
    assert inrush_command("cache", "rm", "--all", "--cache-dir", str(cache)).returncode == 0
    assert list(cache.iterdir()) == []


def test_what_cannot_be_told_apart_is_not_kept_and_prefetch_says_so(tmp_path: Path) -> None:
    write_file(tmp_path / "one", {"t": random_tensor("F32", [1000])})
    served = {"contents": {"": (tmp_path / "one").read_bytes()}, "dated": False}
    with answering(type("Served", (Versionless,), served)) as url:
        where = ["--cache-dir", str(tmp_path / "cache")]
        done = inrush_command("cache", "prefetch", f"{url}/m.safetensors", *where)
        assert done.returncode == 4
        assert "tells no versions" in done.stdout
        assert list((tmp_path / "cache").iterdir()) == []


def test_what_may_not_be_removed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "0123").mkdir()
    (tmp_path / "0123" / "uri").write_text("http://host/m")
    (one,) = kept(tmp_path)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), "uri")

    monkeypatch.setattr(os, "unlink", refuse)
    with pytest.raises(inrush.SourceError, match=f"{tmp_path}/0123: Read-only"):
        one.remove()
