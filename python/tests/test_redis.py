"""Checkpoints in a real Redis server."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Command, random_tensor, write_file
from servers import free_port, program, running

import inrush


class Server:
    """A redis-server, and as much of a client as setting keys takes."""

    def __init__(self, port: int, password: str = "", tls: bool = False) -> None:
        self.port = port
        login = f":{password}@" if password else ""
        self.base = f"redis{'s' if tls else ''}://{login}127.0.0.1:{port}/"
        self.password = password

    def ask(self, *words: bytes | str) -> bytes:
        """The raw reply to one command."""
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            if self.password:
                connection.sendall(_command(("AUTH", self.password)))
                connection.recv(100)
            connection.sendall(_command(words))
            return connection.recv(1000)

    def put(self, key: str, data: bytes, part: int) -> None:
        """A file in keys as tensorizer names them."""
        for offset in range(0, len(data), part):
            name = "header" if offset == 0 else f"layer{offset % 7}"
            self.ask("SET", f"{key}:{name}:{offset}", data[offset : offset + part])


def _command(words: tuple[bytes | str, ...]) -> bytes:
    encoded = [word if isinstance(word, bytes) else word.encode() for word in words]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in encoded)


def _serve(folder: Path, *options: str) -> list[str]:
    return [program("redis-server"), "--save", "", "--dir", str(folder), *options]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    port = free_port()
    with running(_serve(tmp_path, "--port", str(port)), port, stdout=subprocess.DEVNULL):
        yield Server(port)


@pytest.fixture
def model(tmp_path: Path) -> tuple[bytes, dict[str, bytes]]:
    """A safetensors file's bytes, and its tensors'."""
    contents = {f"t{i}": random_tensor("F32", [200, 300 + i]) for i in range(5)}
    path = write_file(tmp_path / "model.safetensors", contents)
    return path.read_bytes(), {name: data for name, (_, _, data) in contents.items()}


def loaded(uri: str, **words: object) -> dict[str, bytes]:
    """Everything, as bytes."""
    with inrush.open(uri, **words) as checkpoint:
        return {name: bytes(memoryview(tensor).cast("B")) for name, tensor in checkpoint.tensors()}


def test_a_checkpoint_in_keys_is_loaded(
    server: Server, model: tuple[bytes, dict[str, bytes]]
) -> None:
    data, expected = model
    server.put("models/m", data, 100_000)
    assert loaded(server.base + "models/m") == expected


def test_a_checkpoint_in_one_value_is_loaded(
    server: Server, model: tuple[bytes, dict[str, bytes]]
) -> None:
    data, expected = model
    server.ask("SET", "m.safetensors", data)
    assert loaded(server.base + "m.safetensors") == expected


def test_another_database_is_selected(
    server: Server, model: tuple[bytes, dict[str, bytes]]
) -> None:
    server.ask("SET", "m", model[0])
    with pytest.raises(inrush.SourceError, match="there is no such key"):
        inrush.open(server.base + "m?db=1")


def test_the_password_is_needed_and_shown_nowhere(
    tmp_path: Path, model: tuple[bytes, dict[str, bytes]]
) -> None:
    data, expected = model
    port = free_port()
    command = _serve(tmp_path, "--port", str(port), "--requirepass", "hunter2")
    with running(command, port, stdout=subprocess.DEVNULL):
        server = Server(port, "hunter2")
        server.put("m", data, 1 << 20)
        assert loaded(server.base + "m") == expected
        with inrush.open(server.base + "m") as checkpoint, checkpoint.start(trace=True) as job:
            dict(job)
            shown = f"{checkpoint!r} {checkpoint.uri} {checkpoint.files} {job.stats()}"
            shown += f"{job.explain()} {[event.blob for event in job.trace().events]}"
        assert "hunter2" not in shown
        wrong = server.base.replace("hunter2", "guess7") + "m"
        with pytest.raises(inrush.SourceError, match="refuses the password") as caught:
            inrush.open(wrong)
        assert "guess7" not in str(caught.value)
        done = subprocess.run(
            [sys.executable, "-m", "inrush", "load", wrong], capture_output=True, text=True
        )
        assert done.returncode == 3
        assert "guess7" not in done.stdout + done.stderr


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_the_password_of_what_is_written_is_shown_nowhere(
    tmp_path: Path, model: tuple[bytes, dict[str, bytes]], inrush_command: Command, more: list[str]
) -> None:
    data, _ = model
    source = tmp_path / "m.safetensors"
    source.write_bytes(data)
    port = free_port()
    command = _serve(tmp_path, "--port", str(port), "--requirepass", "hunter2")
    with running(command, port, stdout=subprocess.DEVNULL):
        base = Server(port, "hunter2").base
        to = ("--to", "tensorizer")
        for words, code in (
            (("load", source, "--out", base + "a"), 0),
            (("convert", source, base + "b", *to), 0),
            (("convert", source, base + "b", *to), 2),  # it is there already
            (("convert", source, base + "c", *to, "--resume"), 2),
            (("manifest", source, "-o", base + "d"), 0),
            (("verify", source, "--manifest", base + "d"), 0),
        ):
            done = inrush_command(*words, *more)
            assert done.returncode == code, done.stderr
            assert "hunter2" not in done.stdout + done.stderr


def test_tls_is_spoken_and_the_server_checked(
    tmp_path: Path, model: tuple[bytes, dict[str, bytes]]
) -> None:
    data, expected = model
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost",
         "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    port, plain = free_port(), free_port()
    command = _serve(
        tmp_path, "--tls-port", str(port), "--port", str(plain), "--tls-cert-file",
        str(certificate), "--tls-key-file", str(key), "--tls-auth-clients", "no",
    )  # fmt: skip
    with running(command, port, stdout=subprocess.DEVNULL):
        Server(plain).put("m", data, 70_000)
        uri = f"rediss://127.0.0.1:{port}/m"
        assert loaded(f"{uri}?ssl_ca_certs={certificate}") == expected
        with pytest.raises(inrush.SourceError, match="is not trusted"):
            inrush.open(uri)
        with pytest.raises(inrush.Error, match=r"TLS|closed|reset"):
            inrush.open(f"rediss://127.0.0.1:{plain}/m?ssl_ca_certs={certificate}")


def test_a_server_that_dies_in_mid_load_is_one_error(
    tmp_path: Path, model: tuple[bytes, dict[str, bytes]]
) -> None:
    port = free_port()
    command = _serve(tmp_path, "--port", str(port))
    with running(command, port, stdout=subprocess.DEVNULL) as process:
        server = Server(port)
        server.put("m", model[0], 100_000)
        with inrush.open(server.base + "m") as checkpoint:
            process.kill()
            process.wait()
            with pytest.raises(inrush.SourceError, match=r"Connection refused|closed|reset"):
                checkpoint.load()


def test_a_value_that_changes_after_it_was_opened_is_noticed(
    server: Server, model: tuple[bytes, dict[str, bytes]]
) -> None:
    server.put("m", model[0], 100_000)
    with inrush.open(server.base + "m") as checkpoint:
        server.ask("SETRANGE", f"m:layer{100_000 % 7}:100000", "5", b"other")
        with pytest.raises(inrush.DataError, match="changed while it was being read"):
            checkpoint.load()


def test_a_folder_and_a_server_are_mirrors_of_each_other(
    server: Server, model: tuple[bytes, dict[str, bytes]], tmp_path: Path
) -> None:
    data, expected = model
    server.put("m", data, 100_000)
    assert loaded(str(tmp_path / "model.safetensors"), mirrors=[server.base + "m"]) == expected


def test_a_checkpoint_is_saved_to_keys_and_loaded_again(
    server: Server, model: tuple[bytes, dict[str, bytes]], tmp_path: Path
) -> None:
    numpy = pytest.importorskip("numpy")
    import inrush.numpy

    arrays = {f"t{i}": numpy.random.default_rng(i).random((50, 60)) for i in range(3)}
    uri = server.base + "models/saved"
    inrush.numpy.save_file(arrays, uri)
    inrush.numpy.save_file(arrays, uri)  # replaces what was there
    assert loaded(uri) == {name: array.tobytes() for name, array in arrays.items()}
    assert server.ask("DBSIZE") == b":1\r\n"
