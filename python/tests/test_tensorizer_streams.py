"""`inrush.tensorizer` over http, S3 and Redis, each a real server on this machine."""

from __future__ import annotations

import contextlib
import http.server
import io
import os
import socket
import subprocess
import tempfile
import threading
import time
import tracemalloc

import pytest

torch = pytest.importorskip("torch")

import inrush.tensorizer as tensorizer  # noqa: E402
from inrush.tensorizer import _redis, stream_io  # noqa: E402
from servers import free_port, nginx, program, running  # noqa: E402
from test_s3 import client_of, moto, words  # noqa: E402, F401

import inrush  # noqa: E402

SECRET = "very-secret-key"


class Server(http.server.BaseHTTPRequestHandler):
    """Serves `server.files`; `server.fault` is a function that may answer otherwise."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.seen.append((self.path, dict(self.headers)))
        with self.server.lock:
            self.server.now += 1
            self.server.most = max(self.server.most, self.server.now)
        try:
            self.answer()
        finally:
            with self.server.lock:
                self.server.now -= 1

    def answer(self):
        if self.server.fault is not None and self.server.fault(self):
            return
        self.serve(self.server.files[self.path.partition("?")[0]])

    def serve(self, data, *, ranges=True, most=None):
        begin, end = 0, len(data)
        wanted = self.headers.get("Range") if ranges else None
        if wanted:
            first, last = wanted.removeprefix("bytes=").split("-")
            begin, end = int(first), min(int(last) + 1 if last else end, end)
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(end - begin))
        self.send_header("ETag", self.server.tag)
        if wanted:
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{len(data)}")
        self.end_headers()
        self.server.sent += len(data[begin:end][:most])
        with contextlib.suppress(ConnectionError):
            self.wfile.write(data[begin:end][:most])
            if most is not None and end - begin > most:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)

    def do_PUT(self):
        self.server.files[self.path.partition("?")[0]] = self.rfile.read(
            int(self.headers["Content-Length"])
        )
        self.server.seen.append((self.path, dict(self.headers)))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serving(files):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    server.daemon_threads = True
    server.files, server.seen, server.fault, server.tag = dict(files), [], None, '"1"'
    server.lock, server.now, server.most, server.sent = threading.Lock(), 0, 0, 0
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def tensors():
    torch.manual_seed(1)
    return {f"t{i}": torch.rand(1 << 18) for i in range(12)} | {"a b": torch.rand(3)}


@pytest.fixture(scope="module")
def data(tensors):
    return serialized(tensors)


def serialized(tensors):
    with io.BytesIO() as file:
        file.close = lambda: None
        serializer = tensorizer.TensorSerializer(file)
        serializer.write_state_dict(tensors)
        serializer.close()
        return file.getvalue()


@pytest.fixture
def server(data):
    with serving({"/m.tensors": data, "/bucket/m.tensors": data}) as made:
        yield made


def right(found, tensors) -> bool:
    return set(found) == set(tensors) and all(torch.equal(found[n], tensors[n]) for n in tensors)


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("readers", [None, 1, 3])
def test_a_file_behind_http_is_read(server, tensors, lazy, readers):
    with tensorizer.TensorDeserializer(
        f"{server.url}/m.tensors", "cpu", lazy_load=lazy, num_readers=readers, verify_hash=True
    ) as found:
        assert right(found, tensors)


def test_only_what_is_wanted_is_fetched(server, data, tensors):
    with tensorizer.TensorDeserializer(
        f"{server.url}/m.tensors", "cpu", filter_func=lambda name: name == "t3"
    ) as found:
        assert torch.equal(found["t3"], tensors["t3"])
        assert found.total_bytes_read < len(data) // 4
    assert server.sent < len(data) // 4
    server.sent = 0
    with tensorizer.TensorDeserializer(
        f"{server.url}/m.tensors", "cpu", lazy_load=True, verify_hash=True
    ) as found:
        assert len(found) == len(tensors)
        before = server.sent
        assert torch.equal(found["t7"], tensors["t7"])
        assert server.sent - before < 2 * tensors["t7"].nbytes


def test_a_file_behind_http_is_read_in_parts_side_by_side(server, tensors):
    def wait_for_another(answer):
        until = time.monotonic() + 30
        while "bytes=0-" not in answer.headers["Range"] and server.most < 2:
            if time.monotonic() > until:
                return
            time.sleep(0.01)

    server.fault = wait_for_another
    with tensorizer.TensorDeserializer(f"{server.url}/m.tensors", "cpu") as found:
        assert right(found, tensors)
    assert server.most > 1


def test_tensors_are_given_in_order_while_a_file_behind_http_is_read(server, tensors):
    with tensorizer.TensorDeserializer(f"{server.url}/m.tensors", "cpu", lazy_load=True) as found:
        names = [name for _, _, name, _ in found.read_tensors(num_tensors=5)]
        assert names == list(tensors)[:5]
        rest = {name: tensor for _, _, name, tensor in found.read_tensors()}
        assert list(rest) == list(tensors)[5:]
        assert all(torch.equal(rest[name], tensors[name]) for name in rest)
        assert list(found.read_tensors()) == []


def test_a_stream_behind_http_is_a_file(server, data):
    with stream_io.open_stream(f"{server.url}/m.tensors") as stream:
        assert stream.read(10) == data[:10]
        assert stream.tell() == 10
        stream.seek(1_000_000)
        taken = bytearray(3_000_000)
        assert stream.readinto(taken) == len(taken)
        assert taken == data[1_000_000:4_000_000]
        stream.seek(-100, os.SEEK_CUR)
        assert stream.read(200) == data[3_999_900:4_000_100]
        stream.seek(len(data) - 3)
        assert stream.read(10) == data[-3:]
        assert stream.read(10) == b""
        with pytest.raises(ValueError, match="whence"):
            stream.seek(0, os.SEEK_END)
        assert stream.response_headers["ETag"] == '"1"'
        assert int(stream.response_headers["content-length"]) == stream.size
    with pytest.raises(OSError, match="closed"):
        stream.read(1)
    pieces = bytearray()
    with stream_io.open_stream(f"{server.url}/m.tensors", end=5_000_001) as stream:
        server.seen.clear()
        while part := stream.read(12_345):
            pieces += part
    assert pieces == data[:5_000_001]
    assert len(server.seen) < 20  # what is read in order is fetched ahead, more and more of it


def test_the_engine_opens_the_same_file(server, tensors):
    with inrush.open(f"{server.url}/m.tensors", framework="pt") as checkpoint:
        assert checkpoint.format == "tensorizer"
        assert right(checkpoint.load(verify="full"), tensors)
        server.sent = 0
        assert torch.equal(checkpoint.tensor("t4", slice(10, 20)), tensors["t4"][10:20])
        assert server.sent < 1 << 16


def test_a_stream_that_is_a_file_in_memory_or_a_pipe_is_read(data, tensors):
    with tensorizer.TensorDeserializer(io.BytesIO(data), "cpu") as found:
        assert right(found, tensors)
    prefixed = io.BytesIO(b"x" * 100 + data)  # offsets in it count from its beginning
    prefixed.seek(100)
    with pytest.raises(ValueError, match=r"record|hash|agree|header"):
        tensorizer.TensorDeserializer(prefixed, "cpu", verify_hash=True)
    reader, writer = os.pipe()

    def fill():
        with open(writer, "wb") as file:
            file.write(data)

    thread = threading.Thread(target=fill)
    thread.start()
    with open(reader, "rb") as pipe, tensorizer.TensorDeserializer(pipe, "cpu") as found:
        assert right(found, tensors)
    thread.join()
    with pytest.raises(ValueError, match="num_readers"):
        tensorizer.TensorDeserializer(io.BytesIO(data), "cpu", num_readers=2)


def test_a_file_that_begins_within_another_is_read(tensors):
    with io.BytesIO(b"x" * 1000) as file:
        file.seek(1000)
        file.close = lambda: None
        serializer = tensorizer.TensorSerializer(file)
        serializer.write_state_dict(tensors)
        serializer.close()
        file.seek(1000)
        with tensorizer.TensorDeserializer(file, "cpu", verify_hash=True) as found:
            assert right(found, tensors)


def test_a_transfer_that_breaks_off_goes_on(server, data):
    cuts = iter([70_000, 1, 300_000])
    server.fault = lambda answer: (
        (most := next(cuts, None)) is not None and (answer.serve(data, most=most) or True)
    )
    with stream_io.open_stream(f"{server.url}/m.tensors") as stream:
        assert stream.read() == data
    assert len(server.seen) >= 4


def test_a_whole_file_is_in_memory_once(tmp_path):
    data = os.urandom(24 << 20)
    served = tmp_path / "served"
    served.mkdir()
    (served / "m.tensors").write_bytes(data)
    with (
        nginx(served, tmp_path / "nginx") as port,
        stream_io.open_stream(f"http://127.0.0.1:{port}/m.tensors") as stream,
    ):
        tracemalloc.start()
        try:
            got = stream.read()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert got == data
    assert peak < len(data) * 3 // 2


def test_a_file_that_changes_meanwhile_is_an_error(server, data):
    with stream_io.open_stream(f"{server.url}/m.tensors") as stream:
        assert stream.read(100) == data[:100]
        server.tag = '"2"'
        with pytest.raises(OSError, match="changed while it was being read"):
            stream.read()


def test_a_server_without_ranges_is_read_right(server, data, tensors):
    server.fault = lambda answer: answer.serve(data, ranges=False) or True
    stream = stream_io.open_stream(f"{server.url}/m.tensors", begin=5)
    assert stream.read(100) == data[5:105]
    with tensorizer.TensorDeserializer(f"{server.url}/m.tensors", "cpu", num_readers=1) as found:
        assert torch.equal(found["t0"], tensors["t0"])


def test_a_wrong_range_is_an_error(server):
    def fault(answer):
        answer.send_response(206)
        answer.send_header("Content-Length", "3")
        answer.send_header("Content-Range", "bytes 4-6/3000")
        answer.end_headers()
        answer.wfile.write(b"abc")
        return True

    server.fault = fault
    with pytest.raises(OSError, match="sent bytes 4-6 instead of"):
        stream_io.open_stream(f"{server.url}/m.tensors", begin=7)


def test_redirects_are_followed_without_what_is_secret(server, data):
    with serving({}) as first:

        def redirect(answer):
            answer.send_response(302)
            answer.send_header("Location", f"{server.url}/m.tensors")
            answer.send_header("Content-Length", "0")
            answer.end_headers()
            return True

        first.fault = redirect
        stream = stream_io.CURLStreamFile(
            f"{first.url}/x", begin=3, end=9, headers={"Authorization": SECRET}
        )
        assert stream.read() == data[3:9]
        assert first.seen[0][1]["Authorization"] == SECRET
    assert "Authorization" not in server.seen[0][1]


def test_errors_do_not_show_what_is_secret(server):
    server.fault = lambda answer: answer.send_error(403) or True
    with pytest.raises(OSError, match="403") as error:
        stream_io.CURLStreamFile(f"{server.url}/none?X-Amz-Signature={SECRET}")
    assert SECRET not in str(error.value)
    with pytest.raises(OSError, match="403") as error:
        stream_io.CURLStreamFile(server.url.replace("//", f"//user:{SECRET}@") + "/none")
    assert SECRET not in str(error.value)
    with pytest.raises(OSError, match="403") as error:
        stream_io.open_stream("s3://bucket/none.tensors", **s3(server))
    assert SECRET not in str(error.value)


def s3(server, **words):
    return {
        "s3_access_key_id": "id", "s3_secret_access_key": SECRET, "s3_endpoint": server.url,
        "force_http": True, **words,
    }  # fmt: skip


def test_an_object_is_written_and_read(server, tensors):
    # In one request: this server knows nothing of uploads in parts.
    tensors = {name: tensor[:1000].clone() for name, tensor in tensors.items()}
    with stream_io.open_stream("s3://bucket/new.tensors", "wb+", **s3(server)) as stream:
        serializer = tensorizer.TensorSerializer(stream)
        serializer.write_state_dict(tensors)
        assert "/bucket/new.tensors" not in server.files
        serializer.close()
    with stream_io.open_stream("s3://bucket/new.tensors", **s3(server)) as stream:
        assert right(tensorizer.TensorDeserializer(stream, "cpu"), tensors)
    assert all("AWS4-HMAC-SHA256" in headers["Authorization"] for _, headers in server.seen)
    assert all(SECRET not in str(seen) for seen in server.seen)


def test_the_functions_under_open_stream_are_there_too(server, data, tmp_path):
    (tmp_path / "file").write_bytes(data[:70000])
    place = ("s3://bucket/up.tensors", "id", SECRET, server.url)
    stream_io.s3_upload(str(tmp_path / "file"), *place)
    with stream_io.s3_download(*place, begin=7) as stream:
        assert stream.seek(-3, stream_io.SEEK_CUR) == 4
        assert stream.read() == data[4:70000]
    assert all("AWS4-HMAC-SHA256" in headers["Authorization"] for _, headers in server.seen)
    server.seen.clear()
    assert stream_io.s3_download("s3://bucket/m.tensors", "", "", server.url).read() == data
    assert all("Authorization" not in headers for _, headers in server.seen)
    with pytest.raises(ValueError, match="s3_secret_access_key is missing"):
        stream_io.s3_upload(str(tmp_path / "file"), place[0], "id", None, server.url)


def test_a_large_object_is_written_in_parts(moto, tensors):  # noqa: F811
    tensors = tensors | {"more": torch.rand(3 << 20)}
    client = client_of(moto)
    client.create_bucket(Bucket="streams")
    credentials = words(moto)
    place = {
        "s3_access_key_id": credentials["key"],
        "s3_secret_access_key": credentials["secret"],
        "s3_endpoint": moto,
        "force_http": True,
    }
    with stream_io.open_stream("s3://streams/new.tensors", "wb+", **place) as stream:
        serializer = tensorizer.TensorSerializer(stream)
        serializer.write_state_dict(tensors)
        serializer.close()
    found = client.get_object(Bucket="streams", Key="new.tensors")
    assert found["Body"].read() == serialized(tensors)
    assert found["ETag"].strip('"').endswith("-2")  # as S3 names what came in two parts
    with stream_io.open_stream("s3://streams/new.tensors", **place) as stream:
        assert right(tensorizer.TensorDeserializer(stream, "cpu"), tensors)


def test_a_serializer_that_is_left_by_an_exception_publishes_nothing(server, monkeypatch):
    monkeypatch.setattr(stream_io, "default_s3_write_endpoint", "127.0.0.1:1")
    for name, value in {
        "AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_ENDPOINT_URL": server.url,
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    for fails in (True, False):
        with (
            contextlib.suppress(KeyError),
            tensorizer.TensorSerializer("s3://bucket/whole.tensors") as serializer,
        ):
            serializer.write_state_dict({"a": torch.rand(9)})
            if fails:
                raise KeyError
        assert ("/bucket/whole.tensors" in server.files) is not fails


def test_an_upload_that_fails_or_is_forgotten_leaves_no_object(server):
    with (
        contextlib.suppress(KeyError),
        stream_io.open_stream("s3://bucket/a", "wb", **s3(server)) as stream,
    ):
        stream.write(b"half")
        raise KeyError
    stream = stream_io.open_stream("s3://bucket/b", "wb", **s3(server))
    stream.write(b"half")
    with pytest.warns(ResourceWarning, match="never closed"):
        del stream
    assert set(server.files) == {"/m.tensors", "/bucket/m.tensors"}
    with pytest.raises(ValueError, match="ab"):
        stream_io.open_stream("s3://bucket/b", "ab", **s3(server))


def test_nothing_is_signed_where_there_are_no_keys(server, data, monkeypatch, tmp_path):
    for word in [word for word in os.environ if word.startswith("AWS_")]:
        monkeypatch.delenv(word)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr(stream_io, "_s3_default_config_paths", (str(tmp_path / "s3cfg"),))
    words = {"s3_endpoint": server.url, "force_http": True}
    with stream_io.open_stream("s3://bucket/m.tensors", **words) as stream:
        assert stream.read() == data
    assert all("Authorization" not in headers for _, headers in server.seen)
    server.seen.clear()
    (tmp_path / "s3cfg").write_text(  # as s3cmd reads it: without the quotes
        f'[default]\naccess_key = "id"\nsecret_key = {SECRET}\n'
        f"host_base = {server.url.removeprefix('http://')}\nuse_https = False\n"
    )
    with stream_io.open_stream("s3://bucket/m.tensors") as stream:
        assert stream.read() == data
    for _, headers in server.seen:
        assert "AWS4-HMAC-SHA256 Credential=id/" in headers["Authorization"]


def test_endpoints_without_tls_are_refused_and_the_default_one_warns(monkeypatch, tmp_path):
    for word in [word for word in os.environ if word.startswith("AWS_")]:
        monkeypatch.delenv(word)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(stream_io, "_s3_default_config_paths", ())
    monkeypatch.setattr(stream_io, "_warned", set())
    keys = {"s3_access_key_id": "", "s3_secret_access_key": ""}
    with pytest.raises(ValueError, match="Non-HTTPS"):
        stream_io.open_stream("s3://b/k", "wb", s3_endpoint="http://x", **keys)
    with pytest.warns(UserWarning, match=r"coreweave\.com"):
        stream = stream_io.open_stream("s3://b/k", "wb", **keys)
    stream._wanted = False
    stream.close()


@pytest.fixture
def redis_port(tmp_path):
    port = free_port()
    options = ["--port", str(port), "--save", "", "--requirepass", SECRET]
    command = [program("redis-server"), *options]
    with running(command, port, cwd=tmp_path, stdout=subprocess.DEVNULL):
        yield port


@pytest.mark.parametrize("lazy", [False, True])
def test_redis_gives_back_what_it_was_given(redis_port, data, tensors, lazy, monkeypatch):
    monkeypatch.setattr(_redis, "_LARGEST_VALUE", 1_000_000)  # some tensors take two keys
    redis = pytest.importorskip("redis")
    client = redis.Redis(port=redis_port, password=SECRET)
    client.set("model[1]:of others", b"x")
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        source = tensorizer.TensorDeserializer(file.name, "cpu", lazy_load=lazy)
        source.to_redis(client, "model[1]")
    with tensorizer.TensorDeserializer(
        f"redis://:{SECRET}@127.0.0.1:{redis_port}/model[1]", "cpu", lazy_load=lazy
    ) as found:
        assert right(found, tensors)
    for prefix, told in (("model[1]", "NOAUTH"), ("none", "no such key")):
        login = "" if told == "NOAUTH" else f":{SECRET}@"
        with pytest.raises(OSError, match=told) as error:
            stream_io.open_stream(f"redis://{login}127.0.0.1:{redis_port}/{prefix}")
        assert SECRET not in str(error.value)
