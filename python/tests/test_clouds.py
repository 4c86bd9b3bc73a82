"""gs:// and az:// against servers of this machine: what they are asked for, and by whom."""

from collections.abc import Iterator
from pathlib import Path

import inrush.numpy
import numpy as np
import pytest
from conftest import Command
from hostile import Misbehaving, misbehaving
from test_s3 import client_of, moto, nothing_of_the_users, words

import inrush

__all__ = ["moto", "nothing_of_the_users"]

ARRAY = np.random.default_rng(3).random(60_000)
FILE = inrush.numpy.save({"x": ARRAY})
LISTING = """<?xml version="1.0"?><EnumerationResults><Blobs>
<Blob><Name>m/model.safetensors</Name><Properties><Content-Length>9</Content-Length></Properties>
</Blob></Blobs><NextMarker/></EnumerationResults>"""


def same(checkpoint: inrush.Checkpoint) -> bool:
    return bytes(memoryview(checkpoint.load()["x"]).cast("B")) == ARRAY.tobytes()


@pytest.fixture
def cloud() -> Iterator[Misbehaving]:
    files = {"box/m/model.safetensors": FILE, "box": LISTING.encode()}
    with misbehaving(files) as state:
        yield state


def test_a_shared_access_signature_goes_with_every_request_and_is_shown_nowhere(
    cloud: Misbehaving,
) -> None:
    options = {"endpoint": cloud.url + "/serves", "sas": "?sv=1&sig=pr1vate%3D"}
    checkpoint = inrush.open("az://box/m/", storage_options=options)
    assert same(checkpoint)
    assert all(path.endswith("sv=1&sig=pr1vate%3D") for path in cloud.paths)
    assert all("x-ms-version" in headers for headers in cloud.headers)
    assert "pr1vate" not in repr(checkpoint) + repr(checkpoint.files)


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("az://box/m/model.safetensors?sv=1&sig=pr1vate", "the storage option sas"),
        ("s3://AKID:pr1vate@box/m/", "credentials do not stand in the URI"),
        ("gs://AKID:pr1vate@box/m/", "credentials do not stand in the URI"),
    ],
)
def test_a_secret_in_the_uri_is_refused_and_not_said_again(
    uri: str, reason: str, inrush_command: Command
) -> None:
    for act in (inrush.open, lambda place: inrush.numpy.save_file({"x": ARRAY}, place)):
        with pytest.raises(inrush.UsageError, match=reason) as caught:
            act(uri)
        assert "pr1vate" not in str(caught.value) + repr(caught.value.__context__)
    done = inrush_command("load", uri)
    assert done.returncode == 2
    assert "pr1vate" not in done.stdout + done.stderr


def test_azure_takes_a_token_or_a_public_container(cloud: Misbehaving) -> None:
    place = {"endpoint": cloud.url + "/serves"}
    uri = "az://box/m/model.safetensors"
    assert same(inrush.open(uri, storage_options={**place, "token": "t0ken"}))
    assert cloud.headers[-1]["Authorization"] == "Bearer t0ken"
    assert same(inrush.open(uri, storage_options={**place, "anon": True}))
    assert "Authorization" not in cloud.headers[-1]
    with pytest.raises(inrush.SourceError, match="no credentials"):
        inrush.open(uri, storage_options=place)
    with pytest.raises(inrush.UsageError, match="which account"):
        inrush.open(uri)


def test_google_takes_a_token(cloud: Misbehaving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", cloud.url + "/serves")
    monkeypatch.setenv("GOOGLE_OAUTH_ACCESS_TOKEN", "t0ken")
    assert same(inrush.open("gs://box/m/model.safetensors"))
    assert cloud.headers[-1]["Authorization"] == "Bearer t0ken"


def test_google_takes_the_keys_of_hmac_and_lists(moto: str) -> None:
    client = client_of(moto)
    client.create_bucket(Bucket="google")
    client.put_object(Bucket="google", Key="m/model.safetensors", Body=FILE)
    assert same(inrush.open("gs://google/m/", storage_options=words(moto)))
    uri = "gs://google/saved/y.safetensors"
    inrush.numpy.save_file({"x": ARRAY}, uri, storage_options=words(moto))
    assert same(inrush.open(uri, storage_options=words(moto)))


def test_saving_where_that_cannot_be_is_told(tmp_path: Path) -> None:
    with pytest.raises(inrush.UsageError, match=r"save https://\.\.\.: nothing can be saved"):
        inrush.numpy.save_file({"x": ARRAY}, "https://host/x.safetensors")
