"""inrush bench: every backend and every installed peer on this very checkpoint."""

from __future__ import annotations

import importlib.util
import json as json_format
import statistics
import subprocess
import sys
from typing import Annotated, Any

import typer
from rich.table import Table

from inrush import _core
from inrush._checkpoint import is_on_hub, open_source
from inrush._errors import UsageError
from inrush._options import child_environment
from inrush._storage import without_secrets
from inrush.cli import _pages
from inrush.cli._common import (
    Json,
    KeyCommand,
    KeyFile,
    PassphraseFile,
    Sources,
    console,
    encryption_words,
    one_or_several,
    print_json,
    shown,
    size_text,
)
from inrush.cli._contender import PEERS
from inrush.cli._explain import limit_table
from inrush.cli._fetching import fetch_from_hub
from inrush.cli._limit import measure_limit

_BAR = 24

# Times the limit of copying warm pages above which a loader cannot have copied them.
_NO_COPY = 1.5
_LONGEST_RUN = 600  # seconds of one contender


class Result:
    """The runs of one contender in one state of the page cache."""

    def __init__(self, contender: str, state: str) -> None:
        self.contender = contender
        self.state = state
        self.seconds: list[float] = []
        self.bytes = 0
        self.note = ""

    @property
    def rate(self) -> float | None:
        """Median bytes per second; None where no run counts."""
        return self.bytes / statistics.median(self.seconds) if self.seconds else None

    def values(self, limit: float | None) -> dict[str, Any]:
        """As JSON."""
        rate = self.rate
        return {
            "contender": self.contender,
            "state": self.state,
            "seconds": self.seconds,
            "bytes": self.bytes,
            "rate": rate,
            "ratio_to_limit": rate / limit if rate and limit else None,
            "note": self.note,
        }


def bench(
    sources: Sources,
    *,
    runs: Annotated[int, typer.Option(min=1, help="Runs of each, in fresh processes.")] = 3,
    key_file: KeyFile = None,
    passphrase_file: PassphraseFile = None,
    key_command: KeyCommand = None,
    json: Json = False,
) -> None:
    """Measure each backend and each installed peer on this checkpoint, cold and warm."""
    key = encryption_words(key_file, passphrase_file, key_command)
    # Where the key is, not the key.
    environment = {"INRUSH_PROFILE": "off"}
    if key:
        environment["INRUSH_KEY_FILE"] = key["encryption"]
    checkpoint = open_source(_files_here(sources, key))
    files = [name for name, _ in checkpoint.files]
    contenders, absent = _contenders(checkpoint)
    limits = {state: measure_limit(checkpoint, state) for state in ("cold", "warm")}
    rates = {state: limit["bytes_per_second"] for state, limit in limits.items()}
    results = []
    status = console(error=True)
    for state in ("cold", "warm"):
        for contender in contenders:
            with status.status(f"{state} {contender}"):
                results.append(_measure(checkpoint, contender, state, runs, environment))
    if json:
        values = {"uri": checkpoint.uri, "limits": limits, "absent": absent}
        print_json(
            "bench", {**values, "results": [one.values(rates[one.state]) for one in results]}
        )
        return
    out = console()
    out.print(
        f"[bold]{size_text(checkpoint.nbytes)}[/] [dim]in {len(files)} files, load and touch, "
        f"median of {runs} fresh processes[/]"
    )
    for state in ("cold", "warm"):
        out.print()
        out.print(limit_table(limits[state]))
        out.print(_table(state, [one for one in results if one.state == state], rates[state]))
    for name, reason in absent.items():
        out.print(f"[dim]{name}: {shown(reason)}[/]")


def _files_here(sources: list[str], key: dict[str, Any] | None = None) -> str | list[str]:
    """The sources on this machine: of the Hub, what huggingface_hub's cache has of it by then."""
    if len(sources) == 1 and is_on_hub(sources[0]):
        return fetch_from_hub(sources[0], key)[1]
    for source in sources:
        if "://" in source and not source.lower().startswith("file://"):
            place = without_secrets(source)
            raise UsageError(
                f"bench {place}: it measures files of this machine, or one model of the Hub"
            )
    return one_or_several(sources)


def _contenders(checkpoint: _core.Checkpoint) -> tuple[list[str], dict[str, str]]:
    names = ["inrush"]
    absent = {}
    for name, reason in _core.backends(_core.Facts.gather(checkpoint)):
        if reason:
            absent[f"inrush:{name}"] = reason
        else:
            names.append(f"inrush:{name}")
    for peer in PEERS:
        missing = [name for name in (peer, "torch") if importlib.util.find_spec(name) is None]
        if missing:
            absent[peer] = "not installed" if missing[0] == peer else "torch is not installed"
        else:
            names.append(peer)
    return names, absent


def _measure(
    checkpoint: _core.Checkpoint,
    contender: str,
    state: str,
    runs: int,
    environment: dict[str, str],
) -> Result:
    files = [name for name, _ in checkpoint.files]
    result = Result(contender, state)
    for _ in range(runs):
        _pages.drop(files)
        if state == "warm":
            _pages.fill(files)
        found = _pages.state(checkpoint)
        if found != state:
            result.note = f"the pages are {found}, not {state}"
            break
        command = [sys.executable, "-m", "inrush.cli._contender", contender, *files]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=_LONGEST_RUN,
                env=child_environment(**environment),
                check=False,
            )
        except subprocess.TimeoutExpired:
            result.note = f"not done after {_LONGEST_RUN} s"
            break
        if done.returncode != 0:
            result.note = (done.stderr.strip().splitlines() or ["failed without a word"])[-1]
            break
        answer = json_format.loads(done.stdout.strip().splitlines()[-1])
        result.seconds.append(answer["seconds"])
        result.bytes = answer["bytes"]
    return result


def _table(state: str, results: list[Result], limit: float | None) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column(state, no_wrap=True)
    table.add_column("GB/s", justify="right")
    table.add_column("of limit" if limit else "", justify="right")
    table.add_column("", no_wrap=True)
    table.add_column("", overflow="fold")
    fastest = max((one.rate or 0.0 for one in results), default=0.0)
    for one in sorted(results, key=lambda one: -(one.rate or 0.0)):
        rate = one.rate
        share = f"{rate / limit:.0%}" if rate and limit else ""
        if rate and limit and state == "warm" and rate > _NO_COPY * limit:
            share = "no copy"
        colour = "green" if one.contender.startswith("inrush") else "blue"
        length = round(_BAR * rate / fastest) if rate else 0
        weight = "bold" if one.contender == "inrush" else "not bold"
        table.add_row(
            f"[{weight}]{one.contender}[/]",
            f"{rate / 1e9:.2f}" if rate else "-",
            share,
            f"[{colour}]{'█' * length}[/]",
            f"[dim]{shown(one.note)}[/]",
        )
    return table
