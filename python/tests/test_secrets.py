"""Credentials are in nothing that is printed, logged, traced, counted or kept, by any scheme."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from conftest import random_tensor, write_file
from hub_server import NAME, TOKEN, Model, running_hub
from servers import Answers, answering, free_port, running
from test_redis import Server, _serve

# What must not be seen anywhere: each is in some credential below.
MARK = "S3CR3Tmark"

FILE_KEY = "/box/m.safetensors"


class Echoing(Answers):
    """Serves one file by any key; what it refuses, it refuses in the words of the request."""

    data: bytes
    request_id = ("x-amz-request-id", "ID-1")

    def do(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        self.rfile.read(size)
        path = urlsplit(self.path).path
        if path.endswith("/refused.safetensors"):
            said = {name: value for name, value in self.headers.items() if MARK in value}
            text = f"{self.command} {self.path} with {json.dumps(said)} is not for you"
            body = f"<Error><Code>AccessDenied</Code><Message>{text}</Message></Error>"
            self.answer(403, body.encode())
        elif not path.endswith(FILE_KEY):
            self.answer(404, self.path.encode(), Content_Type="text/plain")
        elif "Range" in self.headers:
            first, last = self.headers["Range"].removeprefix("bytes=").split("-")
            end = min(int(last), len(self.data) - 1)
            span = f"bytes {first}-{end}/{len(self.data)}"
            self.answer(206, self.data[int(first) : end + 1], Content_Range=span, ETag='"1"')
        else:
            self.answer(200, self.data, ETag='"1"')

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do


@dataclass
class Case:
    """A way to say a credential: where to, and by what."""

    uri: str
    options: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    home: dict[str, str] = field(default_factory=dict)  # files under HOME


def cases(url: str) -> dict[str, Case]:
    """All ways, against a server of ours that takes any."""
    host = url.removeprefix("http://")
    keys = {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": MARK + "/+key"}
    place = {"endpoint": url}
    name = FILE_KEY
    return {
        "login": Case(f"http://user:{MARK}%20x@{host}{name}"),
        "query": Case(f"{url}{name}?X-Amz-Signature={MARK}&X-Amz-Security-Token={MARK}%2B"),
        "headers": Case(url + name, {"headers": f"Authorization: Bearer {MARK}"}),
        "own-header": Case(url + name, {"headers": f"X-Api-Key: {MARK}"}),
        "netrc": Case(
            url + name, home={".netrc": f"machine 127.0.0.1 login user password {MARK}\n"}
        ),
        "proxy": Case("http://models.test" + name, {"proxy": url.replace("//", f"//user:{MARK}@")}),
        "http_proxy": Case(
            "http://models.test" + name,
            environment={"http_proxy": url.replace("//", f"//user:{MARK}@")},
        ),
        "s3-options": Case(
            "s3:/" + name, {**place, "key": "AKID", "secret": MARK, "token": MARK + "session"}
        ),
        "s3-environment": Case(
            "s3:/" + name, place, {**keys, "AWS_SESSION_TOKEN": MARK + "session"}
        ),
        "s3-endpoint": Case(
            "s3:/" + name, {"endpoint": url.replace("//", f"//user:{MARK}@")}, keys
        ),
        "s3cfg": Case(
            "s3:/" + name,
            home={
                ".s3cfg": f"[default]\naccess_key = A\nsecret_key = {MARK}\nhost_base = {host}\n"
                f"use_https = no\naccess_token = {MARK}token\n"
            },
        ),
        "gs-token": Case("gs:/" + name, {**place, "token": MARK}),
        "gs-environment": Case("gs:/" + name, place, {"GOOGLE_OAUTH_ACCESS_TOKEN": MARK}),
        "gs-hmac": Case("gs:/" + name, {**place, "key": "GOOG1", "secret": MARK}),
        "az-sas": Case("az:/" + name, {**place, "sas": f"?sv=1&sig={MARK}%3D"}),
        "az-environment": Case(
            "az:/" + name, place, {"AZURE_STORAGE_SAS_TOKEN": f"sv=1&sig={MARK}%3D"}
        ),
        "az-token": Case("az:/" + name, {**place, "token": MARK}),
    }


KINDS = list(cases("http://h:1"))

# All that Python has to say of a load, and of one that is refused.
SCRIPT = """
import json, logging, sys, traceback
logging.basicConfig(level=0, stream=sys.stdout)
import inrush, inrush.metrics
uri, options, cache = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
inrush.metrics.enable()
with inrush.open(uri, storage_options=options, cache_dir=cache, trace=True) as checkpoint:
    print(checkpoint, repr(checkpoint), checkpoint.uri, checkpoint.files, checkpoint.metadata)
    with checkpoint.start(progress=lambda *a: print(a)) as job:
        got = dict(job)
        print(repr(job), job.stats(), json.dumps(job.explain(), default=str))
        job.trace().save("trace.json")
        print([repr(tensor) for tensor in got.values()])
print(inrush.metrics.exposition())
with inrush.safe_open(uri, "np", storage_options=options) as handle:
    print(handle, repr(handle), handle.metadata())
refused, none = (uri.replace("m.safe", name + ".safe") for name in ("refused", "none"))
attempts = [
    lambda: inrush.open(refused, storage_options=options),
    lambda: inrush.open(none, storage_options=options),
    lambda: inrush.open(uri, storage_options={**options, "colour": "red"}),
    lambda: inrush.open(uri, storage_options={**options, "timeout": -1}),
    lambda: inrush.open(uri, storage_options={**options, "endpoint": "nonsense"}),
    lambda: inrush.open([uri, uri], storage_options=options),
    lambda: inrush.open(uri, mirrors=[uri + "x"], storage_options=options).load(),
    lambda: inrush.open(uri.replace("m.safe", "*.safe"), storage_options=options),
    lambda: __import__("inrush.numpy").numpy.save_file(
        {"x": __import__("numpy").zeros(9)},
        refused,
        storage_options=options,
    ),
]
for attempt in attempts:
    try:
        print(attempt())
    except Exception:
        traceback.print_exc(file=sys.stdout)
print("the end")
"""


# All commands, in one process.
COMMANDS = """
import json, sys, traceback
from inrush.cli import main
for words in json.loads(sys.argv[1]):
    print("$", words[0], flush=True)
    sys.argv = ["inrush", *words]
    try:
        main()
        print("rc 0", flush=True)
    except SystemExit as end:
        print("rc", end.code or 0, flush=True)
    except Exception:
        traceback.print_exc()
print("the end")
"""


def environment_of(case: Case, folder: Path) -> dict[str, str]:
    """A clean one; what the package keeps, it keeps in the folder."""
    unwanted = ("AWS_", "S3_", "GOOGLE_", "AZURE_", "HF_", "INRUSH_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
    home = folder / "home"
    home.mkdir(exist_ok=True)
    for name, text in case.home.items():
        (home / name).write_text(text)
        (home / name).chmod(0o600)
    return {
        **kept,
        "HOME": str(home),
        "XDG_CACHE_HOME": str(folder / "kept"),
        "AWS_EC2_METADATA_DISABLED": "true",
        **case.environment,
    }


def said(case: Case, folder: Path) -> Iterator[tuple[str, str]]:
    """Everything that is printed, and the contents and names of all files that are left."""
    environment = environment_of(case, folder)
    work = folder / "work"
    work.mkdir()

    def run(*command: str, **more: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", *command],
            capture_output=True,
            text=True,
            timeout=200,
            cwd=work,
            env={**environment, **more},
        )
        text = done.stdout + done.stderr
        assert "the end" in text, text
        return text

    yield "Python", run(SCRIPT, case.uri, json.dumps(case.options), str(folder / "cache"))
    preset = {"INRUSH_STORAGE_OPTIONS": ";".join(f"{k}={v}" for k, v in case.options.items())}
    cache = ["--cache-dir", str(folder / "cache")]
    refused = case.uri.replace("m.safetensors", "refused.safetensors")
    commands = (
        ["load", case.uri, "--explain", *cache],
        ["load", case.uri, "--json", "--trace", "cli.json", *cache],
        ["load", refused],
        ["load", refused, "--json"],
        ["inspect", case.uri, "--json"],
        ["inspect", case.uri, "--no-such-option"],
        ["verify", case.uri],
        ["manifest", case.uri, "--output", "manifest.json"],
        ["doctor", case.uri, "--json"],
        ["convert", case.uri, "out", "--to", "serverlessllm"],
        ["convert", "out", refused],
        ["bench", case.uri],
        ["cache", "prefetch", case.uri, *cache],
        ["cache", "ls", *cache],
        ["cache", "ls", "--json", *cache],
        ["cache", "verify", *cache],
        ["cache", "rm", case.uri + "x", *cache],
    )
    if case.uri.startswith("hf://"):  # which is brought here and measured, for minutes
        commands = tuple(words for words in commands if words[0] != "bench")
    for debug in ({}, {"INRUSH_DEBUG": "1"}):
        yield "commands", run(COMMANDS, json.dumps(commands), **preset, **debug)
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.parent != folder / "home":
            yield f"the name of a file, {path.name!r}", str(path.relative_to(folder))
            yield str(path), path.read_bytes().decode("latin-1")


def check_nothing_leaks(case: Case, folder: Path) -> None:
    successes = 0
    for where, text in said(case, folder):
        at = text.find(MARK)
        assert at < 0, f"{where}: ...{text[max(0, at - 300) : at + 60]}"
        successes += text.count("rc 0\n")
    assert successes >= 20, successes  # it was no long list of refusals


@pytest.mark.parametrize("kind", KINDS)
def test_no_credential_is_seen_anywhere(kind: str, tmp_path: Path) -> None:
    data = write_file(tmp_path / "m", {"t": random_tensor("F32", [300, 1000])}).read_bytes()
    (tmp_path / "m").unlink()
    with answering(type("Echoes", (Echoing,), {"data": data})) as url:
        check_nothing_leaks(cases(url)[kind], tmp_path)


@pytest.mark.parametrize("kind", ["url", "environment"])
def test_no_password_of_redis_is_seen_anywhere(kind: str, tmp_path: Path) -> None:
    data = write_file(tmp_path / "m", {"t": random_tensor("F32", [300, 1000])}).read_bytes()
    (tmp_path / "m").unlink()
    port = free_port()
    (tmp_path / "redis").mkdir()
    command = _serve(tmp_path / "redis", "--port", str(port), "--requirepass", MARK)
    with running(command, port, stdout=subprocess.DEVNULL):
        server = Server(port, MARK)
        server.put("m.safetensors", data, 400_000)
        in_url = f"redis://:{MARK}@127.0.0.1:{port}/m.safetensors"
        plain = Case(f"redis://127.0.0.1:{port}/m.safetensors", {}, {"REDISCLI_AUTH": MARK})
        check_nothing_leaks(Case(in_url) if kind == "url" else plain, tmp_path)
        wrong = Case(in_url.replace(MARK, MARK + "wrong"))
        environment = environment_of(wrong, tmp_path)
        for words in (["load"], ["inspect", "--json"]):
            done = subprocess.run(
                [sys.executable, "-m", "inrush", *words, wrong.uri],
                capture_output=True,
                text=True,
                env=environment,
            )
            assert "WRONGPASS" in done.stderr
            assert MARK not in done.stdout + done.stderr


@pytest.mark.parametrize("kind", ["environment", "option", "file"])
def test_no_token_of_the_hub_and_no_signature_is_seen_anywhere(kind: str, tmp_path: Path) -> None:
    global MARK
    (tmp_path / "made").mkdir()
    with running_hub() as hub, contextlib.ExitStack() as stack:
        model = Model(hub, tmp_path / "home", tmp_path / "made")
        file = "model-00001-of-00002.safetensors"
        model.hub.add(NAME, {**model.files, "m.safetensors": model.files[file]}, token=TOKEN)
        case = Case(f"hf://{NAME}/m.safetensors", {}, {"HF_ENDPOINT": hub.url})
        case.environment["HF_HOME"] = str(tmp_path / "kept" / "hf")
        if kind == "environment":
            case.environment["HF_TOKEN"] = TOKEN
        elif kind == "option":
            case.options["token"] = TOKEN
        else:
            (tmp_path / "token").write_text(TOKEN)
            case.environment["HF_TOKEN_PATH"] = str(tmp_path / "token")
        previous, MARK = MARK, TOKEN
        stack.callback(lambda: globals().update(MARK=previous))
        for where, text in said(case, tmp_path):
            if where == str(tmp_path / "token"):
                continue
            assert TOKEN not in text, where
            assert "Signature=" not in text, where
