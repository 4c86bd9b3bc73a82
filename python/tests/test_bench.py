"""What bench/ relies on: that each measurement finds the machine as the first one found it."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Contents

import inrush
from bench import results
from bench.measure import marks_of_loads


def test_the_marks_that_loads_leave_are_found(sharded: tuple[Path, Contents]) -> None:
    before = set(marks_of_loads())
    inrush.open(sharded[0]).load()
    assert set(marks_of_loads()) - before


def test_results_without_fio_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert results.fio_version() is None
