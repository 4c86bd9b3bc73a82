"""A folder shown by the filesystem of tests/fuse, which is far away."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.farfs import CannotMount, far_folder


@contextlib.contextmanager
def far(
    folder: Path, tmp_path: Path, stream_mb: int = 200, log: Path | None = None
) -> Iterator[Path]:
    """Where it is shown, half a millisecond away; skips where FUSE is not to be had."""
    with contextlib.ExitStack() as stack:
        try:
            mount = far_folder(folder, tmp_path / "far", 0.5, stream_mb, log)
            place = stack.enter_context(mount)
        except CannotMount as reason:
            pytest.skip(str(reason))
        yield place
