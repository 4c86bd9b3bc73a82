"""What a bad HTTP server, or a bad way to it, is survived or told by."""

import json
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import Contents, random_tensor
from hostile import Misbehaving, misbehaving
from test_http import check

import inrush

MiB = 1 << 20


def file_of(contents: Contents) -> bytes:
    """A safetensors file."""
    header: dict[str, object] = {}
    offset = 0
    for name, (dtype, shape, data) in contents.items():
        header[name] = {
            "dtype": dtype,
            "shape": shape,
            "data_offsets": [offset, offset + len(data)],
        }
        offset += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(data for *_, data in contents.values())


@pytest.fixture
def contents() -> Contents:
    return {f"t{i}": random_tensor("U8", [MiB + 1000 * i]) for i in range(6)}


@pytest.fixture
def server(contents: Contents) -> Iterator[Misbehaving]:
    with misbehaving({"m.safetensors": file_of(contents)}) as state:
        yield state


def load(server: Misbehaving, misdeed: str, **options: Any) -> dict[str, inrush.Tensor]:
    """The file as served with that misdeed."""
    chosen = {"hedge": 0.3, "timeout": 20, **options}
    url = f"{server.url}/{misdeed}/m.safetensors"
    return inrush.open(url, storage_options=chosen).load()


@pytest.mark.parametrize(
    "misdeed", ["serves", "truncates", "resets", "storms", "asks-for-time", "stalls"]
)
def test_what_passes_is_survived(server: Misbehaving, contents: Contents, misdeed: str) -> None:
    check(load(server, misdeed), contents)


def test_a_connection_that_drips_is_left_for_another(
    server: Misbehaving, contents: Contents
) -> None:
    before = time.monotonic()
    check(load(server, "drips"), contents)
    assert time.monotonic() - before < 40


@pytest.mark.parametrize(
    ("misdeed", "kind", "reason"),
    [
        ("ignores-range", inrush.SourceError, "200 OK: the server ignores Range"),
        ("wrong-range", inrush.DataError, r"sent bytes \d+-\d+ instead of \d+-\d+"),
        ("short-range", inrush.DataError, r"sent bytes \d+-\d+ instead of \d+-\d+"),
        ("longer", inrush.DataError, r"says bytes .* and sends \d+ bytes"),
        ("no-content-range", inrush.DataError, "without a Content-Range"),
        ("encodes", inrush.SourceError, "sends it as gzip"),
        ("changes", inrush.DataError, "changed while it was being read: its ETag is another"),
        ("changes-and-knows", inrush.DataError, "412 .*changed while it was being read"),
        ("grows", inrush.DataError, "changed while it was being read: its size"),
        ("refuses", inrush.SourceError, r"403 Forbidden: AccessDenied: No \[31m entry \(.*ID-17\)"),
        ("416", inrush.SourceError, "416 Range Not Satisfiable"),
    ],
)
def test_what_is_wrong_is_one_error(
    server: Misbehaving, misdeed: str, kind: type[Exception], reason: str
) -> None:
    place = rf"read {server.url}/{misdeed}/m\.safetensors \[\d+, \+\d+\) via http: "
    with pytest.raises(kind, match=place + ".*" + reason) as caught:
        load(server, misdeed)
    assert "\x1b" not in str(caught.value)


XML = "<Error><Code>{}</Code><Message>Not like this.</Message></Error>"
JSON = '{{"error": {{"code": 0, "message": "{}: Not like this."}}}}'
PAGE = "<html><body><h1>{}</h1>Not like this.</body></html>"


@pytest.mark.parametrize("when", ["answers-at-once", "answers"])
@pytest.mark.parametrize(
    "refusal",
    [
        (400, "Bad Request", XML, "x-amz-request-id"),
        (401, "Unauthorized", JSON, "x-request-id"),
        (403, "Forbidden", XML, "x-ms-request-id"),
        (404, "Not Found", XML, "x-amz-request-id"),
        (410, "Gone", JSON, "x-guploader-uploadid"),
        (429, "Too Many Requests", JSON, "cf-ray"),
        (500, "Internal Server Error", XML, "x-amz-request-id"),
        (502, "Bad Gateway", PAGE, "x-amz-cf-id"),
        (503, "Service Unavailable", XML, "x-amz-request-id"),
        (504, "Gateway Timeout", PAGE, "x-request-id"),
    ],
)
def test_an_errors_code_and_number_are_the_servers_own(
    server: Misbehaving, when: str, refusal: tuple[int, str, str, str]
) -> None:
    status, phrase, body, header = refusal
    server.answer = (status, {header: "ID-0815"}, body.format("ItsOwnCode"))
    own = "" if body is PAGE else ": ItsOwnCode: Not like this."
    text = rf"{status} {phrase}{own} \(request id ID-0815\)"
    passes = status == 429 or status >= 500
    with pytest.raises(inrush.SourceError, match=text) as caught:
        load(server, when, timeout=1.5 if passes else 30)
    assert f"{server.url}/{when}/m.safetensors" in str(caught.value)
    assert "<" not in str(caught.value)
    assert "\n" not in str(caught.value)
    # What another try cannot change is asked for once, of each part that was on its way.
    assert (" tries)" in str(caught.value)) == passes


def test_a_folder_that_is_refused_says_so() -> None:
    with misbehaving(dict.fromkeys(("model.safetensors", "pytorch_model.bin"), b"x")) as state:
        state.answer = (403, {"x-request-id": "ID-4"}, "")
        url = f"{state.url}/answers-at-once/"
        with pytest.raises(inrush.SourceError, match=r"403 Forbidden \(request id ID-4\)"):
            inrush.open(url)


@pytest.mark.parametrize(
    ("misdeed", "reason"),
    [("fails", r"500 Internal Server Error \(after \d+ tries\)"), ("stalls-for-ever", "nothing")],
)
def test_patience_ends(server: Misbehaving, misdeed: str, reason: str) -> None:
    before = time.monotonic()
    with pytest.raises(inrush.SourceError, match=reason):
        load(server, misdeed, timeout=1.5)
    assert time.monotonic() - before < 30


def test_a_far_path_gets_more_in_flight(server: Misbehaving, contents: Contents) -> None:
    server.latency = 0.1
    url = f"{server.url}/serves/m.safetensors"
    with inrush.open(url).start() as job:
        check(dict(iter(job)), contents)
        assert job.stats()["reads"] > 4
    assert server.most > 2


def test_a_process_that_ends_in_mid_load_ends_as_it_was_told_to(server: Misbehaving) -> None:
    program = (
        "import ctypes, inrush, sys, threading, time\n"
        "checkpoint = inrush.open(sys.argv[1])\n"
        "job = checkpoint.start()\n"
        "def work():\n"
        "    job.wait()\n"
        "threading.Thread(target=work, daemon=True).start()\n"
        "time.sleep(0.2)\n"
        "ctypes.CDLL(None).printf(b'buffered')\n"
        "sys.exit(7)\n"
    )
    url = f"{server.url}/stalls-for-ever/m.safetensors"
    done = subprocess.run(
        [sys.executable, "-c", program, url], capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (7, b"buffered", b"")


def test_a_stalled_load_can_be_cancelled(server: Misbehaving) -> None:
    url = f"{server.url}/stalls-for-ever/m.safetensors"
    before = time.monotonic()
    with inrush.open(url, storage_options={"timeout": 600}).start() as job:
        time.sleep(0.2)
        job.cancel()
        with pytest.raises(inrush.Cancelled):
            dict(iter(job))
    assert time.monotonic() - before < 10


def test_time_in_which_nobody_listened_is_not_the_servers(server: Misbehaving) -> None:
    url = f"{server.url}/waits/m.safetensors"
    code = f"import inrush; inrush.open({url!r}, storage_options={{'timeout': 5}}).load()"
    child = subprocess.Popen([sys.executable, "-c", code])
    assert server.waiting.wait(60)
    child.send_signal(signal.SIGSTOP)  # as a container or a machine that is frozen
    time.sleep(6)
    child.send_signal(signal.SIGCONT)
    time.sleep(0.3)
    server.go.set()
    assert child.wait(60) == 0


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("file:///etc/passwd", "no URL|redirect to file://"),
        ("ftp://127.0.0.1/x", "redirect to ftp://"),
        ("http://169.254.169.254/latest/meta-data", "link-local host 169.254.169.254"),
        ("http://[fe80::1]/x", "link-local"),
        ("http://[::ffff:169.254.169.254]/x", "link-local"),
        ("http://2852039166/x", "link-local"),
    ],
)
def test_redirects_do_not_lead_everywhere(server: Misbehaving, target: str, reason: str) -> None:
    server.target = target
    with pytest.raises(inrush.SourceError, match="redirect"):
        load(server, "redirects")
    with pytest.raises(inrush.SourceError, match=reason):
        load(server, "redirects")


def test_redirects_end(server: Misbehaving) -> None:
    with pytest.raises(inrush.SourceError, match="circles"):
        load(server, "circles")


def test_credentials_stay_with_the_host_they_are_for(
    server: Misbehaving, contents: Contents
) -> None:
    with misbehaving({"m.safetensors": file_of(contents)}) as other:
        server.target = other.url + "/serves/m.safetensors"
        url = server.url.replace("http://", "http://user:pass%20word@")
        options = {"headers": {"X-Token": "t0ken"}, "hedge": 5}
        opened = inrush.open(url + "/redirects/m.safetensors", storage_options=options)
        check(opened.load(), contents)
        assert server.headers[0]["Authorization"] == "Basic dXNlcjpwYXNzIHdvcmQ="
        assert server.headers[0]["X-Token"] == "t0ken"
        assert other.headers
        for seen in other.headers:
            assert "Authorization" not in seen
            assert "X-Token" not in seen


@pytest.mark.parametrize("misdeed", ["refuses", "401", "fails", "changes", "nowhere"])
def test_credentials_are_in_no_error_and_no_trace(server: Misbehaving, misdeed: str) -> None:
    url = server.url.replace("http://", "http://user:h1dden@")
    options = {"headers": "Authorization: Bearer s3cret", "timeout": 1}
    name = "x.safetensors" if misdeed == "nowhere" else "m.safetensors"
    with pytest.raises(inrush.Error) as caught:
        inrush.open(f"{url}/{misdeed}/{name}?sig=pr1vate", storage_options=options).load()
    for secret in ("h1dden", "s3cret", "pr1vate"):
        assert secret not in str(caught.value)
        assert secret not in repr(caught.value.__context__)


def test_a_query_that_signs_goes_to_the_server_and_nowhere_else(
    server: Misbehaving, contents: Contents
) -> None:
    checkpoint = inrush.open(server.url + "/serves/m.safetensors?X-Amz-Signature=pr1vate")
    with checkpoint.start(trace=True) as job:
        check(dict(iter(job)), contents)
        assert "pr1vate" not in repr(job.trace())
    assert "pr1vate" not in repr(checkpoint) + checkpoint.uri + repr(checkpoint.files)


def test_an_unknown_storage_option_is_told(server: Misbehaving) -> None:
    with pytest.raises(inrush.UsageError, match="storage option colour is not known"):
        load(server, "serves", colour="red")
    with pytest.raises(inrush.UsageError, match="timeout"):
        load(server, "serves", timeout=-1)


def test_nobody_there_is_one_error() -> None:
    with pytest.raises(inrush.SourceError, match=r"open http://127\.0\.0\.1:1/.*onnect"):
        inrush.open("http://127.0.0.1:1/m.safetensors", storage_options={"timeout": 0.5})
    before = time.monotonic()
    with pytest.raises(inrush.SourceError, match=r"nowhere\.invalid.*esolve"):
        inrush.open("http://nowhere.invalid/m.safetensors")
    assert time.monotonic() - before < 30  # and not until patience ends


def test_what_the_engine_repeats_is_counted_and_traced(
    server: Misbehaving, contents: Contents
) -> None:
    told: list[list[dict[str, Any]]] = []

    def progress(done: int, total: int, seconds: float, sources: list[dict[str, Any]]) -> None:
        told.append(sources)

    url = server.url + "/{}/m.safetensors"
    for misdeed, what in (("storms", "retries"), ("stalls", "hedges")):
        options = {"hedge": 0.3, "timeout": 20}
        checkpoint = inrush.open(url.format(misdeed), storage_options=options)
        with checkpoint.start(trace=True, progress=progress) as job:
            check(dict(iter(job)), contents)
            stats = job.stats()
            trace = job.trace()
        (source,) = stats["sources"]
        assert source[what] > 0
        assert stats[what] == source[what]
        assert told[-1] == [source] or told[-1][0][what] <= source[what]
        assert sum(getattr(event, what) for event in trace.events) == source[what]
        document = trace.to_json()["traceEvents"]
        reads = [entry for entry in document if entry.get("cat") == "read"]
        assert {entry["args"]["source"] for entry in reads} == {source["uri"]}
        assert sum(entry["args"][what] for entry in reads) == source[what]
        assert any(entry["ph"] == "C" and source["uri"] in entry["name"] for entry in document)


def test_a_far_load_misses_nothing_of_a_files(
    server: Misbehaving, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("DEBUG", logger="inrush"):
        inrush.open(server.url + "/serves/m.safetensors").load()
    assert "tensors, " in caplog.text
    assert "without direct I/O" not in caplog.text
    assert "residency" not in caplog.text


def test_progress_that_wants_three_gets_three(server: Misbehaving) -> None:
    calls: list[tuple[Any, ...]] = []
    inrush.open(server.url + "/serves/m.safetensors").load(
        progress=lambda *given: calls.append(given)
    )
    assert calls
    assert all(len(given) == 3 for given in calls)
