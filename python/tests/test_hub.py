"""The Hugging Face Hub, against one on this machine; huggingface_hub itself judges the cache."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import safetensors.torch
from conftest import random_tensor, write_file
from hub_server import NAME, REQUEST_ID, SHARD, TOKEN, Model, git_sha1, running_hub, sha256
from servers import nginx

import inrush

huggingface_hub = pytest.importorskip("huggingface_hub")

Expected = dict[str, bytes]

HEAD = 260 << 10  # bytes that an open fetches of each file


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Model]:
    for word in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN_PATH"):
        monkeypatch.delenv(word, raising=False)
    with running_hub() as hub:
        monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        # Requests are counted: a busy machine's silence is to bring no second ones.
        monkeypatch.setenv("INRUSH_STORAGE_OPTIONS", "hedge=100")
        monkeypatch.chdir(tmp_path)
        (tmp_path / "made").mkdir()
        yield Model(hub, tmp_path / "home", tmp_path / "made")
        assert not any("Authorization" in headers for headers in hub.cdn_requests)


def loaded(source: str, **words: object) -> Expected:
    """Everything, as bytes."""
    with inrush.open(source, **words) as checkpoint:
        return {name: bytes(memoryview(tensor).cast("B")) for name, tensor in checkpoint.tensors()}


def inrush_command(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "inrush", *words]
    env = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=env)


def accepted(model: Model) -> Path:
    """The snapshot, as huggingface_hub finds it without asking anybody."""
    folder = Path(
        huggingface_hub.snapshot_download(NAME, cache_dir=model.cache, local_files_only=True)
    )
    info = huggingface_hub.scan_cache_dir(model.cache)
    assert not info.warnings
    assert not getattr(info, "incomplete_files", None)
    for name in model.files:
        if name == "config.json":
            continue
        found = huggingface_hub.hf_hub_download(
            NAME, name, cache_dir=model.cache, local_files_only=True
        )
        assert Path(found).read_bytes() == model.files[name]
        link = os.readlink(found)
        etags = (sha256(model.files[name]), git_sha1(model.files[name]))
        assert link in [f"../../blobs/{etag}" for etag in etags]
    return folder


def test_a_load_fills_the_cache_of_huggingface_hub(model: Model) -> None:
    assert loaded(NAME) == model.expected
    folder = accepted(model)
    assert folder.name == model.commit
    assert (model.folder / "refs" / "main").read_text() == model.commit
    for shard in (1, 2):
        tensors = safetensors.torch.load_file(folder / SHARD.format(shard))
        assert {n: t.numpy().tobytes() for n, t in tensors.items()}.items() <= (
            model.expected.items()
        )
    assert model.hub.sent <= model.size + 2 * HEAD
    assert sorted(path.name for path in (model.folder / "blobs").iterdir()) == sorted(
        [sha256(model.files[SHARD.format(shard)]) for shard in (1, 2)]
        + [git_sha1(model.files["model.safetensors.index.json"])]
    )


def test_what_is_here_is_read_here(model: Model) -> None:
    assert loaded(f"hf://{NAME}") == model.expected
    model.hub.forget()
    with inrush.open(f"hf://{NAME}@main", trace=True) as checkpoint, checkpoint.start() as job:
        assert {n: bytes(memoryview(t).cast("B")) for n, t in dict(job).items()} == model.expected
        assert job.explain()["facts"]["filesystem"]["engine"] == ""
    assert [line for line in model.hub.paths() if "/resolve/" in line] == []
    assert model.hub.cdn_requests == []
    # A commit is for ever: nobody needs to be asked.
    model.hub.forget()
    assert loaded(f"hf://{NAME}@{model.commit}") == model.expected
    assert model.hub.paths() == []


def test_offline_what_huggingface_hub_downloaded_is_used(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in model.files:
        huggingface_hub.hf_hub_download(
            NAME, name, cache_dir=model.cache, endpoint=model.hub.url, token=TOKEN
        )
    model.hub.forget()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert loaded(NAME) == model.expected
    assert loaded(f"hf://{NAME}@{model.commit}/{SHARD.format(2)}").keys() == {
        f"t2.{i}" for i in range(5)
    }
    assert model.hub.paths() == []


def test_a_hub_that_is_down_is_not_needed_for_what_is_here(model: Model) -> None:
    assert loaded(NAME) == model.expected
    model.hub.broken = 1
    assert loaded(NAME) == model.expected


def test_a_killed_load_is_gone_on_with(model: Model) -> None:
    model.hub.held_from = 2 << 20
    code = f"import inrush; inrush.open({NAME!r}).load()"
    child = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 60
    while present(model) < 2 << 20:
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    model.hub.held_from = 0
    model.hub.gone.set()
    assert not model.shard.exists()
    kept = present(model)
    model.hub.forget()
    assert loaded(NAME) == model.expected
    # What straddles the edge of what is here is fetched as a whole.
    assert model.hub.sent <= model.size - kept + 2 * HEAD + (1 << 20)
    accepted(model)


def present(model: Model) -> int:
    """Bytes that the ledgers say are there."""
    total = 0
    for ledger in model.folder.glob("blobs/*.ledger"):
        with contextlib.suppress(FileNotFoundError):  # it goes when the file is whole
            for line in ledger.read_text().splitlines():
                words = line.split()
                total += int(words[2]) if words[:1] == ["done"] else 0
    return total


def test_two_processes_fetch_it_once(model: Model) -> None:
    model.hub.rate = 1_000_000
    code = (
        "import inrush, zlib\n"
        f"with inrush.open({NAME!r}) as checkpoint:\n"
        "    got = {n: zlib.crc32(memoryview(t).cast('B')) for n, t in checkpoint.tensors()}\n"
        "print(sorted(got.items()))\n"
    )
    children = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    answers = {child.communicate(timeout=120)[0] for child in children}
    assert all(child.returncode == 0 for child in children)
    assert len(answers) == 1
    assert model.hub.sent <= model.size + 4 * HEAD
    accepted(model)


def test_huggingface_hub_and_a_load_do_not_trample_each_other(model: Model) -> None:
    model.hub.rate = 400_000
    code = (
        "import huggingface_hub, sys\n"
        "huggingface_hub.hf_hub_download(*sys.argv[1:3], cache_dir=sys.argv[3])\n"
    )
    command = [sys.executable, "-c", code, NAME, SHARD.format(1), str(model.cache)]
    child = subprocess.Popen(command)
    deadline = time.monotonic() + 60
    while not list(model.folder.glob("blobs/*.incomplete")):
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert loaded(NAME) == model.expected
    assert child.wait(60) == 0
    assert loaded(NAME) == model.expected
    accepted(model)


def test_an_open_checkpoint_keeps_nobody_out(model: Model) -> None:
    with inrush.open(NAME) as checkpoint:
        first = next(iter(checkpoint.tensors()))
        assert first[0] in model.expected
        found = huggingface_hub.hf_hub_download(
            NAME, SHARD.format(1), cache_dir=model.cache, endpoint=model.hub.url, token=TOKEN
        )
        assert Path(found).read_bytes() == model.files[SHARD.format(1)]
        again = {n: bytes(memoryview(t).cast("B")) for n, t in checkpoint.tensors()}
    assert again == model.expected


def test_a_part_leaves_nothing_that_looks_whole(model: Model) -> None:
    assert loaded(NAME, include="t1.2").keys() == {"t1.2"}
    assert loaded(NAME, slices={"t2.*": "0:8, :"}).keys() == model.expected.keys()
    names = [path.name for path in model.folder.glob("blobs/*")]
    assert [name for name in names if len(name) == 64] in ([], [model.shard.name])
    assert not list(model.folder.glob(f"snapshots/*/{SHARD.format(2)}"))
    assert loaded(NAME) == model.expected
    accepted(model)


def test_a_signature_that_expires_is_asked_for_again(model: Model) -> None:
    model.hub.lifetime = 0.6
    model.hub.rate = 1_000_000
    assert loaded(NAME, storage_options={"connections": 1}) == model.expected
    assert model.hub.refused > 0
    accepted(model)


def test_wrong_bytes_get_no_name(model: Model) -> None:
    model.hub.corrupt = True
    with pytest.raises(inrush.DataError, match=r"SHA-256 is \w{64}, not \w{64}"):
        loaded(NAME)
    assert not [path for path in model.folder.glob("blobs/*") if len(path.name) == 64]
    model.hub.corrupt = False
    # What had come of the other shard by then is compared when the rest is here.
    with contextlib.suppress(inrush.DataError):
        loaded(NAME)
    assert loaded(NAME) == model.expected
    accepted(model)


def test_a_server_without_ranges_is_left_to_huggingface_hub(model: Model) -> None:
    model.hub.ranges = False
    assert loaded(NAME) == model.expected
    accepted(model)
    assert not list(model.folder.glob("blobs/*.inrush.*"))


def test_small_files_without_a_length_are_left_to_huggingface_hub(model: Model) -> None:
    model.hub.coded = True
    model.hub.add(NAME, model.files)
    assert loaded(NAME) == model.expected


def test_a_listing_of_bare_names_is_filled_up(model: Model) -> None:
    model.hub.listed = False
    assert loaded(NAME) == model.expected
    accepted(model)


def test_the_cache_can_be_switched_off(model: Model) -> None:
    assert loaded(NAME, storage_options={"cache": False}) == model.expected
    assert not model.cache.exists()


def test_a_full_disk_only_ends_the_filling(model: Model) -> None:
    model.home.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(model.home)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("may not mount here")
    try:
        assert loaded(NAME) == model.expected
        assert loaded(NAME) == model.expected
    finally:
        subprocess.run(["umount", "-l", str(model.home)], check=True)


def test_a_read_only_cache_is_used(model: Model, tmp_path: Path) -> None:
    assert loaded(NAME) == model.expected
    shared = tmp_path / "shared"
    shared.mkdir()
    bind = ["mount", "--bind", "-o", "ro", str(model.cache), str(shared)]
    if subprocess.run(bind, capture_output=True).returncode != 0:
        pytest.skip("may not mount here")
    os.environ["HF_HUB_CACHE"] = str(shared)
    try:
        model.hub.forget()
        assert loaded(NAME) == model.expected
        assert model.hub.sent == 0
    finally:
        del os.environ["HF_HUB_CACHE"]
        subprocess.run(["umount", "-l", str(shared)], check=True)


def test_the_next_commit_shares_what_is_the_same(model: Model) -> None:
    assert loaded(NAME) == model.expected
    model.hub.forget()
    files = {**model.files, "README.md": b"changed"}
    commit = model.hub.add(NAME, files)
    assert loaded(NAME) == model.expected
    assert model.hub.sent == 0
    assert accepted(model).name == commit


def test_an_existing_path_wins_over_a_model_id(model: Model, tmp_path: Path) -> None:
    place = tmp_path / NAME
    place.mkdir(parents=True)
    contents = {"here": random_tensor("F16", [16, 16])}
    write_file(place / "model.safetensors", contents)
    assert loaded(NAME).keys() == {"here"}
    assert loaded(f"hf://{NAME}").keys() == model.expected.keys()
    model.hub.forget()
    for name in ("org/model.safetensors", "./org/none", "/org/none", "org/none/deeper"):
        with pytest.raises(inrush.SourceError):
            inrush.open(name)
    assert model.hub.paths() == []


def test_files_folders_and_patterns_can_be_named(model: Model) -> None:
    below = {f"unet/{name}": data for name, data in model.files.items()}
    pull = model.hub.add(NAME, {**model.files, **below})
    model.hub.repos[NAME].refs["refs/pr/7"] = pull
    assert loaded(f"hf://{NAME}/unet/") == model.expected
    assert loaded(f"hf://{NAME}@refs/pr/7/unet") == model.expected
    assert loaded(f"hf://{NAME}@refs%2Fpr%2F7/model-*.safetensors") == model.expected
    one = loaded(f"hf://{NAME}@main/unet/{SHARD.format(1)}")
    assert one == {name: data for name, data in model.expected.items() if name.startswith("t1")}
    both = [f"hf://{NAME}/{SHARD.format(shard)}" for shard in (1, 2)]
    with inrush.open(both) as checkpoint:
        assert set(checkpoint) == model.expected.keys()


def test_it_is_opened_alike_everywhere(model: Model) -> None:
    from inrush.torch import load_file

    whole = load_file(NAME)
    assert {n: t.numpy().tobytes() for n, t in whole.items()} == model.expected
    with inrush.safe_open(f"hf://{NAME}", "pt") as handle:
        assert sorted(handle.keys()) == sorted(model.expected)
        part = handle.get_slice("t1.1")[3:5]
    assert part.numpy().tobytes() == whole["t1.1"][3:5].numpy().tobytes()
    with inrush.open(f"hf://{NAME}", mirrors=[str(model.folder / "snapshots" / model.commit)]) as c:
        assert {n: bytes(memoryview(t).cast("B")) for n, t in c.tensors()} == model.expected


def test_a_tensorizer_file_is_deserialized_from_the_hub(model: Model, tmp_path: Path) -> None:
    import torch
    from inrush.tensorizer import TensorDeserializer, TensorSerializer

    state = {"weight": torch.randn(64, 32), "bias": torch.randn(64)}
    serializer = TensorSerializer(tmp_path / "model.tensors")
    serializer.write_state_dict(state)
    serializer.close()
    model.hub.add(NAME, {**model.files, "model.tensors": (tmp_path / "model.tensors").read_bytes()})
    for _ in range(2):
        with TensorDeserializer(f"hf://{NAME}/model.tensors", device="cpu") as found:
            assert all(torch.equal(found[name], tensor) for name, tensor in state.items())
    assert len(model.hub.cdn_requests) == 1
    assert loaded(f"hf://{NAME}/model.tensors").keys() == state.keys()


def test_a_stream_from_the_hub_heeds_the_preset_storage_options(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    from inrush.tensorizer import stream_io

    monkeypatch.delenv("HF_TOKEN")
    uri = f"hf://{NAME}/config.json"
    with pytest.raises(inrush.SourceError):
        stream_io.open_stream(uri)
    monkeypatch.setenv("INRUSH_STORAGE_OPTIONS", f"token={TOKEN}")
    with stream_io.open_stream(uri) as stream:
        assert stream.read() == model.files["config.json"]


@pytest.mark.parametrize(
    "words",
    [
        ["load", "hf://" + NAME],
        ["inspect", NAME],
        ["verify", "hf://" + NAME],
        ["manifest", "hf://" + NAME, "--output", "manifest.json"],
        ["cache", "prefetch", NAME],
        ["convert", NAME, "out", "--to", "serverlessllm"],
    ],
)
def test_every_command_takes_it(model: Model, words: list[str]) -> None:
    done = inrush_command(*words)
    assert done.returncode == 0, done.stderr
    assert TOKEN not in done.stdout + done.stderr
    assert "Signature" not in done.stdout + done.stderr


def test_bench_measures_what_it_brought_here(model: Model) -> None:
    from inrush.cli.bench import _files_here

    for _ in range(2):
        files = _files_here([f"hf://{NAME}"])
        assert [Path(path).name for path in files] == [SHARD.format(1), SHARD.format(2)]
        assert [Path(path).read_bytes() for path in files] == [
            model.files[Path(path).name] for path in files
        ]
    assert model.hub.sent <= model.size + 2 * HEAD


def refusal(source: str, kind: type[Exception] = inrush.SourceError) -> str:
    """What is said of a place that cannot be opened."""
    with pytest.raises(kind) as caught:
        inrush.open(source)
    text = str(caught.value)
    assert "\n" not in text
    assert TOKEN not in text and "Signature" not in text and "hf_wrong" not in text
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return text


def test_refusals_say_what_and_why(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    model.hub.add("org/gated", model.files, token="hf_other", gated=True)
    for source, words in {
        "hf://org/gated": "403: access must be asked for",
        "hf://org/none": "401: no such repository",
        f"hf://{NAME}@v9": "404: the repository has no such revision",
    }.items():
        text = refusal(source)
        assert words in text and REQUEST_ID in text
    assert "nor is there a file or folder 'org/none' here" in refusal("org/none")
    assert "no such file" in refusal(f"hf://{NAME}/other.safetensors")
    for source in ("hf://alone", "hf://datasets/org/name", f"hf://{NAME}/../x", "hf://"):
        assert source in refusal(source, inrush.UsageError)
    with monkeypatch.context() as other:
        other.setenv("HF_TOKEN", "hf_wrong")
        assert "401: Invalid credentials in Authorization header" in refusal(f"hf://{NAME}")
    with monkeypatch.context() as other:
        other.setenv("HF_HUB_OFFLINE", "1")
        assert "HF_HUB_OFFLINE" in refusal(f"hf://{NAME}")
    with monkeypatch.context() as other:
        other.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        assert "refused" in refusal(f"hf://{NAME}")
    model.hub.broken = 100
    assert f"503: we are down (request id {REQUEST_ID})" in refusal(f"hf://{NAME}")


def test_a_file_that_is_refused_says_why(model: Model) -> None:
    model.hub.repos[NAME].closed = True
    text = refusal(f"hf://{NAME}")
    assert f"403 Forbidden: Access to model {NAME} is restricted." in text
    assert f"(request id {REQUEST_ID})" in text


@pytest.mark.parametrize(("source", "code"), [("hf://org/none", 3), ("hf://alone", 2)])
def test_commands_end_with_one_line_and_a_code(model: Model, source: str, code: int) -> None:
    done = inrush_command("inspect", source)
    assert done.returncode == code
    assert done.stderr.startswith(f"inrush: open {source}") and done.stderr.count("\n") == 1


def test_nothing_is_saved_to_the_hub(model: Model) -> None:
    import torch
    from inrush.torch import save_file

    with pytest.raises(inrush.UsageError, match="hf upload"):
        save_file({"t": torch.zeros(1)}, f"hf://{NAME}/model.safetensors")


@pytest.mark.parametrize(
    ("source", "kind"), [(f"hf://{NAME}", "UsageError"), (NAME, "SourceError")]
)
def test_without_huggingface_hub_one_error_names_the_extra(
    model: Model, source: str, kind: str
) -> None:
    code = (
        "import sys; sys.modules['huggingface_hub'] = None\n"
        "import importlib.util as u; found = u.find_spec\n"
        "u.find_spec = lambda n, *r: None if n == 'huggingface_hub' else found(n, *r)\n"
        f"import inrush\ninrush.open({source!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    last = done.stderr.splitlines()[-1]
    assert "pip install 'inrush[hub]'" in last and kind in last


def test_another_kind_of_server_can_be_a_mirror(model: Model, tmp_path: Path) -> None:
    served = tmp_path / "served"
    served.mkdir()
    for name, data in model.files.items():
        (served / name).write_bytes(data)
    with nginx(served, tmp_path / "nginx") as port:
        mirror = f"http://127.0.0.1:{port}/"
        assert loaded(f"hf://{NAME}", mirrors=[mirror]) == model.expected
