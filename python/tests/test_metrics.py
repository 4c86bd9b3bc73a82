"""What is counted of loads, and how it is told."""

from __future__ import annotations

import gc
import re
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import inrush.metrics
import pytest
from conftest import random_tensor, write_file
from inrush._job import Job

import inrush

_LINE = re.compile(r'[a-z_]+(\{[a-z_]+="(\\.|[^"\\])*"(,[a-z_]+="(\\.|[^"\\])*")*\})? [-+0-9.e]+')


@pytest.fixture
def counting() -> Iterator[None]:
    inrush.metrics.reset()
    inrush.metrics.enable()
    yield
    inrush.metrics.disable()
    inrush.metrics.reset()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    contents = {f"t{i}": random_tensor("F32", [100, 100]) for i in range(3)}
    return write_file(tmp_path / 'a "b".safetensors', contents)


def values(text: str) -> dict[str, float]:
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert all(_LINE.fullmatch(line) for line in lines), text
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


def test_loads_are_counted_by_outcome(counting: None, model: Path) -> None:
    inrush.open(model).load()
    with inrush.open(model).start() as job:
        job.wait()
    # Nobody takes its tensors, and the budget does not hold them: it cannot complete.
    tensors = {f"t{i}": random_tensor("U8", [9 << 20]) for i in range(3)}
    large = write_file(model.with_name("large"), tensors)
    with inrush.open(large, budget="4MiB", mapping="never") as checkpoint:
        job = Job(checkpoint._opened(), checkpoint._options, collect=False)
    job.cancel()
    assert job.done()
    counted = values(inrush.metrics.exposition())
    assert counted['inrush_loads_total{outcome="complete"}'] == 2
    assert counted['inrush_loads_total{outcome="cancelled"}'] == 1
    assert counted["inrush_load_tensors_total"] >= 6
    assert any(key.startswith("inrush_source_bytes_total{") for key in counted)


def test_a_load_that_is_dropped_is_counted_once(counting: None, model: Path) -> None:
    job = inrush.open(model).start()
    while not job.done():
        time.sleep(0.001)
    assert "inrush_loads_total" not in "".join(values(inrush.metrics.exposition()))
    del job
    gc.collect()
    assert values(inrush.metrics.exposition())['inrush_loads_total{outcome="complete"}'] == 1
    for job in (inrush.open(model).start(), inrush.open(model).start()):
        job.wait()
        dict(job)
    del job
    gc.collect()
    assert values(inrush.metrics.exposition())['inrush_loads_total{outcome="complete"}'] == 3
    tensors = {f"t{i}": random_tensor("U8", [9 << 20]) for i in range(3)}
    large = write_file(model.with_name("large"), tensors)
    checkpoint = inrush.open(large, budget="4MiB", mapping="never")
    # Nobody takes its tensors, and the budget does not hold them: it cannot complete.
    dropped = Job(checkpoint._opened(), checkpoint._options, collect=False)
    with inrush.metrics._lock:  # as where a collection of garbage comes in the middle
        del dropped
        gc.collect()
    counted = values(inrush.metrics.exposition())
    assert counted['inrush_loads_total{outcome="cancelled"}'] == 1
    with inrush.open(model, mapping="never") as checkpoint:
        model.write_bytes(model.read_bytes()[:1000])
        job = checkpoint.start()
    with pytest.raises(inrush.Error):  # the engine's, which nobody is told of
        job._load.wait()
    del job
    gc.collect()
    counted = values(inrush.metrics.exposition())
    assert counted['inrush_loads_total{outcome="failed"}'] == 1
    assert sum(n for key, n in counted.items() if key.startswith("inrush_loads_total")) == 5


def test_a_failed_load_is_counted(counting: None, model: Path) -> None:
    with inrush.open(model, mapping="never") as checkpoint:
        model.write_bytes(model.read_bytes()[:1000])
        with pytest.raises(inrush.Error):
            checkpoint.load()
    assert values(inrush.metrics.exposition())['inrush_loads_total{outcome="failed"}'] == 1


def test_nothing_is_counted_unless_asked_for(model: Path) -> None:
    inrush.metrics.reset()
    inrush.open(model).load()
    assert values(inrush.metrics.exposition()) == {}


def test_every_metric_has_a_type_and_a_help(counting: None) -> None:
    text = inrush.metrics.exposition()
    assert text.count("# HELP ") == text.count("# TYPE ") > 10
    assert text.endswith("\n")


def test_opentelemetry_reads_what_was_counted(
    counting: None, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Observation:
        def __init__(self, value: float, attributes: dict[str, str]) -> None:
            self.value, self.attributes = value, attributes

    made: dict[str, Any] = {}

    class Meter:
        def create_observable_counter(self, name: str, callbacks: list[Any], **_: str) -> None:
            made[name] = callbacks[0]

        create_observable_gauge = create_observable_counter

    api = types.ModuleType("opentelemetry")
    api.metrics = types.SimpleNamespace(Observation=Observation)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "opentelemetry", api)
    inrush.metrics.export_to_opentelemetry(Meter())
    inrush.open(model).load()
    (loads,) = made["inrush.loads"](None)
    assert (loads.value, loads.attributes) == (1, {"outcome": "complete"})
