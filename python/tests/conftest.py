"""Checkpoints of random bytes, written by hand so that nothing under test helps to make them."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# Bits of one element.
DTYPES = {
    "BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8,
    "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32, "C64": 64, "F64": 64, "I64": 64, "U64": 64,
}  # fmt: skip

Contents = dict[str, tuple[str, list[int], bytes]]


def random_tensor(dtype: str, shape: list[int]) -> tuple[str, list[int], bytes]:
    """An entry of a file: dtype, shape, random bytes that are valid for the dtype."""
    bits = DTYPES[dtype]
    for extent in shape:
        bits *= extent
    data = os.urandom(bits // 8)
    return dtype, shape, bytes(byte & 1 for byte in data) if dtype == "BOOL" else data


def write_file(
    path: Path, contents: Contents, *, shift: int = 0, metadata: dict[str, str] | None = None
) -> Path:
    """Write a safetensors file whose data begins `shift` bytes after a multiple of 8."""
    header: dict[str, object] = {} if metadata is None else {"__metadata__": metadata}
    offset = 0
    for name, (dtype, shape, data) in contents.items():
        end = offset + len(data)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * ((shift - len(text)) % 8)
    body = b"".join(data for _, _, data in contents.values())
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)
    return path


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fake-gpu",
        action="store_true",
        help="every load for torch that names no device goes to the fake driver's GPU",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "host_memory(why): what it says holds of host memory; skipped with --fake-gpu"
    )
    config.stash[DELIVERED] = 0


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--fake-gpu"):
        return
    for item in items:
        mark = item.get_closest_marker("host_memory")
        if mark is not None:
            item.add_marker(pytest.mark.skip(reason=f"--fake-gpu: {mark.args[0]}"))


def pytest_sessionfinish(session: pytest.Session) -> None:
    # A worker of pytest-xdist tells the one that counts.
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["delivered"] = session.config.stash[DELIVERED]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    output = getattr(node, "workeroutput", None) or {}
    node.config.stash[DELIVERED] += output.get("delivered", 0)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if config.getoption("--fake-gpu"):
        terminalreporter.write_line(f"{config.stash[DELIVERED]} loads went to the fake GPU")


DELIVERED = pytest.StashKey[int]()


def _has_its_own_gpu(request: pytest.FixtureRequest) -> bool:
    return "gpu" in request.fixturenames or "no_gpu" in request.fixturenames


@pytest.fixture(autouse=True)
def _delivered_to_the_fake_gpu(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    if not request.config.getoption("--fake-gpu") or _has_its_own_gpu(request):
        yield
        return
    from fake_gpu import everything_on_it

    with everything_on_it(monkeypatch) as loads:
        yield
        request.config.stash[DELIVERED] += len(loads)


@pytest.fixture
def every_dtype(tmp_path: Path) -> tuple[Path, Contents]:
    """A file with a tensor of every dtype, a scalar, and an empty tensor."""
    contents = {dtype: random_tensor(dtype, [6, 8]) for dtype in DTYPES}
    contents["scalar"] = random_tensor("F32", [])
    contents["empty"] = random_tensor("F16", [0, 7])
    return write_file(tmp_path / "every.safetensors", contents), contents


@pytest.fixture
def sharded(tmp_path: Path) -> tuple[Path, Contents]:
    """Two shards with an index file, 9 MiB in 12 tensors."""
    folder = tmp_path / "model"
    folder.mkdir()
    contents: Contents = {}
    weight_map = {}
    for shard in range(2):
        part = {
            f"model.layers.{shard}.{kind}.weight": random_tensor("BF16", [rows, 256])
            for kind, rows in (("q", 1024), ("k", 512), ("v", 512), ("up", 4096), ("norm", 1))
        }
        part[f"model.layers.{shard}.q.bias"] = random_tensor("F32", [1024])
        name = f"model-{shard + 1:05}-of-00002.safetensors"
        write_file(folder / name, part, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, name)
        contents |= part
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder, contents


# How a terminal is, where folders of a user's are, and what of them this machine's user has set.
OF_A_USER = (
    "COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE",
    "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "PYTHONWARNINGS",
)  # fmt: skip


@pytest.fixture(autouse=True, scope="session")
def user_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests and what they start have an empty home, a plain terminal and the usual umask."""
    before = os.umask(0o022)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        for name in OF_A_USER:
            patch.delenv(name, raising=False)
        yield
    os.umask(before)


@pytest.fixture(autouse=True)
def presets_of_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test heeds what whoever runs it has set for loads, or teaches their profile."""
    for name in [*os.environ]:
        if name.startswith("INRUSH_") and not name.endswith("_LIBRARY"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("INRUSH_PROFILE", "off")


def heed_ctrl_c() -> None:
    """Before exec: shells start background jobs with SIGINT ignored, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def inrush_command(tmp_path: Path) -> Iterator[Command]:
    """Runs `python -m inrush` in pipes."""

    def run(*arguments: object, **options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "inrush", *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=120,
            cwd=tmp_path,
            env={**os.environ, "INRUSH_PROFILE": "off", **options},
            check=False,
        )

    return run
