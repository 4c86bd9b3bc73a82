"""The time line of a load: for Perfetto and Chrome, and as a picture."""

from __future__ import annotations

import itertools
import json
import os

from inrush._errors import SourceError, UsageError
from inrush._text_file import check_folder, write_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from inrush._core import TraceEvent

# Colour-blind safe: one colour each in the picture, in the order of the legend.
_COLOURS = {
    "read": "#0072b2",
    "map": "#009e73",
    "copy": "#e69f00",
    "decode": "#cc79a7",
    "wait": "#c8ccd0",
}
_MOVES = ("read", "map")


def is_mapped(stats: Mapping[str, Any]) -> bool:
    """Whether most bytes were mapped: those move only when they are used, and have no rate."""
    return bool(stats["bytes_read"] * 2 < stats["bytes"])


def check_picture(path: str | os.PathLike[str]) -> None:
    """Raise UsageError or SourceError where no picture can be drawn under that name."""
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ImportError:
        raise UsageError("a plot needs matplotlib: pip install inrush[plot]") from None
    known = FigureCanvasBase.get_supported_filetypes()
    ending = os.path.splitext(path)[1].removeprefix(".").lower()
    if ending not in known:
        endings = ", ".join("." + one for one in sorted(known))
        raise UsageError(f"plot {os.fspath(path)}: its name must end in one of {endings}")
    check_folder(path)


class Track:
    """Events that do not overlap in time, under one label."""

    def __init__(self, lane: str) -> None:
        self.lane = lane
        self.events: list[TraceEvent] = []
        self.end = 0.0


def tracks_of(events: Sequence[TraceEvent]) -> list[Track]:
    """Tracks by lane: as many for each lane as it had events in flight at once."""
    lanes: dict[str, list[Track]] = {}
    for event in sorted(events, key=lambda event: event.start):
        tracks = lanes.setdefault(event.lane, [])
        track = next((track for track in tracks if track.end <= event.start), None)
        if track is None:
            track = Track(event.lane)
            tracks.append(track)
        track.events.append(event)
        track.end = event.end
    return [track for lane in sorted(lanes) for track in lanes[lane]]


class Trace:
    """What each lane did when.

    Attributes
    ----------
    events : list of TraceEvent
        With ``lane``, ``blob``, ``offset`` and ``size`` in bytes, ``start`` and ``end`` in
        seconds since the load began, and ``kind``: read, map, copy, decode or wait; of reads
        ``source`` (a place's number in ``stats["sources"]``), ``retries`` and ``hedges``.
    stats : dict
        As of `Job.stats`.
    """

    def __init__(self, events: Sequence[TraceEvent], stats: dict[str, Any]) -> None:
        self.events = list(events)
        self.stats = stats

    def to_json(self) -> dict[str, Any]:
        """The trace in the JSON format that Perfetto and chrome://tracing open."""
        entries: list[dict[str, Any]] = [
            {"ph": "M", "pid": 1, "name": "process_name", "args": {"name": "inrush load"}}
        ]
        for number, track in enumerate(tracks_of(self.events), 1):
            label = {"ph": "M", "pid": 1, "tid": number, "name": "thread_name"}
            entries.append({**label, "args": {"name": f"{track.lane} #{number}"}})
            entries += [_entry(event, number, self._place(event)) for event in track.events]
        entries += self._rates()
        return {"traceEvents": entries, "displayTimeUnit": "ms", "otherData": self.stats}

    def _place(self, event: TraceEvent) -> str:
        sources: list[dict[str, Any]] = self.stats["sources"]
        return str(sources[event.source]["uri"]) if event.source < len(sources) else ""

    def _rates(self) -> Iterator[dict[str, Any]]:
        """The rate of each place over time, as a counter."""
        for number, source in enumerate(self.stats["sources"]):
            moved = [e for e in self.events if e.kind == "read" and e.source == number and e.size]
            width, sizes = _windowed(moved)
            for i, size in enumerate(sizes):
                rate = {"GB/s": size / width / 1e9}
                name = f"from {source['uri']}"
                yield {"ph": "C", "pid": 1, "name": name, "ts": i * width * 1e6, "args": rate}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the trace for https://ui.perfetto.dev or chrome://tracing.

        Raises
        ------
        SourceError
            If it cannot be written.
        """
        write_text(path, json.dumps(self.to_json()))

    def plot(self, path: str | os.PathLike[str], limit: float | None = None) -> None:
        """Draw the trace.

        Parameters
        ----------
        path
            Of the picture; its ending says the format: .png, .svg, .pdf.
        limit : float, optional
            Measured limit in bytes per second, drawn as a line.

        Raises
        ------
        UsageError
            If matplotlib is not installed, or draws nothing of that ending.
        SourceError
            If the picture cannot be written.
        """
        check_picture(path)
        from matplotlib.figure import Figure

        tracks = tracks_of(self.events)
        rows = min(4.5, max(0.9, 0.12 * len(tracks)))
        figure = Figure(figsize=(11, rows + 3.4), dpi=130, layout="constrained")
        lanes, rate = figure.subplots(2, 1, sharex=True, height_ratios=[rows, 2.2])
        self._draw_lanes(lanes, tracks)
        self._draw_rate(rate, limit)
        rate.set_xlim(0, self._end * 1.01)
        try:
            figure.savefig(path)
        except OSError as error:
            raise SourceError(f"write {os.fspath(path)}: {error.strerror or error}") from None

    @property
    def _end(self) -> float:
        return max((event.end for event in self.events), default=0.0) or 1.0

    def _draw_lanes(self, axes: Any, tracks: list[Track]) -> None:
        rows: dict[str, list[tuple[int, TraceEvent]]] = {kind: [] for kind in _COLOURS}
        for row, track in enumerate(tracks):
            for event in track.events:
                rows.setdefault(event.kind, []).append((row, event))
        least = self._end / 200  # what took no time is to be seen too
        for kind, placed in rows.items():
            if not placed:
                continue
            colour = _COLOURS.get(kind, "#555555")
            axes.barh(
                [row for row, _ in placed],
                [max(event.end - event.start, least) for _, event in placed],
                left=[event.start for _, event in placed],
                height=1.0,
                color=colour,
                edgecolor="white",
                linewidth=0.4,
                label=kind,
            )
        bounds = _lane_bounds(tracks)
        axes.set_yticks(
            [(first + last) / 2 for first, last in bounds.values()], labels=list(bounds)
        )
        for first, _ in list(bounds.values())[1:]:
            axes.axhline(first - 0.5, color="#d0d4d8", linewidth=0.8)
        axes.set_ylim(len(tracks) - 0.4, -0.6)
        axes.figure.suptitle(self._title(), x=0.01, ha="left", fontsize=12, fontweight="bold")
        axes.set_title(_shortened(self.stats["why"]), loc="left", fontsize=9, color="#667078")
        if self.events:
            axes.legend(
                loc="lower right", bbox_to_anchor=(1, 1), ncols=5, frameon=False, fontsize=9
            )
        _clean(axes)

    def _draw_rate(self, axes: Any, limit: float | None) -> None:
        moved = [event for event in self.events if event.kind in _MOVES and event.size]
        if is_mapped(self.stats):
            self._draw_mapped(axes, moved)
            return
        width, sizes = _windowed(moved)
        times = [(i + 0.5) * width for i in range(len(sizes))]
        rates = [size / width / 1e9 for size in sizes]
        totals = list(itertools.accumulate(sizes))
        so_far = [total / (i + 1) / width / 1e9 for i, total in enumerate(totals)]
        axes.fill_between(times, rates, step="mid", color="#0072b2", alpha=0.25, linewidth=0)
        axes.step(times, rates, where="mid", color="#0072b2", linewidth=1.0, label="momentary")
        axes.plot(times, so_far, color="#222222", linewidth=1.8, label="so far")
        if limit:
            label = f"limit, {limit / 1e9:.2f} GB/s"
            axes.axhline(limit / 1e9, color="#d55e00", linewidth=1.4, linestyle="--", label=label)
        _finish_curves(axes, "GB/s")

    def _draw_mapped(self, axes: Any, moved: list[TraceEvent]) -> None:
        moved = sorted(moved, key=lambda event: event.end)
        totals = list(itertools.accumulate(event.size / 1e9 for event in moved))
        times = [0.0, *(event.end for event in moved), self._end * 1.01]
        placed = [0.0, *totals, totals[-1] if totals else 0.0]
        axes.fill_between(times, placed, step="post", color="#009e73", alpha=0.25, linewidth=0)
        axes.step(times, placed, where="post", color="#009e73", linewidth=1.8, label="in place")
        _finish_curves(axes, "GB")

    def _title(self) -> str:
        stats = self.stats
        told = f"{stats['choice']}: {stats['bytes'] / 1e9:.2f} GB"
        if is_mapped(self.stats):
            return f"{told} mapped in {stats['seconds'] * 1e3:.2f} ms"
        return f"{told} in {stats['seconds']:.2f} s, {stats['gb_per_s']:.2f} GB/s"


def _entry(event: TraceEvent, track: int, place: str) -> dict[str, Any]:
    name = f"{event.kind} {os.path.basename(event.blob)}" if event.blob else event.kind
    return {
        "ph": "X",
        "pid": 1,
        "tid": track,
        "name": name,
        "cat": event.kind,
        "ts": event.start * 1e6,
        "dur": (event.end - event.start) * 1e6,
        "args": {
            "file": event.blob,
            "offset": event.offset,
            "size": event.size,
            "source": place,
            "retries": event.retries,
            "hedges": event.hedges,
        },
    }


def _lane_bounds(tracks: list[Track]) -> dict[str, tuple[int, int]]:
    bounds: dict[str, tuple[int, int]] = {}
    for row, track in enumerate(tracks):
        first, _ = bounds.get(track.lane, (row, row))
        bounds[track.lane] = (first, row)
    return bounds


def _windowed(moved: list[TraceEvent]) -> tuple[float, list[float]]:
    """Seconds of a window, and the bytes that moved in each: an event's, spread over its time."""
    end = max((event.end for event in moved), default=1.0) or 1.0
    # At most 100 windows, so that a window holds several reads and the curve can be read.
    count = max(1, min(100, len(moved)))
    width = end / count
    sizes = [0.0] * count
    for event in moved:
        first = min(count - 1, int(event.start / width))
        last = min(count - 1, int(event.end / width))
        length = event.end - event.start
        for window in range(first, last + 1):
            begin = max(event.start, window * width)
            overlap = min(event.end, (window + 1) * width) - begin
            share = overlap / length if length > 0 else 1 / (last - first + 1)
            sizes[window] += event.size * max(0.0, share)
    return width, sizes


def _shortened(text: str, most: int = 140) -> str:
    return text if len(text) <= most else text[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _finish_curves(axes: Any, unit: str) -> None:
    axes.set_ylabel(unit)
    axes.set_xlabel("seconds since the load began")
    axes.set_ylim(bottom=0)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, frameon=False, fontsize=9)
    _clean(axes)


def _clean(axes: Any) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(axis="x", color="#eceff1", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9)
