"""tensorizer's files: loaded, verified, decrypted, saved and listed, beside tensorizer; converting.

Everything is warm, so that what limits is memory and processors: beside the ratios stands how many
GB/s all cores would do if they did nothing but what the case needs, each measured here.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench import contenders, pages
from bench.fixtures import BUILD, GIB, Fixture
from bench.limits import fio_point
from bench.measure import Cell, Entrant
from bench.places import Place, open_filesystem
from bench.saving import FIO_RUNS, fio_write
from bench.session import Session

Timed = Callable[[], dict[str, Any]]

WORKS = ("load", "verify", "decrypt")
FILES = {"decrypt": "secret", "list": "many"}
# By label: what is checked while the file is loaded.
CRC = {"inrush": "crc", "inrush:none": "none"}
MANY = 100_000
KEY = bytes(range(32))

# Writes plain.tensors, secret.tensors and many.tensors beside one another.
MAKE = """
import sys, warnings
warnings.simplefilter("ignore")
import inrush
from inrush._layouts import Item, tensorizer_layout
source, folder, key, many = sys.argv[1:]
inrush.convert(source, folder + "/plain.tensors", to="tensorizer")
inrush.convert(source, folder + "/secret.tensors", to="tensorizer", encrypt=bytes.fromhex(key))
items = [Item(f"layers.{i}.w", "F32", (16,), 64) for i in range(int(many))]
layout = tensorizer_layout(items, file="many.tensors", cipher=None)
with open(folder + "/many.tensors", "wb") as file:
    file.truncate(layout.sizes["many.tensors"])
    for _, offset, data in layout.fixed:
        file.seek(offset)
        file.write(data)
    for place in layout.places.values():
        file.seek(place.offset)
        file.write(place.record.encode(memoryview(bytes(64)))[0])
"""

# GB/s of one core: SHA-256, CRC-32, secretbox, a copy into fresh memory.
CORE = """
import json, mmap, os, time
from inrush import _core
size = 256 << 20
data = bytearray(os.urandom(size))
address = _core.buffer_address(data)
def rate(work):
    start = time.perf_counter()
    work()
    return size / (time.perf_counter() - start) / 1e9
def copy():
    fresh = mmap.mmap(-1, size)
    fresh.madvise(mmap.MADV_HUGEPAGE)
    fresh[:] = memoryview(data)
print(json.dumps({
    "sha256": rate(lambda: _core.tree_digest(address, size)),
    "crc32": rate(lambda: _core.checksums(b"", address, size, True, False)),
    "secretbox": rate(lambda: _core.encrypt(address, size, bytearray(32), bytes(24), 2 << 20)),
    "copy": rate(copy),
}))
"""


class Written(Fixture):
    """A file that this part wrote."""

    def __init__(self, folder: Path, name: str) -> None:
        super().__init__("formats", (folder / f"{name}.tensors").stat().st_size)
        object.__setattr__(self, "path", folder / f"{name}.tensors")

    @property
    def place(self) -> Path:
        return self.files[0].parent

    @property
    def files(self) -> list[Path]:
        return [self.__dict__["path"]]


def formats(session: Session) -> None:
    if contenders.package_version("tensorizer") is None:
        print("formats: tensorizer is not installed", file=sys.stderr)
        return
    fixture = session.fixture("llama", GIB, 1)
    folder = (BUILD / "fixtures" / f"formats-{fixture.size}").resolve()
    with open_filesystem("disk", [fixture]) as (source,):
        make(folder, source)
        place = Place("disk", folder, Written(folder, "plain"))
        for work in (*WORKS, "save", "list"):
            file = Place("disk", folder, Written(folder, FILES.get(work, "plain")))
            entrants = [Entrant(name, name, {"work": work}) for name in ("inrush", "tensorizer")]
            if work == "list":  # the package's own way, beside tensorizer's interface
                entrants.append(Entrant("inrush:open", "inrush", {"work": "names"}))
            warm(folder, source)
            session.cell(Cell(f"formats/{work}", file, "memory", job="formats"), entrants)
        warm(folder, source)  # what was saved may have taken the place of some of it
        ways = [Entrant(name, "inrush", {"work": work}) for name, work in CRC.items()]
        session.cell(Cell("formats/crc", place, "memory", job="formats"), ways)
        same = {"work": "open", "source": str(source.folder)}  # the same bytes as safetensors
        ways = [
            Entrant("inrush", "inrush", {"work": "open"}),
            Entrant("inrush:safetensors", "inrush", same),
        ]
        session.cell(Cell("formats/open", place, "memory", job="formats"), ways)
        entrants = [Entrant("inrush", "inrush", {"work": "convert"})]
        session.cell(Cell("formats/convert", place, "cold", job="formats"), entrants)
        session.results.note("formats limits", {**limits(), **converting(folder)})


def warm(folder: Path, source: Place) -> None:
    written = [folder / f"{name}.tensors" for name in ("plain", "secret", "many")]
    pages.warm([*written, *source.files])


def converting(folder: Path) -> dict[str, float]:
    """The slower of reading the source directly and writing the destination durably, in GB/s."""
    reads = [fio_point(folder / "plain.tensors", "io_uring", "1m", 32) for _ in range(FIO_RUNS)]
    rates = [
        [point["gb_per_s"] for point in reads if "gb_per_s" in point],
        [rate for _ in range(FIO_RUNS) if (rate := fio_write(folder, "disk", True)) is not None],
    ]
    return {"convert": min(map(statistics.median, rates))} if all(rates) else {}


def make(folder: Path, source: Place) -> None:
    """In a process of its own: this one shall not have imported Inrush."""
    if (folder / ".done").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    arguments = [str(source.folder), str(folder), KEY.hex(), str(MANY)]
    subprocess.run([sys.executable, "-c", MAKE, *arguments], check=True)
    os.sync()
    (folder / ".done").write_text("formats\n")


def limits() -> dict[str, float]:
    """GB/s of all cores, doing nothing but copying and what each case adds to it."""
    import json

    done = subprocess.run([sys.executable, "-c", CORE], check=True, capture_output=True, text=True)
    rates = json.loads(done.stdout)
    cores = len(os.sched_getaffinity(0))

    def together(*steps: str) -> float:
        return float(cores / sum(1 / rates[step] for step in steps))

    return {
        "load": together("copy"),
        "verify": together("copy", "crc32", "sha256"),
        "decrypt": together("copy", "secretbox"),
        "save": together("copy", "crc32", "sha256"),
    }


def prepare(contender: str, folder: str, options: Mapping[str, Any]) -> Timed:
    work = options["work"]
    plain = os.path.join(folder, "plain.tensors")
    if work == "open":
        import inrush

        source = options.get("source", plain)
        return lambda: dict(inrush.open(source, framework="pt", mapping="never").load())
    if work == "convert":
        return prepare_convert(folder)
    if work == "names":
        import inrush

        many = os.path.join(folder, "many.tensors")

        def names() -> dict[str, Any]:
            assert len(list(inrush.open(many))) == MANY
            return {}

        return names
    if work in CRC.values():
        import inrush

        copied = {"framework": "pt", "mapping": "never", "verify": work}
        return lambda: dict(inrush.open(plain, **copied).load())
    if contender == "inrush":
        import inrush.tensorizer as kit
    else:
        import tensorizer as kit  # type: ignore[no-redef,import-untyped]
    path = os.path.join(folder, f"{FILES.get(work, 'plain')}.tensors")
    if work == "save":
        return prepare_save(kit, path)
    words: dict[str, Any] = {"verify_hash": work == "verify", "lazy_load": work == "list"}
    if work == "decrypt":
        words["encryption"] = kit.DecryptionParams.from_key(KEY)

    def load() -> dict[str, Any]:
        found = kit.TensorDeserializer(path, device="cpu", **words)
        if work == "list":
            names = list(found.keys())
            assert len(names) == MANY
            return {}
        return dict(found.items())

    return load


def prepare_save(kit: Any, path: str) -> Timed:
    with kit.TensorDeserializer(path, device="cpu") as found:
        tensors = {name: tensor.detach().clone() for name, tensor in found.items()}
    target = path.replace("plain", "saved")
    Path(target).unlink(missing_ok=True)
    os.sync()

    def save() -> dict[str, Any]:
        serializer = kit.TensorSerializer(target)
        serializer.write_state_dict(tensors)
        serializer.close()
        return tensors

    return save


def prepare_convert(folder: str) -> Timed:
    import inrush

    target = os.path.join(folder, "converted.safetensors")
    Path(target).unlink(missing_ok=True)
    os.sync()

    def convert() -> dict[str, Any]:
        inrush.convert(os.path.join(folder, "plain.tensors"), target, to="safetensors")
        return {}

    return convert
