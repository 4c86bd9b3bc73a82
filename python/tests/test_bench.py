"""What bench/ relies on: that each measurement finds the machine as the first one found it."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Contents

import inrush

ROOT = Path(__file__).resolve().parents[2]


def test_the_marks_that_loads_leave_are_found(
    sharded: tuple[Path, Contents], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    from bench.measure import marks_of_loads

    before = set(marks_of_loads())
    inrush.open(sharded[0]).load()
    assert set(marks_of_loads()) - before
