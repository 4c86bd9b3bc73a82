"""inrush doctor: what this machine and this place allow, and what to change."""

from __future__ import annotations

import json as json_format
import os
from typing import Annotated, Any

import typer
from rich.table import Table

from inrush import _core
from inrush._checkpoint import open_source
from inrush.cli._common import (
    Json,
    console,
    facts_table,
    one_or_several,
    plain_table,
    print_json,
    shown,
    size_text,
)
from inrush.cli._explain import limit_table, machine_rows, place_rows, wanted_rows
from inrush.cli._limit import measure_limit


def doctor(
    sources: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SOURCE]", help="A checkpoint, to look at its place too."),
    ] = None,
    *,
    json: Json = False,
) -> None:
    """Show what this machine allows, the measured limit, and what to change."""
    report = _examine(one_or_several(sources) if sources else None)
    if json:
        print_json("doctor", report)
        return
    out = console()
    machine = report["machine"]
    rows = machine_rows(machine)
    rows.append(("memlock", _memlock_text(machine["memlock_limit"])))
    network = report["network"]
    rows.append(("network", shown(network["problem"] or network["library"])))
    rows.append(("TLS roots", shown(network["tls_roots"]) or "none found: certifi's, if installed"))
    if report["facts"]:
        rows += [*place_rows(report["facts"]), *wanted_rows(report["facts"])]
    out.print(facts_table(rows))
    for limit in report["limits"]:
        out.print(limit_table(limit))
    out.print()
    table = plain_table("backend", "usable", "")
    for backend in report["backends"]:
        usable = "[green]yes[/]" if not backend["reason"] else "[red]no[/]"
        table.add_row(
            backend["name"], usable, f"[dim]{shown(backend['reason'] or backend['summary'])}[/]"
        )
    out.print(table)
    out.print()
    out.print(_drivers_table(report["drivers"]))
    out.print()
    if report["fallbacks"]:
        table = plain_table("not to be had here", "instead", "why")
        for fallback in report["fallbacks"]:
            what, why, instead = (shown(fallback[key]) for key in ("what", "why", "instead"))
            table.add_row(what, instead, f"[dim]{why}[/]")
        out.print(table)
        out.print()
    for advice in report["advice"]:
        out.print(f"[yellow]change[/] {shown(advice)}", soft_wrap=True)
    if not report["advice"]:
        out.print("[green]nothing to change[/]")


def _drivers_table(drivers: list[dict[str, Any]]) -> Table:
    table = plain_table("driver", "version", "")
    for driver in drivers:
        table.add_row(
            driver["vendor"],
            driver["version"] or "[red]no[/]",
            f"[dim]{shown(driver['reason'] or driver['library'])}[/]",
        )
        for index, device in enumerate(driver["devices"]):
            place = f"{device['bus']}, {shown(device['numa']) or 'no NUMA node is known'}"
            table.add_row(
                f"{driver['vendor']}:{index}", "", f"{shown(device['name'])} [dim]{place}[/]"
            )
    return table


def _drivers() -> list[dict[str, Any]]:
    words = ("name", "bus", "numa_node", "numa", "integrated")
    return [
        {
            "vendor": driver.vendor,
            "version": driver.version,
            "library": driver.library,
            "reason": driver.reason,
            "devices": [{word: getattr(one, word) for word in words} for one in driver.devices],
        }
        for driver in _core.drivers()
    ]


def _examine(source: str | list[str] | None) -> dict[str, Any]:
    machine = json_format.loads(_core.machine_json())
    facts = None
    limits: list[dict[str, Any]] = []
    values: dict[str, Any] | None = None
    checkpoint = None
    if source is not None:
        checkpoint = open_source(source)
        facts = _core.Facts.gather(checkpoint)
        values = json_format.loads(facts.to_json())
        limits = [measure_limit(checkpoint, state) for state in ("cold", "warm")]
    summaries = {name: summary for name, summary, _ in _core.engines()}
    unusable = {name: reason for name, _, reason in _core.engines()}
    drivers = _drivers()
    # Whether the tensors go to one device is a load's affair, not the machine's.
    needed = [one["reason"] for one in drivers if one["vendor"] in ("cuda", "cufile")]
    backends = []
    for name, reason in _core.backends(facts):
        engine = name.lower().removesuffix("_buffered").removesuffix("_compatible")
        why = reason or unusable.get(engine, "not in this build")
        if engine == "cufile":
            why = next((problem for problem in needed if problem), "")
        backends.append({"name": name, "reason": why, "summary": summaries.get(engine, "")})
    return {
        "source": None if checkpoint is None else checkpoint.uri,
        "machine": machine,
        "network": _network(),
        "facts": values,
        "limits": limits,
        "backends": backends,
        "drivers": drivers,
        "fallbacks": [
            {"what": what, "why": why, "instead": instead}
            for what, why, instead in _core.fallbacks(facts, checkpoint)
        ],
        "advice": [f"{what}: {why}" for what, why in _core.advice(facts)],
    }


def _network() -> dict[str, str]:
    library, problem = _core.describe_curl()
    return {"library": library, "problem": problem, "tls_roots": _core.find_tls_roots()}


def _memlock_text(limit: int) -> str:
    return (
        "unlimited" if limit == 0 or limit > os.sysconf("SC_PAGE_SIZE") << 50 else size_text(limit)
    )
