"""The cases of the table of goals, one function each: ``python -m bench cold half ...``."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

from bench import limits, pages
from bench.confined import confined
from bench.device import device
from bench.fixtures import GIB, MIB, Fixture
from bench.formats import formats
from bench.measure import RAW, Cell, backends, inrush, ours, peers, rivals
from bench.network import network
from bench.places import Unavailable, open_filesystem
from bench.processes import Failed
from bench.regret import regret
from bench.saving import pretrained, saving
from bench.session import Session

NEVER = "inrush:never"


def big(session: Session) -> Fixture:
    return session.fixture("llama", 3 * GIB, 2)


def middle(session: Session) -> Fixture:
    return session.fixture("llama", GIB, 2)


def limit(session: Session) -> None:
    """fio's grid on the first shard of the largest fixture."""
    with open_filesystem("disk", [big(session)]) as (place,):
        pages.evict(place.files)
        session.results.note("fio", limits.fio_grid(place.files[0], session.quick))
        pages.evict(place.files)


def cold(session: Session) -> None:
    raws = [RAW["uring"], RAW["direct"], RAW["map"]]
    mine = ours(inrush(), inrush(NEVER, mapping="never"))
    with open_filesystem("disk", [big(session)]) as (place,):
        entrants = [*mine, *peers(), *raws, *backends()]
        session.cell(Cell("cold", place, "cold"), entrants, drop=True)


def warm(session: Session) -> None:
    """On disk and in tmpfs; the copy (``mapping="never"``) beside the mapped load."""
    mine = ours(inrush(), inrush(NEVER, mapping="never"))
    raws = [RAW["map"], RAW["copy"], RAW["memcpy"]]
    with open_filesystem("disk", [big(session)]) as (place,):
        session.cell(Cell("warm", place, "warm"), [*mine, *peers(), *raws])
    with open_filesystem("tmpfs", [session.fixture("llama", GIB, 2)]) as (place,):
        session.cell(Cell("tmpfs", place, "memory"), [*mine, *peers(), *raws])


def half(session: Session) -> None:
    entrants = [
        *ours(inrush(), inrush(NEVER, mapping="never")),
        *rivals(),
        RAW["map"],
        RAW["uring"],
        RAW["copy"],
    ]
    with open_filesystem("disk", [session.fixture("llama", 512 * MIB, 2)]) as (place,):
        for state in pages.SHAPES:
            drop = state not in ("cold", "warm")  # those two give the limit of each half
            session.cell(Cell(f"half/{state}", place, state), entrants, drop)


def sandbox(session: Session) -> None:
    """Cold, without io_uring and AIO, beside threads of direct reads."""
    entrants = [
        *(replace(each, denied=True) for each in ours(inrush(), inrush(NEVER, mapping="never"))),
        *peers("safetensors"),
        RAW["direct"],
    ]
    with open_filesystem("disk", [middle(session)]) as (place,):
        session.cell(Cell("sandbox", place, "cold"), entrants)


def several(session: Session) -> None:
    entrants = [*ours(inrush()), *rivals(), RAW["map"], RAW["uring"]]
    with open_filesystem("disk", [middle(session)]) as (place,):
        for count in (2, 4):
            cell = Cell(f"several/{count}", place, "cold", processes=count)
            session.cell(cell, entrants, drop=True)


def restart(session: Session) -> None:
    """A cold load and two restarts in fresh processes."""
    with open_filesystem("disk", [middle(session)]) as (place,):
        cell = Cell("restart", place, "cold", restarts=2)
        session.cell(cell, [*ours(inrush()), *peers()])


def loops(session: Session) -> None:
    """``for k in keys(): get_tensor(k)``, one handle a shard."""
    entrants = [*ours(inrush()), *peers("safetensors")]
    with open_filesystem("disk", [middle(session)]) as (place,):
        for state in ("cold", "warm"):
            for count in (1, 4):
                key = f"loops/{state}/{count}"
                cell = Cell(key, place, state, job="loop", threads=count)
                session.cell(cell, entrants)


def many(session: Session) -> None:
    """100,000 small tensors, and shards as small as a fetch and just above."""
    small = Fixture("many", 512 * 100_000)
    equal = Fixture("equal", 256 * MIB, 256)
    uneven = Fixture("llama", 256 * MIB, 256)
    entrants = [*ours(inrush()), *peers("safetensors")]
    with open_filesystem("disk", [small, equal, uneven]) as (tensors, tiny, llama):
        session.cell(Cell("many/open", tensors, "warm", job="open"), entrants)
        session.cell(Cell("many/each", tensors, "warm", job="each"), entrants)
        everyone = [*entrants, *peers("runai")]
        session.cell(Cell("many/load", tensors, "warm"), everyone, rounds=5)
        everyone = [*ours(inrush()), *peers()]
        for state in ("cold", "warm"):
            session.cell(Cell(f"tiny shards/{state}", tiny, state), everyone)
            session.cell(Cell(f"small shards/{state}", llama, state), everyone)


def adapter(session: Session) -> None:
    everyone = [*ours(inrush()), *peers()]
    with open_filesystem("disk", [Fixture("adapter", 10 * MIB)]) as (place,):
        for state in ("cold", "warm"):
            session.cell(Cell(f"adapter/{state}", place, state), everyone)


def importing(session: Session) -> None:
    """Seconds of ``import``, in interpreters that have imported nothing else."""
    found = {}
    for module in ("inrush", "safetensors", "safetensors.torch"):
        program = (
            "import sys, time; before = set(sys.modules); start = time.perf_counter(); "
            f"import {module}; seconds = time.perf_counter() - start; "
            "heavy = {'numpy', 'torch'} & set(sys.modules) - before; "
            "print(seconds, *sorted(heavy))"
        )
        times, heavy = [], []
        for _ in range(session.bench.rounds):
            command = [sys.executable, "-c", program]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                seconds, *heavy = done.stdout.split()
                times.append(float(seconds))
        if times:
            found[module] = {
                "seconds": statistics.median(times),
                "most": max(times),
                "imports": heavy,
            }
            print(f"import {module}: {statistics.median(times):.4f} s", file=sys.stderr)
    session.results.note("import", found)


def cgroup(session: Session) -> None:
    """In a memory cgroup of tensors + budget + 150 MiB, beside the same load outside."""
    try:
        with open_filesystem("disk", [middle(session)]) as (place,):
            figures = confined(place, session.bench.native, session.bench.rounds)
    except Unavailable as reason:
        figures = {"skipped": str(reason)}
    except Failed as error:
        figures = {"failed": str(error)}
    print(f"cgroup: {figures}", file=sys.stderr)
    session.results.note("cgroup", figures)


PARTS: dict[str, Callable[[Session], None]] = {
    "limit": limit,
    "cold": cold,
    "warm": warm,
    "half": half,
    "sandbox": sandbox,
    "several": several,
    "restart": restart,
    "loops": loops,
    "many": many,
    "adapter": adapter,
    "import": importing,
    "cgroup": cgroup,
    "device": device,
    "save": saving,
    "pretrained": pretrained,
    "formats": formats,
    "network": network,
    "regret": regret,
}
