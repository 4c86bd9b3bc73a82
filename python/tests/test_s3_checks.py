"""S3: checksums of whole objects, buckets that are elsewhere, credentials that expire, uploads."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import inrush.numpy
import inrush.torch
import numpy as np
import pytest
from hostile import misbehaving
from servers import Answers, answering
from test_s3 import nothing_of_the_users, words

import inrush

__all__ = ["nothing_of_the_users"]

MiB = 1 << 20
ARRAYS = {f"t{i}": np.random.default_rng(i).random(60_000 + i) for i in range(8)}
FILE = inrush.numpy.save(ARRAYS)


def same(loaded: dict[str, Any]) -> bool:
    return set(loaded) == set(ARRAYS) and all(
        bytes(memoryview(loaded[name]).cast("B")) == array.tobytes()
        for name, array in ARRAYS.items()
    )


class Bucket:
    """A small S3 server of one bucket, which can be told to misbehave."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.sums: dict[str, str] = {}  # headers of answers to HEAD with the checksum mode
        self.sums_of_parts: dict[str, str] = {}
        self.region = ""  # where requests must be signed for; "" takes any
        self.token = ""  # the session token that is good now; "" takes any
        self.payer = False  # whether who asks must say that they pay
        self.skewed = False  # whether the time of a signature is not believed
        self.elsewhere = ""  # where GET is redirected to
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.uploads: dict[str, dict[int, bytes]] = {}
        self.fails_part = 0  # which part of an upload is refused
        self.lock = threading.Lock()
        self.url = ""


class Answering(Answers):
    """Answers for the bucket that a subclass names."""

    bucket: Bucket
    request_id = ("x-amz-request-id", "ID-4711")

    def refuse(self, status: int, code: str, **headers: str) -> None:
        text = f"<Error><Code>{code}</Code><Message>no</Message></Error>"
        self.answer(status, text.encode(), **headers)

    def do(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(size)
        path = urlsplit(self.path)
        key = unquote(path.path).removeprefix("/box/")
        query = parse_qs(path.query, keep_blank_values=True)
        with self.bucket.lock:
            self.bucket.asked.append((self.command, self.path, dict(self.headers)))
        signed = self.headers.get("Authorization", "")
        if self.bucket.region and f"/{self.bucket.region}/s3/" not in signed:
            code = "AuthorizationHeaderMalformed"
            self.refuse(400, code, x_amz_bucket_region=self.bucket.region)
        elif self.bucket.token and self.headers.get("x-amz-security-token") != self.bucket.token:
            self.refuse(400, "ExpiredToken")
        elif self.bucket.payer and self.headers.get("x-amz-request-payer") != "requester":
            self.refuse(403, "AccessDenied")
        elif self.bucket.skewed:
            self.refuse(403, "RequestTimeTooSkewed")
        elif self.bucket.elsewhere and self.command == "GET":
            self.answer(307, Location=self.bucket.elsewhere)
        elif self.command in ("GET", "HEAD"):
            self.give(key, query)
        else:
            self.take(key, query, body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do

    def give(self, key: str, query: dict[str, list[str]]) -> None:
        if "list-type" in query:
            names = [name for name in self.bucket.objects if name.startswith(query["prefix"][0])]
            text = "".join(f"<Contents><Key>{name}</Key></Contents>" for name in names)
            self.answer(200, f"<ListBucketResult>{text}</ListBucketResult>".encode())
            return
        data = self.bucket.objects.get(key)
        if data is None:
            self.refuse(404, "NoSuchKey")
            return
        etag = f'"{hashlib.md5(data).hexdigest()}"'
        given = self.headers.get("Range")
        if given:
            first, last = given.removeprefix("bytes=").split("-")
            end = min(int(last), len(data) - 1)
            span = f"bytes {first}-{end}/{len(data)}"
            sums = self.bucket.sums_of_parts
            body = data[int(first) : end + 1]
            self.answer(206, body, ETag=etag, Content_Range=span, **sums)
            return
        sums = self.bucket.sums if self.headers.get("x-amz-checksum-mode") == "ENABLED" else {}
        self.answer(200, data, ETag=etag, **sums)

    def take(self, key: str, query: dict[str, list[str]], body: bytes) -> None:
        if self.command == "DELETE":
            if "uploadId" in query:
                self.bucket.uploads.pop(query["uploadId"][0], None)
            else:
                self.bucket.objects.pop(key, None)
            self.answer(204)
        elif "uploads" in query:
            name = f"{key}-{len(self.bucket.uploads)}"
            self.bucket.uploads[name] = {}
            xml = f"<R><UploadId>{name}</UploadId></R>"
            self.answer(200, xml.encode())
        elif "partNumber" in query:
            number = int(query["partNumber"][0])
            if number == self.bucket.fails_part:
                self.refuse(403, "AccessDenied")
                return
            self.bucket.uploads[query["uploadId"][0]][number] = body
            self.answer(200, ETag=f'"{number}"')
        elif "uploadId" in query:
            parts = self.bucket.uploads.pop(query["uploadId"][0])
            self.bucket.objects[key] = b"".join(parts[number] for number in sorted(parts))
            self.answer(200, b"<CompleteMultipartUploadResult/>")
        else:
            self.bucket.objects[key] = body
            self.answer(200, ETag='"whole"')


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    state = Bucket()
    state.objects["m.safetensors"] = FILE
    with answering(type("S3Answers", (Answering,), {"bucket": state})) as url:
        state.url = url
        yield state


def crc32_header(data: bytes) -> str:
    return base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()


def bit_crc(data: bytes, polynomial: int, bits: int) -> str:
    """By its definition, with a table of one byte."""
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (polynomial if value & 1 else 0)
        table.append(value)
    ones = (1 << bits) - 1
    state = ones
    for byte in data:
        state = state >> 8 ^ table[(state ^ byte) & 0xFF]
    return base64.b64encode((state ^ ones).to_bytes(bits // 8, "big")).decode()


@pytest.mark.parametrize("kind", ["crc32", "crc32c", "crc64nvme"])
def test_a_checksum_of_the_whole_is_compared(bucket: Bucket, kind: str) -> None:
    good = {
        "crc32": lambda: crc32_header(FILE),
        "crc32c": lambda: bit_crc(FILE, 0x82F63B78, 32),
        "crc64nvme": lambda: bit_crc(FILE, 0x9A6C9329AC4BC9B5, 64),
    }[kind]()
    uri = "s3://box/m.safetensors"
    header = f"x_amz_checksum_{kind}"
    bucket.sums = {header: good, "x_amz_checksum_type": "FULL_OBJECT"}
    assert same(inrush.open(uri, storage_options=words(bucket.url)).load())
    wrong = base64.b64encode(bytes(len(base64.b64decode(good)))).decode()
    bucket.sums[header] = wrong
    with pytest.raises(inrush.DataError, match=r"m\.safetensors .*CRC-.* and the store says 0+$"):
        inrush.open(uri, storage_options=words(bucket.url)).load()
    # Of parts only, or of a part of the load: there is nothing to compare it with.
    part = inrush.open(uri, storage_options=words(bucket.url), include=["t1"]).load()
    assert list(part) == ["t1"]
    bucket.sums["x_amz_checksum_type"] = "COMPOSITE"
    assert same(inrush.open(uri, storage_options=words(bucket.url)).load())
    bucket.sums = {header: wrong + "-7"}
    assert same(inrush.open(uri, storage_options=words(bucket.url)).load())


def test_what_a_server_says_of_a_part_is_not_taken_for_the_whole(bucket: Bucket) -> None:
    # Some servers put the whole's checksum on parts, S3 that of an upload's part.
    bucket.sums_of_parts = {"x_amz_checksum_crc32": crc32_header(b"another")}
    assert same(inrush.open("s3://box/m.safetensors", storage_options=words(bucket.url)).load())
    assert same(inrush.open(f"{bucket.url}/box/m.safetensors").load())


def test_google_says_it_of_the_whole_with_each_part(bucket: Bucket) -> None:
    uri = "gs://box/m.safetensors"
    good = bit_crc(FILE, 0x82F63B78, 32)
    bucket.sums_of_parts = {"x_goog_hash": f"crc32c={good},md5=AAAA"}
    assert same(inrush.open(uri, storage_options=words(bucket.url)).load())
    bucket.sums_of_parts = {"x_goog_hash": "crc32c=AAAAAA==,md5=AAAA"}
    with pytest.raises(inrush.DataError, match=r"CRC-32C is [0-9a-f]{8}, and the store says 0{8}"):
        inrush.open(uri, storage_options=words(bucket.url)).load()


def test_a_changed_byte_is_noticed_though_the_server_swears_it_is_the_same(bucket: Bucket) -> None:
    bucket.sums = {"x_amz_checksum_crc32": crc32_header(FILE)}
    damaged = bytearray(FILE)
    damaged[len(damaged) // 2] ^= 1
    bucket.objects["m.safetensors"] = bytes(damaged)
    with pytest.raises(inrush.DataError, match=r"the content's CRC-32 is [0-9a-f]{8}, and"):
        inrush.open("s3://box/m.safetensors", storage_options=words(bucket.url)).load()


def test_a_bucket_in_another_region_is_found(bucket: Bucket) -> None:
    bucket.region = "eu-south-2"
    opened = inrush.open("s3://box/m.safetensors", storage_options=words(bucket.url))
    assert same(opened.load())

    assert len(bucket.asked) < 40
    bucket.asked.clear()
    inrush.numpy.save_file(ARRAYS, "s3://box/new.safetensors", storage_options=words(bucket.url))
    assert bucket.objects["new.safetensors"] == FILE


def test_credentials_are_renewed_in_the_middle_of_a_load(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    from inrush import _storage

    pushed: list[str] = []

    class Frozen:
        access_key, secret_key = "AKID", "secret"

        def __init__(self, token: str) -> None:
            self.token = token
            if pushed.count(token) < 9:
                # What was got before this has reached the signer.
                pushed.append(token)

    class Refreshing:
        def refresh_needed(self) -> bool:
            return True

        def get_frozen_credentials(self) -> Frozen:
            return Frozen(bucket.token)

    class Session:
        def __init__(self, profile: str | None = None) -> None:
            """No profile."""

        def get_credentials(self) -> Refreshing:
            return Refreshing()

    import botocore.session

    monkeypatch.setattr(botocore.session, "Session", Session)
    monkeypatch.setattr(_storage, "_RENEWAL", 0.05)
    bucket.token = "first"
    options = {"endpoint": bucket.url, "timeout": 20}
    with inrush.open("s3://box/m.safetensors", storage_options=options) as checkpoint:
        bucket.token = "second"
        wait_until(lambda: pushed.count("second") > 2)
        assert same(checkpoint.load())
    tokens = {headers.get("x-amz-security-token") for _, _, headers in bucket.asked}
    assert tokens == {"first", "second"}


def wait_until(there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_expired_credentials_are_one_error_with_the_servers_words(bucket: Bucket) -> None:
    bucket.token = "good"
    options = words(bucket.url, token="0ld-t0ken")
    with pytest.raises(inrush.SourceError, match=r"400 .*ExpiredToken.*ID-4711") as caught:
        inrush.open("s3://box/m.safetensors", storage_options=options)
    assert "0ld-t0ken" not in str(caught.value)


def test_credentials_that_expire_in_the_middle_of_a_load_end_it_with_one_error(
    bucket: Bucket,
) -> None:
    bucket.token = "first"
    options = words(bucket.url, token="first")
    with inrush.open("s3://box/m.safetensors", storage_options=options) as checkpoint:
        bucket.token = "second"
        place = r"read s3://box/m\.safetensors \[\d+, \+\d+\) via http: "
        with pytest.raises(inrush.SourceError, match=place + "400 .*ExpiredToken.*ID-4711"):
            checkpoint.load()


def test_a_wrong_clock_is_one_error_with_the_servers_words(bucket: Bucket) -> None:
    bucket.skewed = True
    text = r"open s3://box/m\.safetensors: 403 Forbidden: RequestTimeTooSkewed.*ID-4711"
    with pytest.raises(inrush.SourceError, match=text):
        inrush.open("s3://box/m.safetensors", storage_options=words(bucket.url))
    with pytest.raises(inrush.SourceError, match=r"list s3://box/: 403 .*RequestTimeTooSkewed"):
        inrush.open("s3://box/", storage_options=words(bucket.url))
    with pytest.raises(inrush.SourceError, match=r"save s3://box/y: 403 .*RequestTimeTooSkewed"):
        inrush.numpy.save_file(ARRAYS, "s3://box/y", storage_options=words(bucket.url))


def test_who_asks_may_pay(bucket: Bucket) -> None:
    bucket.payer = True
    with pytest.raises(inrush.SourceError, match=r"403 Forbidden: AccessDenied"):
        inrush.open("s3://box/m.safetensors", storage_options=words(bucket.url))
    options = words(bucket.url, requester_pays=True)
    bucket.asked.clear()
    for uri in ("s3://box/m.safetensors", "s3://box/"):
        assert same(inrush.open(uri, storage_options=options).load())
    inrush.numpy.save_file(ARRAYS, "s3://box/new", storage_options=options)
    assert bucket.objects["new"] == FILE
    for command, path, headers in bucket.asked:
        signed = headers["Authorization"].partition("SignedHeaders=")[2].partition(",")[0]
        assert "x-amz-request-payer" in signed.split(";"), (command, path)


def test_a_redirect_elsewhere_is_followed_without_credentials(bucket: Bucket) -> None:
    with misbehaving({"m.safetensors": FILE}) as other:
        bucket.elsewhere = f"{other.url}/serves/m.safetensors"
        options = words(bucket.url, token="t0ken", headers={"X-Mine": "1"})
        assert same(inrush.open("s3://box/m.safetensors", storage_options=options).load())
        assert bucket.asked[0][2]["x-amz-security-token"] == "t0ken"
        assert other.headers
        for seen in other.headers:
            names = {name.lower() for name in seen}
            assert not names & {"authorization", "x-amz-security-token", "x-mine"}


def test_a_failed_upload_leaves_no_parts(bucket: Bucket) -> None:
    bucket.fails_part = 2
    big = {"x": np.random.default_rng(0).integers(0, 255, 40 * MiB, dtype=np.uint8)}
    with pytest.raises(inrush.SourceError, match=r"save s3://box/x.*AccessDenied.*ID-4711"):
        inrush.numpy.save_file(big, "s3://box/x", storage_options=words(bucket.url))
    assert bucket.uploads == {}
    assert "x" not in bucket.objects


def test_shards_take_their_names_when_all_are_sent(bucket: Bucket) -> None:
    torch = pytest.importorskip("torch")
    state = {name: torch.from_numpy(array) for name, array in ARRAYS.items()}
    options = words(bucket.url)
    place = "s3://box/sharded/"
    names = inrush.torch.save_sharded(
        state, place, max_shard_size=1_900_000, storage_options=options
    )
    assert names[-1] == "model.safetensors.index.json"
    assert len(names) == 4
    assert same(inrush.open(place, storage_options=options).load())
    # One of them fails: what was there before is still there.
    before = dict(bucket.objects)
    bucket.fails_part = 1
    with pytest.raises(inrush.SourceError, match="AccessDenied"):
        inrush.torch.save_sharded(state, place, storage_options=options)
    assert bucket.objects == before
    assert bucket.uploads == {}
    bucket.fails_part = 0
    # Fewer files: those of before are gone, the index too.
    assert inrush.torch.save_sharded(state, place, storage_options=options) == ["model.safetensors"]
    left = [name for name in bucket.objects if name.startswith("sharded/")]
    assert left == ["sharded/model.safetensors"]
    assert same(inrush.open(place, storage_options=options).load())


def test_the_index_names_every_shard(bucket: Bucket) -> None:
    torch = pytest.importorskip("torch")
    state = {name: torch.from_numpy(array) for name, array in ARRAYS.items()}
    inrush.torch.save_sharded(
        state, "s3://box/two", max_shard_size=3_000_000, storage_options=words(bucket.url)
    )
    index = json.loads(bucket.objects["two/model.safetensors.index.json"])
    assert set(index["weight_map"]) == set(ARRAYS)
    for file in set(index["weight_map"].values()):
        assert f"two/{file}" in bucket.objects
