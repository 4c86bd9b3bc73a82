"""What S3's keys, listings and versions may be, and what is made of hostile ones."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import inrush.numpy
import pytest
from conftest import Command, heed_ctrl_c
from servers import answering
from test_s3 import client_of, moto, nothing_of_the_users, words
from test_s3_checks import ARRAYS, FILE, Answering, Bucket, bucket, same

import inrush

__all__ = ["bucket", "moto", "nothing_of_the_users"]

STRANGERS = (
    "m/../up.safetensors", "m//twice.safetensors", "/m/model.safetensors", "m/.", "m/..", "m/",
    "m/below/model.safetensors", "m2/model.safetensors", "m-old.safetensors", "m/notes.txt",
)  # fmt: skip


def files(uri: str, options: dict[str, Any]) -> list[str]:
    return [name for name, _ in inrush.open(uri, storage_options=options).files]


@pytest.mark.parametrize("uri", ["s3://box/m/", "s3://box/m"])
def test_a_prefix_is_that_folder_and_no_other(bucket: Bucket, uri: str) -> None:
    for name in ("m/model.safetensors", *STRANGERS):
        bucket.objects[name] = FILE
    assert files(uri, words(bucket.url)) == ["s3://box/m/model.safetensors"]


@pytest.mark.parametrize("key", ["../other/x.safetensors", "m/../x.safetensors", "./x", "m/./x/.."])
@pytest.mark.parametrize("scheme", ["s3", "gs", "az"])
def test_a_key_does_not_lead_out_of_the_bucket(bucket: Bucket, scheme: str, key: str) -> None:
    options = words(bucket.url) if scheme != "az" else {"endpoint": bucket.url, "sas": "sig=1"}
    uri = f"{scheme}://box/{key}"
    with pytest.raises(inrush.UsageError, match=r"may lead out of the bucket"):
        inrush.open(uri, storage_options=options)
    with pytest.raises(inrush.UsageError, match=r"may lead out of the bucket"):
        inrush.numpy.save_file(ARRAYS, uri, storage_options=options)
    assert bucket.asked == []


@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/x", "a/../../x", "./x", "a\\..\\x"])
def test_an_index_does_not_lead_out_of_the_folder(bucket: Bucket, name: str) -> None:
    index = '{"weight_map": {"t0": "' + name.replace("\\", "\\\\") + '"}}'
    bucket.objects["m/model.safetensors.index.json"] = index.encode()
    with pytest.raises(inrush.Error):
        inrush.open("s3://box/m/", storage_options=words(bucket.url))
    assert all(path.startswith("/box/") for _, path, _ in bucket.asked)
    assert not any(".." in path and "%5C" not in path for _, path, _ in bucket.asked)


def page(*keys: str, more: str = "", encoded: bool = True, end: bool = True) -> bytes:
    """A page of a listing."""
    text = "".join(f"<Contents><Key>{quote(key)}</Key></Contents>" for key in keys)
    encoding = "<EncodingType>url</EncodingType>" if encoded else ""
    next = f"<IsTruncated>true</IsTruncated><NextContinuationToken>{more}</NextContinuationToken>"
    text += (next if more else "") + ("</ListBucketResult>" if end else "")
    return f"<ListBucketResult>{encoding}{text}".encode()


class Listing(Answering):
    """Lists what a subclass says."""

    def give(self, key: str, query: dict[str, list[str]]) -> None:
        if "list-type" in query:
            self.answer(200, self.listed(query))
        else:
            super().give(key, query)

    def listed(self, query: dict[str, list[str]]) -> bytes:
        raise NotImplementedError


def listing(bucket: Bucket, listed: Any) -> Any:
    kind = {"bucket": bucket, "listed": lambda self, query: listed(query)}
    return answering(type("Lists", (Listing,), kind))


@pytest.mark.parametrize(
    "keys",
    [
        ["m/model.safetensors", "m/model.safetensors"],
        ["other/evil.safetensors", "/etc/passwd", "m/model.safetensors"],
        ["m/a\0b.safetensors", "m/a\nb.safetensors", "m/model.safetensors", "m/../model.bin"],
    ],
)
def test_strangers_in_a_listing_are_left_out(bucket: Bucket, keys: list[str]) -> None:
    bucket.objects["m/model.safetensors"] = FILE
    with listing(bucket, lambda _: page(*keys)) as url:
        assert files("s3://box/m/", words(url)) == ["s3://box/m/model.safetensors"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (page("m/model.safetensors", end=False), "the listing is cut short"),
        (page("m/model.safetensors").replace(b"model", b"mod%zz"), "not encoded as it should be"),
        (page("m/model.safetensors", more="same"), "goes round in circles"),
        (b'{"an": "answer"}', "no listing of a bucket"),
    ],
)
def test_a_listing_that_is_none_is_one_error(bucket: Bucket, text: bytes, reason: str) -> None:
    with (
        listing(bucket, lambda _: text) as url,
        pytest.raises(inrush.DataError, match=rf"list s3://box/m/: .*{reason}"),
    ):
        inrush.open("s3://box/m/", storage_options=words(url))


def test_a_listing_that_never_ends_is_given_up(bucket: Bucket) -> None:
    with (
        listing(bucket, lambda _: page(more=str(uuid4()))) as url,
        pytest.raises(inrush.SourceError, match=r"list s3://box/m/: it does not end"),
    ):
        inrush.open("s3://box/m/", storage_options=words(url))


def test_ten_thousand_keys_come_in_pages(bucket: Bucket) -> None:
    names = sorted(["m/model.safetensors", *(f"m/{i:05}.txt" for i in range(10_000))])
    bucket.objects["m/model.safetensors"] = FILE
    asked = []

    def listed(query: dict[str, list[str]]) -> bytes:
        begin = int(query.get("continuation-token", ["0"])[0])
        asked.append(begin)
        # A key more than the next page begins with: somebody wrote meanwhile.
        part = names[begin : begin + 1001]
        return page(*part, more=str(begin + 1000) if begin + 1000 < len(names) else "")

    with listing(bucket, listed) as url:
        assert same(inrush.open("s3://box/m/", storage_options=words(url)).load())
    assert asked == [*range(0, 10_001, 1000)]


VERSIONED = "s3://box/m/model.safetensors?versionId="


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("s3://box/m/?versionId=3", "a version is of one object"),
        ("s3://box/m/*.safetensors?versionId=3", "a version is of one object"),
        (VERSIONED + "3&X-Amz-Signature=h1dden", "and nothing else"),
        (VERSIONED, "and nothing else"),
        ("s3://box/m/model.safetensors?X-Amz-Security-Token=h1dden", "credentials are storage"),
        ("gs://box/m/model.safetensors?token=h1dden", "credentials are storage"),
        ("gs://box/m/model.safetensors?access_token=h1dden&generation=1", "credentials are"),
        ("az://box/m/model.safetensors?sv=1&sig=h1dden", "the storage option sas"),
        ("az://box/m/model.safetensors?sas=h1dden", "the storage option sas"),
    ],
)
def test_what_stands_behind_a_key_is_a_version_or_refused_unseen(
    bucket: Bucket, inrush_command: Command, uri: str, reason: str
) -> None:
    options = words(bucket.url) if not uri.startswith("az") else {"endpoint": bucket.url}
    with pytest.raises(inrush.UsageError, match=reason) as caught:
        inrush.open(uri, storage_options=options)
    assert "h1dden" not in str(caught.value)
    assert bucket.asked == []
    done = inrush_command("inspect", uri)
    assert done.returncode in (2, 3)
    assert "h1dden" not in done.stdout + done.stderr


def test_a_version_cannot_be_saved_to(bucket: Bucket) -> None:
    before = dict(bucket.objects)
    for uri, more in (("s3://box/y?versionId=3", {}), ("s3://box/y", {"version_id": "3"})):
        with pytest.raises(inrush.UsageError, match=r"save s3://box/y: a version is named"):
            inrush.numpy.save_file(ARRAYS, uri, storage_options=words(bucket.url, **more))
    assert bucket.objects == before


def test_a_question_mark_in_a_key_can_be_had_by_a_pattern(bucket: Bucket) -> None:
    bucket.objects["m/a?b=c.safetensors"] = FILE
    uri = "s3://box/m/a[?]b=c.safetensors"
    assert same(inrush.open(uri, storage_options=words(bucket.url)).load())


def test_a_version_that_is_not_there_is_told(moto: str) -> None:
    client = client_of(moto)
    client.create_bucket(Bucket="history")
    client.put_bucket_versioning(Bucket="history", VersioningConfiguration={"Status": "Enabled"})
    first = client.put_object(Bucket="history", Key="x.safetensors", Body=FILE)["VersionId"]
    client.delete_object(Bucket="history", Key="x.safetensors")
    uri = "s3://history/x.safetensors"
    assert same(inrush.open(f"{uri}?versionId={first}", storage_options=words(moto)).load())
    options = words(moto, version_id=first)
    assert same(inrush.open(uri, storage_options=options).load())
    with pytest.raises(inrush.SourceError, match=r"open s3://history/x.safetensors: 404 .*NoSuchK"):
        inrush.open(uri, storage_options=words(moto))
    with pytest.raises(inrush.SourceError, match=r"open s3://history/x\.safetensors: 40[04]"):
        inrush.open(f"{uri}?versionId={uuid4()}", storage_options=words(moto))


@pytest.fixture
def uploads(moto: str) -> Iterator[Any]:
    client = client_of(moto)
    client.create_bucket(Bucket="uploads")
    yield client
    for one in client.list_objects_v2(Bucket="uploads").get("Contents", []):
        client.delete_object(Bucket="uploads", Key=one["Key"])
    for one in client.list_multipart_uploads(Bucket="uploads").get("Uploads", []):
        client.abort_multipart_upload(Bucket="uploads", Key=one["Key"], UploadId=one["UploadId"])


def send_in_mid_upload(moto: str, uploads: Any, number: int) -> int:
    """What becomes of a process that saves and gets this signal."""
    code = f"""
import inrush.numpy, numpy as np
x = np.zeros(300 << 20, np.uint8)
inrush.numpy.save_file({{"x": x}}, "s3://uploads/x.safetensors", storage_options={words(moto)!r})
"""
    command = [sys.executable, "-c", code]
    child = subprocess.Popen(command, stderr=subprocess.DEVNULL, preexec_fn=heed_ctrl_c)
    deadline = time.monotonic() + 60
    while "Uploads" not in uploads.list_multipart_uploads(Bucket="uploads"):
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    child.send_signal(number)
    return child.wait(60)


def test_ctrl_c_ends_an_upload_and_leaves_neither_object_nor_parts(moto: str, uploads: Any) -> None:
    assert send_in_mid_upload(moto, uploads, signal.SIGINT) != 0
    assert "Contents" not in uploads.list_objects_v2(Bucket="uploads")
    assert "Uploads" not in uploads.list_multipart_uploads(Bucket="uploads")


def test_a_killed_writer_leaves_no_object(moto: str, uploads: Any) -> None:
    assert send_in_mid_upload(moto, uploads, signal.SIGKILL) != 0
    assert "Contents" not in uploads.list_objects_v2(Bucket="uploads")
    # Its parts are the bucket's rules to remove; the next one is not in their way.
    inrush.numpy.save_file(ARRAYS, "s3://uploads/x.safetensors", storage_options=words(moto))
    assert same(inrush.open("s3://uploads/x.safetensors", storage_options=words(moto)).load())
