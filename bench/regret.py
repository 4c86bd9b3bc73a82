"""Regret: the time of the automatic choice over that of the best way known, cell by cell.

The ways known are every backend of Inrush, every peer and the raw loop. The choice is made twice:
knowing nothing, and with a profile learnt on other files of the same filesystems.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bench.fixtures import BUILD, GIB, MIB, Fixture
from bench.measure import RAW, Bench, Cell, Entrant, backends, inrush, ours, rivals
from bench.places import Unavailable, open_filesystem
from bench.session import Session

ROUNDS = 5
LEARNT = "inrush:learnt"

# Filesystem, size in MiB, shards, residency, processes.
Row = tuple[str, int, int, str, int]


def rows() -> Iterator[Row]:
    """The matrix, thinned to the cells that differ in kind."""
    for state in ("cold", "warm"):
        for size, shards in ((10, 1), (64, 64), (512, 1), (512, 8), (3072, 2)):
            yield ("disk", size, shards, state, 1)
        yield ("disk", 512, 1, state, 4)
    for state in ("halves", "random", "alternating 64 KiB", "alternating 1 MiB"):
        yield ("disk", 512, 1, state, 1)
    yield ("disk", 512, 8, "halves", 1)
    yield ("disk", 512, 1, "cold", 2)
    for size, shards, count in ((10, 1, 1), (64, 64, 1), (512, 1, 1), (512, 8, 1), (512, 1, 4)):
        yield ("tmpfs", size, shards, "memory", count)
    for state in ("cold", "warm"):
        yield ("overlay", 10, 1, state, 1)
        yield ("overlay", 512, 1, state, 1)
    yield ("overlay", 512, 8, "cold", 1)
    yield ("overlay", 512, 1, "halves", 1)
    yield ("overlay", 512, 1, "cold", 2)
    for latency in (1, 5, 20):
        far = f"far-{latency}ms"
        yield (far, 10, 1, "cold", 1)
        yield (far, 256, 1, "cold", 1)
    yield ("far-1ms", 256, 8, "cold", 1)
    yield ("far-5ms", 256, 8, "cold", 1)
    yield ("far-5ms", 256, 1, "warm", 1)
    yield ("far-5ms", 256, 1, "cold", 2)
    yield ("far-20ms", 64, 64, "cold", 1)


def key_of(row: Row) -> str:
    filesystem, size, shards, state, count = row
    return f"regret/{filesystem}/{size}m-{shards}/{state}/{count}"


def teach(bench: Bench, filesystem: str) -> Path | None:
    """Loads of other files, as a user would have made before; the profile they left behind."""
    if not ours(inrush()):
        return None
    profile = BUILD / "learnt" / f"{filesystem}.json"
    profile.parent.mkdir(parents=True, exist_ok=True)
    profile.unlink(missing_ok=True)
    # Not scaled: nothing is learnt from loads under 64 MiB.
    size = 128 * MIB if filesystem.startswith("far") else 384 * MIB
    others = [Fixture("llama", size, 3, variant=1), Fixture("llama", 24 * MIB, 1, variant=1)]
    with open_filesystem(filesystem, others) as places:
        for place in places:
            for state in ("memory",) if filesystem == "tmpfs" else ("cold", "cold", "warm"):
                for mapping in ("auto", "never"):
                    bench.teach(Cell("teaching", place, state), inrush(mapping=mapping), profile)
    return profile if profile.exists() else None


def entrants(profile: Path | None, far: bool) -> list[Entrant]:
    known = (
        ("uring", "direct", "map", "copy", "streams") if far else ("uring", "direct", "map", "copy")
    )
    judged = [inrush()]
    if profile:
        judged.append(inrush(LEARNT, profile))
    return [*ours(*judged), *rivals(), *backends(), *(RAW[name] for name in known)]


def regret(session: Session) -> None:
    matrix = [row for row in rows() if session.only in key_of(row)]
    for filesystem in dict.fromkeys(row[0] for row in matrix):
        wanted = [row for row in matrix if row[0] == filesystem]
        try:
            run_filesystem(session, filesystem, wanted)
        except Unavailable as reason:
            session.results.note(f"regret/{filesystem}", {"skipped": str(reason)})


def run_filesystem(session: Session, filesystem: str, wanted: list[Row]) -> None:
    profile = teach(session.bench, filesystem)
    shapes = list(dict.fromkeys((size, shards) for _, size, shards, _, _ in wanted))
    fixtures = [session.fixture("llama", size * MIB, shards) for size, shards in shapes]
    with open_filesystem(filesystem, fixtures) as found:
        places = dict(zip(shapes, found, strict=True))
        for row in wanted:
            _, size, shards, state, count = row
            rounds = 3 if size * MIB >= 3 * GIB else ROUNDS
            cell = Cell(key_of(row), places[size, shards], state, processes=count)
            far = filesystem.startswith("far")
            session.cell(cell, entrants(profile, far), drop=True, rounds=rounds)
