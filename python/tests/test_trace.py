"""Time lines: for Perfetto, and as pictures."""

import itertools
import json

import pytest
from conftest import random_tensor, write_file
from inrush._trace import Trace, tracks_of

import inrush


class Event:
    def __init__(self, lane, start, end, kind="read"):
        self.lane, self.start, self.end, self.kind = lane, start, end, kind
        self.blob, self.offset, self.size = "/m/x.safetensors", 0, 1 << 20
        self.source = self.retries = self.hedges = 0


@pytest.fixture
def trace(sharded):
    with inrush.open(sharded[0], mapping="never", trace=True).start() as job:
        job.wait()
        return job.trace()


def test_every_byte_read_is_in_the_trace(trace, sharded):
    reads = [event for event in trace.events if event.kind == "read"]
    assert sum(event.size for event in reads) >= trace.stats["bytes_read"]
    for event in reads:
        assert 0 <= event.start <= event.end <= trace.stats["seconds"] + 1
        assert event.blob.startswith(str(sharded[0]))


def test_without_trace_there_are_no_events(sharded):
    job = inrush.open(sharded[0]).start()
    job.wait()
    assert job.trace().events == []


def test_tracks_hold_events_that_do_not_overlap():
    events = [Event("a", 0, 2), Event("a", 1, 3), Event("b", 0, 1), Event("a", 2, 4)]
    tracks = tracks_of(events)
    assert [(track.lane, len(track.events)) for track in tracks] == [("a", 2), ("a", 1), ("b", 1)]
    for track in tracks:
        for one, two in itertools.pairwise(track.events):
            assert one.end <= two.start


def test_the_file_is_what_perfetto_opens(trace, tmp_path):
    path = tmp_path / "trace.json"
    trace.save(path)
    document = json.loads(path.read_text())
    spans = [entry for entry in document["traceEvents"] if entry["ph"] == "X"]
    names = [entry for entry in document["traceEvents"] if entry["ph"] == "M"]
    assert len(spans) == len(trace.events)
    assert {entry["tid"] for entry in spans} == {entry["tid"] for entry in names if "tid" in entry}
    assert all(entry["dur"] >= 0 and entry["ts"] >= 0 for entry in spans)
    by_track: dict[int, list] = {}
    for entry in sorted(spans, key=lambda entry: entry["ts"]):
        by_track.setdefault(entry["tid"], []).append(entry)
    for entries in by_track.values():
        for one, two in itertools.pairwise(entries):
            assert one["ts"] + one["dur"] <= two["ts"] + 1e-3


@pytest.mark.parametrize("limit", [None, 2e9])
def test_the_picture_is_drawn(trace, tmp_path, limit):
    pytest.importorskip("matplotlib")
    for ending in ("png", "svg"):
        path = tmp_path / f"plot.{ending}"
        trace.plot(path, limit)
        assert path.stat().st_size > 10_000
    text = (tmp_path / "plot.svg").read_text()
    assert ("limit, 2.00 GB/s" in text) == (limit is not None)


def test_a_mapped_load_has_bars_and_no_rate(tmp_path):
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    path = write_file(tmp_path / "x.safetensors", {"x": random_tensor("F32", [4 << 20])})
    path.read_bytes()
    job = inrush.open(path, trace=True).start()
    job.wait()
    trace = job.trace()
    assert trace.stats["bytes_mapped"] > 0
    events = [Event("mmap", 1e-7, 1e-7, "map"), Event("mmap", 5e-6, 5.1e-6, "map")]
    for one in (trace, Trace(events, trace.stats)):
        one.plot(tmp_path / "x.svg", 1e9)
        text = (tmp_path / "x.svg").read_text()
        assert "mapped in" in text
        assert "GB/s" not in text
        assert "limit" not in text
        lanes, _ = Figure().subplots(2, 1)
        one._draw_lanes(lanes, tracks_of(one.events))
        shown = [bar for bar in lanes.patches if bar.get_width() > 0]
        assert len(shown) == len(one.events)
        assert all(bar.get_width() >= 0.999 * one._end / 200 for bar in shown)


@pytest.mark.parametrize("name", ["x", "x.xyz", "x.png.gz"])
def test_an_ending_that_says_no_picture_is_refused(trace, tmp_path, name):
    pytest.importorskip("matplotlib")
    with pytest.raises(inrush.UsageError, match=r"must end in one of .*\.png"):
        trace.plot(tmp_path / name)
    with pytest.raises(inrush.SourceError, match="there is no folder"):
        trace.plot(tmp_path / "none" / "x.png")
    assert not list(tmp_path.glob("x*"))


def test_an_empty_load_can_be_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    path = write_file(tmp_path / "x.safetensors", {"x": random_tensor("F32", [0])})
    job = inrush.open(path, trace=True).start()
    job.wait()
    job.trace().plot(tmp_path / "x.png", 1e9)
    Trace([], job.stats()).save(tmp_path / "x.json")


def test_all_kinds_have_a_colour(trace, tmp_path):
    pytest.importorskip("matplotlib")
    kinds = ("read", "map", "copy", "decode", "wait")
    events = [Event("lane", i, i + 1, kind) for i, kind in enumerate(kinds)]
    Trace(events, trace.stats).plot(tmp_path / "kinds.svg")
    text = (tmp_path / "kinds.svg").read_text()
    assert all(f"<!-- {kind} -->" in text for kind in kinds)
