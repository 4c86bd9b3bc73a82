"""Where a fixture lies: on the disk, in tmpfs, under an overlay, or far away through FUSE."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bench.farfs import CannotMount, far_folder
from bench.fixtures import BUILD, Fixture
from bench.pages import warm

MOUNTS = BUILD / "mounts"


@dataclass(frozen=True)
class Place:
    """A fixture as seen through a filesystem."""

    filesystem: str  # disk, tmpfs, overlay, far-1ms, far-5ms, far-20ms
    folder: Path
    fixture: Fixture

    @property
    def files(self) -> list[Path]:
        # Named through the fixture: listing a far folder costs round trips.
        return [self.folder / path.name for path in self.fixture.files]

    @property
    def probed(self) -> list[Path]:
        """The files whose residency the kernel tells the truth about."""
        return self.fixture.files if self.filesystem == "overlay" else self.files

    @property
    def size(self) -> int:
        return self.fixture.bytes_on_disk


class Unavailable(RuntimeError):
    """This filesystem cannot be had here; the text says why."""


@contextmanager
def open_filesystem(filesystem: str, fixtures: list[Fixture]) -> Iterator[list[Place]]:
    """The fixtures, made if need be, as seen through ``filesystem``; mounts end with the block."""
    made = [replace(each, in_memory=filesystem == "tmpfs").make() for each in fixtures]
    root = made[0].place.parent
    with ExitStack() as stack:
        if filesystem == "overlay":
            root = stack.enter_context(overlay(root))
        elif filesystem.startswith("far-"):
            # The far end is slow because it is far, not because its own disk is cold.
            for fixture in made:
                warm(fixture.files)
            latency_ms = float(filesystem.removeprefix("far-").removesuffix("ms"))
            try:
                root = stack.enter_context(far_folder(root, MOUNTS / filesystem, latency_ms))
            except CannotMount as error:
                raise Unavailable(str(error)) from error
        yield [Place(filesystem, root / each.place.name, each) for each in made]


@contextmanager
def overlay(lower: Path) -> Iterator[Path]:
    """A read-only overlay of two layers, the lower one being ``lower``."""
    if os.geteuid() != 0:
        raise Unavailable("overlayfs needs root")
    mountpoint, other = MOUNTS / "overlay", MOUNTS / "overlay-upper"
    mountpoint.mkdir(parents=True, exist_ok=True)
    other.mkdir(parents=True, exist_ok=True)
    layers = f"lowerdir={other.resolve()}:{lower.resolve()}"
    command = ["mount", "-t", "overlay", "overlay", "-o", layers, str(mountpoint)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Unavailable(f"overlayfs cannot be mounted: {done.stderr.strip()}")
    try:
        yield mountpoint
    finally:
        subprocess.run(["umount", str(mountpoint)], check=False)
