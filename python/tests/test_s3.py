"""S3 and what is like it: rclone, which checks signatures, and moto, which knows versions."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import inrush.numpy
import numpy as np
import pytest
from conftest import Command, Contents
from servers import Answers, answering, free_port, running
from test_http import check

import inrush

KEY = "AKIDtest"
SECRET = "s3cr3t/with+signs"
BUCKET = "models"


def words(endpoint: str, **more: Any) -> dict[str, Any]:
    """Storage options for a server of ours."""
    return {"endpoint": endpoint, "key": KEY, "secret": SECRET, "timeout": 20, **more}


@pytest.fixture(autouse=True)
def nothing_of_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("AWS_", "S3_", "GOOGLE_", "AZURE_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("INRUSH_PROFILE", "off")


@pytest.fixture
def rclone(tmp_path: Path, sharded: tuple[Path, Contents]) -> Iterator[str]:
    """The folder of `sharded` as the bucket "models", prefix "model"."""
    import rclone_api

    folder = tmp_path / "buckets" / BUCKET
    folder.parent.mkdir()
    sharded[0].rename(tmp_path / "model")
    folder.mkdir()
    (tmp_path / "model").rename(folder / "model")
    binary = Path(rclone_api.__file__).parent / "bin" / "rclone"
    port = free_port()
    command = [
        str(binary), "serve", "s3", "--addr", f"127.0.0.1:{port}",
        "--auth-key", f"{KEY},{SECRET}", "--vfs-cache-mode", "writes",
        "--cache-dir", str(tmp_path / "cache"), "--config", "/dev/null", str(folder.parent),
    ]  # fmt: skip
    with running(command, port, stderr=subprocess.DEVNULL):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with running(command, port, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
        yield f"http://127.0.0.1:{port}"


def client_of(endpoint: str) -> Any:
    import boto3

    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
        region_name="us-east-1",
    )


def test_a_prefix_is_a_checkpoint(rclone: str, sharded: tuple[Path, Contents]) -> None:
    for uri in (f"s3://{BUCKET}/model/", f"s3://{BUCKET}/model"):
        checkpoint = inrush.open(uri, storage_options=words(rclone))
        check(checkpoint.load(), sharded[1])
        assert checkpoint.uri == f"s3://{BUCKET}/model/"
    files = [name for name, _ in checkpoint.files]
    assert files[0] == f"s3://{BUCKET}/model/model-00001-of-00002.safetensors"


def test_patterns_and_single_objects_open(rclone: str, sharded: tuple[Path, Contents]) -> None:
    uri = f"s3://{BUCKET}/model/model-*.safetensors"
    check(inrush.open(uri, storage_options=words(rclone)).load(), sharded[1])
    one = f"s3://{BUCKET}/model/model-00002-of-00002.safetensors"
    assert len(inrush.open(one, storage_options=words(rclone))) == len(sharded[1]) // 2


def test_a_wrong_secret_is_told_with_the_servers_code(rclone: str) -> None:
    options = words(rclone, secret="wr0ng")
    with pytest.raises(inrush.SourceError, match="403 Forbidden: SignatureDoesNotMatch") as caught:
        inrush.open(f"s3://{BUCKET}/model/", storage_options=options)
    assert "wr0ng" not in str(caught.value)


def test_what_is_not_there_is_told(rclone: str) -> None:
    with pytest.raises(inrush.SourceError, match="404 Not Found: NoSuchKey"):
        inrush.open(f"s3://{BUCKET}/no.safetensors", storage_options=words(rclone))
    with pytest.raises(inrush.SourceError, match="404 Not Found: NoSuchBucket"):
        inrush.open("s3://nobucket/model/", storage_options=words(rclone))


@pytest.mark.parametrize("kind", ["environment", "profile", "s3cfg"])
def test_credentials_are_found(
    kind: str,
    rclone: str,
    sharded: tuple[Path, Contents],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options: dict[str, Any] = {"endpoint": rclone}
    if kind == "environment":
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", rclone)
        options = {}
    elif kind == "profile":
        (tmp_path / ".aws").mkdir()
        (tmp_path / ".aws" / "credentials").write_text(
            f"[work]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n"
        )
        options["profile"] = "work"
    else:
        host = rclone.removeprefix("http://")
        (tmp_path / ".s3cfg").write_text(
            f"[default]\naccess_key = {KEY}\nsecret_key = {SECRET}\n"
            f"host_base = {host}\nuse_https = False\n"
        )
        options = {}
    check(inrush.open(f"s3://{BUCKET}/model/", storage_options=options).load(), sharded[1])


def test_without_credentials_nobody_is_asked() -> None:
    with pytest.raises(inrush.SourceError, match="no credentials"):
        inrush.open("s3://bucket/model/", storage_options={"endpoint": "http://127.0.0.1:1"})


def test_versions_and_public_objects(moto: str, tmp_path: Path) -> None:
    client = client_of(moto)
    client.create_bucket(Bucket="versions")
    client.put_bucket_versioning(Bucket="versions", VersioningConfiguration={"Status": "Enabled"})
    arrays = [{"x": np.random.default_rng(i).random(5000)} for i in range(2)]
    versions = [
        client.put_object(
            Bucket="versions",
            Key="a b+c.safetensors",
            Body=inrush.numpy.save(array),
            ACL="public-read",
        )["VersionId"]
        for array in arrays
    ]
    uri = "s3://versions/a b+c.safetensors"
    old = inrush.open(f"{uri}?versionId={versions[0]}", storage_options=words(moto))
    assert bytes(memoryview(old.load()["x"]).cast("B")) == arrays[0]["x"].tobytes()
    public = {"endpoint": moto, "anon": True}
    latest = inrush.open(uri, storage_options=public)
    assert bytes(memoryview(latest.load()["x"]).cast("B")) == arrays[1]["x"].tobytes()


def test_versions_of_one_object_are_several_files(moto: str) -> None:
    client = client_of(moto)
    client.create_bucket(Bucket="parts")
    client.put_bucket_versioning(Bucket="parts", VersioningConfiguration={"Status": "Enabled"})
    data = [inrush.numpy.save({name: np.arange(3)}) for name in "xy"]
    versions = [
        client.put_object(Bucket="parts", Key="m.safetensors", Body=body)["VersionId"]
        for body in data
    ]
    uris = [f"s3://parts/m.safetensors?versionId={version}" for version in versions]
    assert {*inrush.open(uris, storage_options=words(moto))} == {"x", "y"}
    with pytest.raises(inrush.UsageError, match="given twice"):
        inrush.open([uris[0]] * 2, storage_options=words(moto))


def test_manifests_are_objects_too(moto: str, tmp_path: Path, inrush_command: Command) -> None:
    client = client_of(moto)
    client.create_bucket(Bucket="manifests")
    data = inrush.numpy.save({"x": np.arange(4)})
    client.put_object(Bucket="manifests", Key="m/model.safetensors", Body=data)
    (tmp_path / "here.safetensors").write_bytes(data)
    where = ["--storage-options", ";".join(f"{k}={v}" for k, v in words(moto).items())]
    uri, other = "s3://manifests/m.json", "s3://manifests/none/m.json"
    done = inrush_command("manifest", "s3://manifests/m/", "-o", uri, *where)
    assert done.returncode == 0, done.stderr
    assert inrush_command("verify", "s3://manifests/m/", "--manifest", uri, *where).returncode == 0
    # What is here takes no storage options, and the manifest gets them all the same.
    here = tmp_path / "here.safetensors"
    assert inrush_command("manifest", here, "-o", other, *where).returncode == 0
    assert inrush_command("verify", here, "--manifest", other, *where).returncode == 0
    client.put_object(Bucket="manifests", Key="wrong.json", Body=b"\xff")
    for name, code in (("absent.json", 3), ("wrong.json", 1)):
        done = inrush_command("verify", here, "--manifest", f"s3://manifests/{name}", *where)
        assert (done.returncode, f"s3://manifests/{name}" in done.stderr) == (code, True)
    refused = inrush_command("manifest", here, "-o", "https://127.0.0.1:1/secret?sig=h1dden")
    assert refused.returncode == 2
    assert "h1dden" not in refused.stderr


def test_many_objects_are_listed_page_by_page(moto: str) -> None:
    client = client_of(moto)
    client.create_bucket(Bucket="many")
    data = inrush.numpy.save({"x": np.arange(4)})
    client.put_object(Bucket="many", Key="m/model.safetensors", Body=data)
    for i in range(1005):
        client.put_object(Bucket="many", Key=f"m/a{i:04}.txt", Body=b"")
    assert list(inrush.open("s3://many/m/", storage_options=words(moto))) == ["x"]


def test_a_presigned_url_is_enough(moto: str) -> None:
    client = client_of(moto)
    client.create_bucket(Bucket="presigned")
    array = np.random.default_rng(1).random(100_000)
    client.put_object(Bucket="presigned", Key="x.safetensors", Body=inrush.numpy.save({"x": array}))
    url = client.generate_presigned_url(
        "get_object", Params={"Bucket": "presigned", "Key": "x.safetensors"}
    )
    checkpoint = inrush.open(url)
    assert bytes(memoryview(checkpoint.load()["x"]).cast("B")) == array.tobytes()
    assert "Signature" not in checkpoint.uri


@pytest.mark.parametrize("size", [1000, 40 << 20])
def test_objects_are_saved_whole(rclone: str, size: int) -> None:
    array = np.random.default_rng(size).integers(0, 255, size, dtype=np.uint8)
    uri = f"s3://{BUCKET}/saved/x y.safetensors"
    inrush.numpy.save_file({"x": array}, uri, storage_options=words(rclone))
    loaded = inrush.open(uri, storage_options=words(rclone)).load()
    assert bytes(memoryview(loaded["x"]).cast("B")) == array.tobytes()


def test_a_failed_save_leaves_neither_object_nor_parts(moto: str) -> None:
    client = client_of(moto)
    client.create_bucket(Bucket="failing")
    array = np.zeros(40 << 20, dtype=np.uint8)
    uri = "s3://failing/x.safetensors"
    with pytest.raises(inrush.UsageError, match="dtype"):
        inrush.numpy.save_file({"x": np.array(["text"])}, uri, storage_options=words(moto))
    with pytest.raises(inrush.SourceError, match="404 Not Found: NoSuchBucket"):
        inrush.numpy.save_file({"x": array}, "s3://absent/x", storage_options=words(moto))
    assert "Contents" not in client.list_objects_v2(Bucket="failing")
    assert "Uploads" not in client.list_multipart_uploads(Bucket="failing")


def test_every_command_takes_a_uri(rclone: str, inrush_command: Command) -> None:
    keys = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
    uri = f"s3://{BUCKET}/model/"
    place = f"endpoint={rclone};region=us-east-1"
    for command in (["inspect"], ["load", "--explain"]):
        done = inrush_command(*command, uri, "--storage-options", place, **keys)
        assert done.returncode == 0, done.stderr
    preset = {**keys, "INRUSH_STORAGE_OPTIONS": place}
    for command in (["verify"], ["manifest", "-o", "m.json"], ["doctor", "--json"]):
        done = inrush_command(*command, uri, **preset)
        assert done.returncode == 0, (command, done.stderr)
        assert SECRET not in done.stdout + done.stderr
    done = inrush_command("inspect", uri, "--storage-options", "s3cr3t", **keys)
    assert done.returncode == 2
    assert "s3cr3t" not in done.stderr


def test_a_bucket_without_an_endpoint_is_asked_for_at_aws() -> None:
    options = {"key": KEY, "secret": SECRET, "proxy": "http://127.0.0.1:1", "timeout": 0.3}
    with pytest.raises(inrush.SourceError, match=r"open s3://bucket/x\.safetensors: "):
        inrush.open("s3://bucket/x.safetensors", storage_options=options)


@pytest.mark.parametrize(
    ("addressing", "host"), [("virtual", "hosted.s3.test"), ("path", "s3.test")]
)
def test_requests_go_to_the_host_of_the_bucket_where_that_is_asked_for(
    addressing: str, host: str
) -> None:
    """The proxy is asked for hosts by name: none of them has to resolve here."""
    asked = []

    class Recording(Answers):
        def do_GET(self) -> None:
            asked.append((urlsplit(self.path).hostname, self.headers["Host"]))
            self.answer(404)

        do_HEAD = do_GET

    with answering(Recording) as proxy:
        options = words("http://s3.test", addressing=addressing, proxy=proxy)
        with pytest.raises(inrush.SourceError, match="404"):
            inrush.open("s3://hosted/x.safetensors", storage_options=options)
    assert set(asked) == {(host, host)}
