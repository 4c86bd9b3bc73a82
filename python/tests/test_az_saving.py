"""az://: block blobs, against a server of this machine that checks what it is asked for."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from urllib.parse import parse_qsl, unquote, urlsplit
from xml.etree import ElementTree

import inrush.numpy
import inrush.torch
import numpy as np
import pytest
from servers import Answers, answering
from test_s3 import nothing_of_the_users

import inrush

__all__ = ["nothing_of_the_users"]

SAS = {"sv": "2021-08-06", "sr": "c", "sp": "racwdl", "sig": "pr1vate="}


class Container:
    """What the server holds."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.blocks: dict[str, dict[str, bytes]] = {}  # not committed
        self.complaints: list[str] = []
        self.refuses_block = ""
        self.url = ""


class Answering(Answers):
    """Answers for the container that a subclass names."""

    state: Container
    request_id = ("x-ms-request-id", "ms-17")

    def do(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urlsplit(self.path)
        query = dict(parse_qsl(path.query, keep_blank_values=True))
        name = unquote(path.path).removeprefix("/account/box/")
        if any(query.pop(key, None) != value for key, value in SAS.items()):
            self.answer(403, x_ms_error_code="AuthenticationFailed")
        elif "x-ms-version" not in self.headers:
            self.state.complaints.append("no x-ms-version")
            self.answer(400, x_ms_error_code="MissingRequiredHeader")
        elif self.command == "PUT":
            self.put(name, query, body)
        elif self.command == "DELETE":
            self.answer(202 if self.state.blobs.pop(name, None) is not None else 404)
        elif query.get("comp") == "list":
            prefix = query.get("prefix", "")
            found = [one for one in self.state.blobs if one.startswith(prefix)]
            text = "".join(f"<Blob><Name>{one}</Name></Blob>" for one in found)
            xml = f"<EnumerationResults><Blobs>{text}</Blobs><NextMarker/></EnumerationResults>"
            self.answer(200, xml.encode())
        else:
            self.get(name)

    do_GET = do_HEAD = do_PUT = do_DELETE = do

    def put(self, name: str, query: dict[str, str], body: bytes) -> None:
        comp = query.get("comp")
        if comp == "block":
            number = base64.b64decode(query["blockid"], validate=True).decode()
            if number == self.state.refuses_block:
                self.answer(403, x_ms_error_code="AuthorizationPermissionMismatch")
                return
            lengths = {len(one) for one in self.state.blocks.get(name, {})}
            if lengths - {len(query["blockid"])}:
                self.state.complaints.append("block ids of several lengths")
            self.state.blocks.setdefault(name, {})[query["blockid"]] = body
        elif comp == "blocklist":
            root = ElementTree.fromstring(body)
            blocks = self.state.blocks.pop(name)
            self.state.blobs[name] = b"".join(blocks[str(one.text)] for one in root)
        elif self.headers.get("x-ms-blob-type") == "BlockBlob":
            self.state.blobs[name] = body
        else:
            self.state.complaints.append("a blob of no type")
        self.answer(201)

    def get(self, name: str) -> None:
        data = self.state.blobs.get(name)
        if data is None:
            self.answer(404, x_ms_error_code="BlobNotFound")
            return
        first, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")
        end = min(int(last or len(data)), len(data) - 1)
        span = f"bytes {first}-{end}/{len(data)}"
        self.answer(206, data[int(first) : end + 1], ETag='"0x8"', Content_Range=span)


@pytest.fixture
def container() -> Iterator[Container]:
    state = Container()
    with answering(type("AzureAnswers", (Answering,), {"state": state})) as url:
        state.url = url + "/account"
        yield state
    assert state.complaints == []


def options(container: Container) -> dict[str, str]:
    sas = "&".join(f"{key}={value.replace('=', '%3D')}" for key, value in SAS.items())
    return {"endpoint": container.url, "sas": "?" + sas}


@pytest.mark.parametrize("size", [1000, 40 << 20])
def test_blobs_are_saved_whole(container: Container, size: int) -> None:
    array = np.random.default_rng(size).integers(0, 255, size, dtype=np.uint8)
    uri = "az://box/a folder/x y.safetensors"
    inrush.numpy.save_file({"x": array}, uri, storage_options=options(container))
    assert container.blobs["a folder/x y.safetensors"] == inrush.numpy.save({"x": array})
    loaded = inrush.open(uri, storage_options=options(container)).load()
    assert bytes(memoryview(loaded["x"]).cast("B")) == array.tobytes()


def test_a_save_that_fails_shows_nothing_and_tells_no_secret(container: Container) -> None:
    container.refuses_block = "00000002"
    array = np.random.default_rng(1).integers(0, 255, 40 << 20, dtype=np.uint8)
    with pytest.raises(inrush.SourceError, match=r"save az://box/x.*AuthorizationPermission") as e:
        inrush.numpy.save_file({"x": array}, "az://box/x", storage_options=options(container))
    assert "pr1vate" not in str(e.value)
    assert "ms-17" in str(e.value)
    assert container.blobs == {}
    with pytest.raises(inrush.SourceError, match="no credentials"):
        inrush.numpy.save_file(
            {"x": array}, "az://box/x", storage_options={"endpoint": container.url}
        )


def test_shards_and_their_index_are_saved(container: Container) -> None:
    torch = pytest.importorskip("torch")
    state = {f"t{i}": torch.rand(300_000) for i in range(4)}
    for size, count in ((1_300_000, 5), (5_000_000, 1)):
        names = inrush.torch.save_sharded(
            state, "az://box/m/", max_shard_size=size, storage_options=options(container)
        )
        assert len(names) == count
        assert {f"m/{name}" for name in names} == set(container.blobs)
        loaded = inrush.open("az://box/m/", storage_options=options(container)).load()
        assert set(loaded) == set(state)
