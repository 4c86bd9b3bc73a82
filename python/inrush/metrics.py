"""What the loads of this process have done, for monitoring: Prometheus and OpenTelemetry.

Nothing is counted unless `enable` was called; nothing is sent from here. No name holds a
credential: places are called as errors call them.

>>> import inrush.metrics
>>> inrush.metrics.enable()
>>> print(inrush.metrics.exposition())  # for a handler of /metrics
"""

from __future__ import annotations

import collections
import threading

from inrush import _job

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

# Name, type, help; those of places have the label `source`, which is the place's URI.
_METRICS = (
    ("inrush_loads_total", "counter", "Loads that ended, by outcome."),
    ("inrush_load_seconds_total", "counter", "Seconds from the beginning to the last byte."),
    ("inrush_load_bytes_total", "counter", "Bytes delivered."),
    ("inrush_load_tensors_total", "counter", "Tensors delivered."),
    ("inrush_load_consumer_wait_seconds_total", "counter", "Seconds callers waited for bytes."),
    ("inrush_load_fallbacks_total", "counter", "Lanes replaced and places left out."),
    ("inrush_load_peak_staging_bytes", "gauge", "Most bytes under the budget in the last load."),
    ("inrush_load_bytes_per_second", "gauge", "Rate of the last load."),
    ("inrush_source_bytes_total", "counter", "Bytes that came from a place."),
    ("inrush_source_reads_total", "counter", "Reads that a place answered."),
    ("inrush_source_retries_total", "counter", "Requests to a place that were repeated."),
    ("inrush_source_hedges_total", "counter", "Second requests, beside silent ones."),
    ("inrush_source_bytes_per_second", "gauge", "Rate of a place in its last load."),
)  # fmt: skip

Labels = tuple[tuple[str, str], ...]

_lock = threading.Lock()
_ended: collections.deque[tuple[dict[str, Any], str]] = collections.deque()
_values: dict[tuple[str, Labels], float] = {}
_instruments: list[Any] = []


def enable() -> None:
    """Count every load that ends from now on in this process."""
    _job.observers.add(_observe)


def disable() -> None:
    """Count no more. What was counted stays."""
    _job.observers.discard(_observe)


def reset() -> None:
    """Forget what was counted."""
    with _lock:
        _ended.clear()
        _values.clear()


def _add(name: str, value: float, *labels: tuple[str, str]) -> None:
    _values[name, labels] = _values.get((name, labels), 0.0) + value


def _set(name: str, value: float, *labels: tuple[str, str]) -> None:
    _values[name, labels] = value


def _observe(stats: dict[str, Any], outcome: str) -> None:
    _ended.append((stats, outcome))
    # Who has the lock may be this very thread, in which a collection of garbage ends a load: then
    # it is counted with the next, or when somebody looks.
    if _lock.acquire(blocking=False):
        try:
            _count_all()
        finally:
            _lock.release()


def _count_all() -> None:
    """Count what has ended; with the lock held."""
    while _ended:
        _count(*_ended.popleft())


def _count(stats: dict[str, Any], outcome: str) -> None:
    _add("inrush_loads_total", 1, ("outcome", outcome))
    _add("inrush_load_seconds_total", stats["seconds"])
    _add("inrush_load_bytes_total", stats["bytes"])
    _add("inrush_load_tensors_total", stats["tensors"])
    _add("inrush_load_consumer_wait_seconds_total", stats["consumer_wait"])
    _add("inrush_load_fallbacks_total", len(stats["fallbacks"]))
    _set("inrush_load_peak_staging_bytes", stats["peak_staging"])
    _set("inrush_load_bytes_per_second", stats["gb_per_s"] * 1e9)
    for source in stats["sources"]:
        label = ("source", source["uri"])
        for what in ("bytes", "reads", "retries", "hedges"):
            _add(f"inrush_source_{what}_total", source[what], label)
        _set("inrush_source_bytes_per_second", source["gb_per_s"] * 1e9, label)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _series(name: str) -> list[tuple[Labels, float]]:
    with _lock:
        _count_all()
        return sorted((labels, value) for (one, labels), value in _values.items() if one == name)


def exposition() -> str:
    """What was counted, in Prometheus' text format 0.0.4.

    Returns
    -------
    str
        To be served as ``text/plain; version=0.0.4``.
    """
    lines = []
    for name, kind, meaning in _METRICS:
        lines += [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}"]
        for labels, value in _series(name):
            inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels)
            number = int(value) if value == int(value) else value
            lines.append(f"{name}{{{inside}}} {number}" if inside else f"{name} {number}")
    return "\n".join(lines) + "\n"


def export_to_opentelemetry(meter: Any = None) -> None:
    """Make instruments that give OpenTelemetry what was counted whenever it collects; enables too.

    Parameters
    ----------
    meter : opentelemetry.metrics.Meter, optional
        None takes the one called ``inrush`` of the global provider.

    Raises
    ------
    ImportError
        If opentelemetry-api is not installed.
    """
    from opentelemetry import metrics

    meter = meter or metrics.get_meter("inrush")
    enable()
    for name, kind, meaning in _METRICS:

        def read(_: Any, name: str = name) -> Iterable[Any]:
            for labels, value in _series(name):
                yield metrics.Observation(value, dict(labels))

        dotted = name.replace("_", ".").removesuffix(".total")
        if kind == "counter":
            made = meter.create_observable_counter(dotted, [read], description=meaning)
        else:
            made = meter.create_observable_gauge(dotted, [read], description=meaning)
        _instruments.append(made)
