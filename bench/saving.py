"""Saving beside safetensors', with and without fsync, and transformers' own loader.

Both write the same tensors, which are in memory of the process, into the same file name; what an
earlier round left is removed, and the filesystem is quiet, before the clock starts.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench import contenders, pages
from bench.fixtures import BUILD, GIB, MEMORY, Fixture
from bench.measure import Cell, Entrant, ours, peers
from bench.places import Place, open_filesystem
from bench.session import Session

Timed = Callable[[], dict[str, Any]]

NAME = "saved.safetensors"
FIO_RUNS = 5  # the disk under a hypervisor gives half or twice from one to the next
WAYS = (("disk", True), ("disk", False), ("tmpfs", False))


def save_key(filesystem: str, fsync: bool) -> str:
    return f"save/{filesystem}{', fsync' if fsync else ''}"


def saving(session: Session) -> None:
    """A GiB saved by both, alternating; and what fio writes at most."""
    fixture = session.fixture("llama", GIB, 2)
    rates = {}
    with open_filesystem("disk", [fixture]) as (place,):
        pages.warm(place.files)
        for filesystem, fsync in WAYS:
            folder = (BUILD if filesystem == "disk" else MEMORY).resolve() / "saved"
            folder.mkdir(parents=True, exist_ok=True)
            options = {"target": str(folder / NAME), "fsync": fsync}
            entrants = [Entrant(name, name, options) for name in ("inrush", "safetensors")]
            cell = Cell(save_key(filesystem, fsync), place, "memory", job="save")
            session.cell(cell, [each for each in entrants if contenders.version(each.contender)])
            runs = [fio_write(folder, filesystem, fsync) for _ in range(FIO_RUNS)]
            known = [rate for rate in runs if rate is not None]
            rates[save_key(filesystem, fsync)] = statistics.median(known) if known else None
            shutil.rmtree(folder)
    session.results.note("fio write", rates)


def fio_write(folder: Path, filesystem: str, fsync: bool) -> float | None:
    """GB/s of a GiB: directly where it shall be durable, else through the page cache."""
    if shutil.which("fio") is None:
        return None
    how = ["--ioengine=psync", "--bs=4m"]
    if fsync:
        how = ["--ioengine=io_uring", "--bs=1m", "--iodepth=32", "--direct=1", "--end_fsync=1"]
    command = ["fio", "--name=w", f"--filename={folder / 'fio'}", "--rw=write", "--size=1g", *how]
    if filesystem == "disk":
        command.append("--fallocate=native")
    # Fresh bytes for each block: else the source stays in the processor's cache.
    command += ["--refill_buffers", "--output-format=json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    (folder / "fio").unlink(missing_ok=True)
    if done.returncode != 0:
        return None
    written = json.loads(done.stdout[done.stdout.index("{") :])["jobs"][0]["write"]
    return float(written["bw_bytes"]) / 1e9


def prepare_save(contender: str, folder: str, options: Mapping[str, Any]) -> Timed:
    """Loads the tensors into memory of their own; what it returns saves them."""
    tensors = dict(contenders.prepare_clone({}, {})(folder))
    target, fsync = options["target"], options["fsync"]
    Path(target).unlink(missing_ok=True)
    os.sync()
    if contender == "inrush":
        from inrush.torch import save_file as save_ours

        def save() -> dict[str, Any]:
            save_ours(tensors, target, fsync=fsync)
            return tensors

        return save
    from safetensors.torch import save_file as save_theirs

    def save_and_sync() -> dict[str, Any]:
        save_theirs(tensors, target)
        if fsync:
            fd = os.open(target, os.O_RDONLY)
            os.fsync(fd)
            os.close(fd)
        return tensors

    return save_and_sync


CONFIG = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 16,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "vocab_size": 32000,
    "dtype": "bfloat16",
}


def pretrained(session: Session) -> None:
    """``from_pretrained`` of a Llama, with safetensors' functions and with ours in their place."""
    if contenders.package_version("transformers") is None:
        print("pretrained: transformers is not installed")
        return
    folder = (BUILD / "fixtures" / "transformers").resolve()
    if not (folder / ".done").exists():
        make_pretrained(folder)
    place = Place("disk", folder, Written(folder))
    for state in ("cold", "warm"):
        cell = Cell(f"pretrained/{state}", place, state, job="pretrained")
        session.cell(cell, [*ours(Entrant("inrush", "inrush")), *peers("safetensors")])


class Written(Fixture):
    """A checkpoint that somebody else wrote."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            "transformers", sum(f.stat().st_size for f in folder.glob("*.safetensors"))
        )
        object.__setattr__(self, "folder", folder)

    @property
    def place(self) -> Path:
        found: Path = self.__dict__["folder"]
        return found


def make_pretrained(folder: Path) -> None:
    """In a process of its own: this one shall not have imported torch."""
    shutil.rmtree(folder, ignore_errors=True)
    program = (
        "import json, sys, torch, transformers\n"
        "config = transformers.LlamaConfig(**json.loads(sys.argv[2]))\n"
        "transformers.LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(sys.argv[1])\n"
    )
    subprocess.run([sys.executable, "-c", program, str(folder), json.dumps(CONFIG)], check=True)
    os.sync()
    (folder / ".done").write_text("transformers\n")


def prepare_pretrained(contender: str, folder: str) -> Timed:
    """Imports transformers with the contender's functions under safetensors' names."""
    import safetensors
    import safetensors.torch

    if contender == "inrush":
        import inrush.torch

        import inrush

        replaced = vars(safetensors), vars(safetensors.torch)
        replaced[0]["safe_open"] = inrush.safe_open
        replaced[1]["load_file"] = inrush.torch.load_file
        replaced[1]["safe_open"] = inrush.safe_open
    import transformers

    model_class = transformers.LlamaForCausalLM

    def load() -> dict[str, Any]:
        model = model_class.from_pretrained(folder, dtype="bfloat16")
        return dict(model.named_parameters())

    return load


def prepare(job: str, contender: str, folder: str, options: Mapping[str, Any]) -> Timed:
    if job == "save":
        return prepare_save(contender, folder, options)
    return prepare_pretrained(contender, folder)
