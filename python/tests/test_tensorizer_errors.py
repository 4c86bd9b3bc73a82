"""Trouble with places and arguments: the exception that tensorizer raises, side by side."""

from __future__ import annotations

import importlib
import io
import os
import subprocess
import warnings

import pytest
from servers import free_port, nginx, program, running

torch = pytest.importorskip("torch")
pytest.importorskip("tensorizer", reason="tensorizer is the judge")

KITS = [importlib.import_module(name) for name in ("inrush.tensorizer", "tensorizer")]
STREAMS = [importlib.import_module(kit.__name__ + ".stream_io") for kit in KITS]


@pytest.fixture(autouse=True)
def quiet(monkeypatch, tmp_path):
    for word in [word for word in os.environ if word.startswith(("AWS_", "S3_"))]:
        monkeypatch.delenv(word)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(STREAMS[0], "_s3_default_config_paths", ())
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture
def data(tmp_path):
    serializer = KITS[1].TensorSerializer(str(tmp_path / "m.tensors"))
    serializer.write_state_dict({"a": torch.rand(1000)})
    serializer.close()
    return (tmp_path / "m.tensors").read_bytes()


@pytest.fixture
def server(data, tmp_path):
    with nginx(tmp_path, tmp_path / "nginx") as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def closed():
    """A port of this machine that nobody listens at."""
    return free_port()


@pytest.fixture
def redis_port(tmp_path):
    port = free_port()
    command = [program("redis-server"), "--port", str(port), "--save", ""]
    with running(command, port, cwd=tmp_path, stdout=subprocess.DEVNULL):
        yield port


def raised(call) -> BaseException | None:
    try:
        call()
    except Exception as error:
        return error
    return None


def same(call, modules) -> BaseException:
    """Our exception; it is one of the class that theirs has."""
    mine, other = (raised(lambda module=module: call(module)) for module in modules)
    assert other is not None, "tensorizer raises nothing"
    known = [kind.__name__ for kind in type(mine).__mro__]  # each has its own CryptographyError
    assert type(other).__name__ in known, f"{other!r} there, {mine!r} here"
    return mine


def test_http_that_cannot_be_had(server, closed):
    for place in (
        f"http://127.0.0.1:{closed}/x",
        "http://no.such.host.invalid/x",
        server.replace("http", "https") + "/m.tensors",
        server + "/nothing",
    ):
        same(lambda module, place=place: module.open_stream(place), STREAMS)
        same(lambda kit, place=place: kit.TensorDeserializer(place, "cpu"), KITS)


def test_ranges_and_arguments_that_cannot_be(server, data):
    url = server + "/m.tensors"
    size = len(data)
    for words in (
        {"begin": -1}, {"begin": 4, "end": 4}, {"begin": 4, "end": 2}, {"begin": size},
        {"begin": size + 5}, {"certificate_handling": "x"}, {"mode": "wb"}, {"mode": "r"},
    ):  # fmt: skip
        same(lambda module, words=words: module.open_stream(url, **words), STREAMS)
    for words in ({}, {"cacert": "/no"}, {"capath": "/no"}, {"cacert": "m.tensors", "capath": "."}):
        same(lambda module, words=words: module.CAInfo(**words), STREAMS)
    for use in (
        lambda stream: stream.readline(),
        lambda stream: stream.write(b"x"),
        lambda stream: stream.seek(-1),
        lambda stream: (stream.close(), stream.read(1)),
    ):
        same(lambda module, use=use: use(module.open_stream(url)), STREAMS)


def test_reads_over_the_end_give_what_there_is(server, data):
    with STREAMS[0].open_stream(server + "/m.tensors", begin=len(data) - 5) as stream:
        assert stream.read(100) == data[-5:]
        assert stream.read(100) == b""


def test_redis_that_cannot_be_had(closed, data):
    where = f"redis://127.0.0.1:{closed}/x"
    for module in (*STREAMS, *KITS):
        opens = getattr(module, "open_stream", None) or module.TensorDeserializer
        with pytest.raises(ConnectionRefusedError):
            opens(where)
    assert str(closed) in str(raised(lambda: STREAMS[0].open_stream(where)))
    same(lambda module: module.open_stream("redis://no.such.host.invalid/x"), STREAMS)
    for uri in ("http://127.0.0.1/x", "redis://127.0.0.1:port/x", "redis://127.0.0.1:70000/x"):
        same(lambda module, uri=uri: module.RedisStreamFile(uri), STREAMS)
    same(lambda module: module.open_stream(where, "wb"), STREAMS)
    with pytest.raises(ValueError, match="Redis URI") as error:
        STREAMS[0].open_stream("redis://:secret@127.0.0.1:port/x")
    assert "secret" not in str(error.value)


def test_redis_without_such_keys_is_an_error_at_once(redis_port):
    where = f"redis://127.0.0.1:{redis_port}/none"
    for opens in (STREAMS[0].open_stream, KITS[0].TensorDeserializer):
        with pytest.raises(OSError, match="no such key"):
            opens(where)


def test_s3_that_cannot_be_had(closed, server):
    keys = {"s3_access_key_id": "a", "s3_secret_access_key": "b", "force_http": True}
    for endpoint in (f"127.0.0.1:{closed}", server.removeprefix("http://")):
        words = {"s3_endpoint": endpoint, **keys}
        same(lambda module, words=words: module.open_stream("s3://b/k", **words), STREAMS)
    for words in ({"s3_endpoint": "http://127.0.0.1", **keys, "force_http": None}, {"mode": "rb+"}):
        same(lambda module, words=words: module.open_stream("s3://b/k", **words), STREAMS)
    for half in ({"s3_access_key_id": "AK"}, {"s3_secret_access_key": "SK"}):
        for mode in ("rb", "wb"):
            with pytest.raises(ValueError, match="is missing") as error:
                STREAMS[0].open_stream("s3://b/k", mode, s3_endpoint="127.0.0.1", **half)
            assert "AK" not in str(error.value) and "SK" not in str(error.value)


def test_local_files_that_cannot_be_had(data, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("hello world" * 100)
    for place, mode in (
        ("/no/such", "rb"), ("folder", "rb"), ("m.tensors", "r"), ("m.tensors", "qb"),
        ("m.tensors", "xb"), ("m.tensors/x", "wb"), ("ftp://x/y", "rb"),
    ):  # fmt: skip
        same(lambda module, at=place, mode=mode: module.open_stream(at, mode), STREAMS)
    for place in ("/no/such", "folder", "empty", "text"):
        same(lambda kit, place=place: kit.TensorDeserializer(place, "cpu"), KITS)
    same(lambda module: module.open_stream("m.tensors", begin=-1), STREAMS)


def test_words_of_the_deserializer_and_the_serializer(server, data):
    for words in (
        {"device": "quux"}, {"dtype": "float"}, {"num_readers": 0}, {"num_readers": -1},
        {"num_readers": "4"}, {"filter_func": 3}, {"encryption": 3},
    ):  # fmt: skip
        same(lambda kit, words=words: kit.TensorDeserializer("m.tensors", **words), KITS)
    same(
        lambda kit: kit.TensorDeserializer(
            "m.tensors", "cpu", encryption=kit.DecryptionParams.from_key(bytes(32))
        ),
        KITS,
    )
    same(lambda kit: kit.TensorDeserializer("m.tensors", "cpu")["none"], KITS)
    same(
        lambda kit: kit.TensorDeserializer("m.tensors", "cpu").load_into_module(
            torch.nn.Linear(2, 2)
        ),
        KITS,
    )
    for place in (server + "/x", "redis://127.0.0.1/x", ".", io.StringIO()):
        same(lambda kit, place=place: kit.TensorSerializer(place), KITS)
    for state in ({"a": 3}, {3: torch.rand(1)}, torch.rand(3)):
        same(lambda kit, state=state: kit.TensorSerializer("q").write_state_dict(state), KITS)
    same(lambda kit: kit.TensorSerializer("q").write_module({"a": 3}), KITS)
    same(lambda kit: kit.EncryptionParams(b"short"), KITS)
    same(lambda kit: kit.DecryptionParams.from_key(b"short"), KITS)
    same(lambda kit: kit.EncryptionParams.from_string(""), KITS)


def test_keys_of_another_kind():
    key, passphrase = (b"k" * 32, "passphrase")
    for kit in KITS:
        for name, words in (
            ("by_key", kit.EncryptionParams(key)),
            ("by_text", kit.EncryptionParams.from_string(passphrase)),
        ):
            serializer = kit.TensorSerializer(name, encryption=words)
            serializer.write_state_dict({"a": torch.rand(3)})
            serializer.close()

    def loaded(kit, name, words):
        return kit.TensorDeserializer(name, "cpu", encryption=words(kit.DecryptionParams))["a"]

    for name, words in (
        ("by_key", lambda given: given.from_string(passphrase)),
        ("by_text", lambda given: given.from_key(key)),
        ("by_text", lambda given: given.from_string("another")),
    ):
        same(lambda kit, name=name, words=words: loaded(kit, name, words), KITS)


def test_readers_are_no_more_than_tensors(data):
    for kit in KITS:
        found = kit.TensorDeserializer(io.BytesIO(data), device="cpu", num_readers=4)
        assert found["a"].shape == (1000,)
    file = io.BytesIO()
    KITS[0].TensorSerializer(file).write_state_dict({"a": torch.rand(3), "b": torch.rand(3)})
    two = file.getvalue()
    same(lambda kit: kit.TensorDeserializer(io.BytesIO(two), device="cpu", num_readers=4), KITS)
