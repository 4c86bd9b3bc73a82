"""tools/gpu_check.py goes on after a check that fails, dies or hangs."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def tool() -> Any:
    import gpu_check

    return gpu_check


def test_what_became_of_a_check_is_said(tool: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong() -> None:
        raise AssertionError("s0.t1 differs")

    assert tool.in_child(lambda: None) == ""
    assert tool.in_child(wrong) == "AssertionError: s0.t1 differs"
    assert tool.in_child(lambda: os.kill(os.getpid(), signal.SIGKILL)) == "died of signal 9"
    monkeypatch.setattr(tool, "LIMIT_S", 0.2)
    assert tool.in_child(lambda: time.sleep(60)) == "took more than 0.2 s"


def test_a_failure_is_the_exit_code_and_does_not_end_the_rest(
    tool: Any, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    def wrong(folder: Path, wanted: Any) -> None:
        raise AssertionError("not the bytes")

    def right(folder: Path, wanted: Any) -> None:
        assert folder.is_dir()

    monkeypatch.setattr(tool, "usable", lambda: None)
    monkeypatch.setattr(tool, "write", lambda folder: {})
    monkeypatch.setattr(tool.torch, "set_num_threads", lambda count: None)
    monkeypatch.setattr(tool, "CHECKS", (wrong, right))
    assert tool.main() == 1
    said = capfd.readouterr().out
    assert "wrong: FAILED: AssertionError: not the bytes" in said
    assert "right: ok" in said
    assert "1 of 2 checks passed" in said
