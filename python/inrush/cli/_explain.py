"""Facts, choice and stats of a load as tables."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from inrush.cli._common import facts_table, plain_table, rate_text, shown, size_text, time_text


def explain_tables(explained: dict[str, Any], stats: dict[str, Any]) -> list[Table]:
    """What was found, what was chosen and why, what the load did."""
    facts = explained["facts"]
    tables = [
        facts_table(
            [
                *machine_rows(facts["machine"]),
                *numa_rows(facts),
                *place_rows(facts),
                *wanted_rows(facts),
            ]
        ),
        facts_table(choice_rows(explained["choice"])),
        _lanes_table(explained["choice"]),
        facts_table(stats_rows(stats)),
    ]
    return [table for table in tables if table.row_count]


def machine_rows(machine: dict[str, Any]) -> list[tuple[str, str]]:
    """What this machine is and grants."""
    memory = f"{size_text(machine['memory_available'])} available"
    if machine["memory_limit"]:
        memory += f", cgroup limit {size_text(machine['memory_limit'])}"
    return [
        ("machine", f"Linux {machine['kernel']}, {machine['cpus']} CPUs"),
        ("memory", f"{memory}, huge pages: {machine['huge_pages'] or 'unknown'}"),
    ]


def numa_rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """What a load to devices uses of the node they are on."""
    return [("near it", shown(facts["numa"]["text"]))] if facts["numa"] else []


def place_rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Where the files lie and what that place can do."""
    place = facts["filesystem"]
    if not place["type"]:
        return []
    abilities = []
    if place["memory"]:
        abilities.append("in memory")
    if place["direct"]:
        abilities.append(f"direct I/O aligned to {place['direct_offset_align']} B")
    else:
        abilities.append("no direct I/O")
    abilities.append("may be mapped" if place["may_map"] else "not mapped")
    if place["sequential"]:
        abilities.append("wants few long streams")
    if place["read_ahead_kib"]:
        abilities.append(f"read-ahead {size_text(place['read_ahead_kib'] * 1024)}")
    return [("filesystem", f"{place['type']}: {', '.join(abilities)}")]


def wanted_rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """How much is wanted, and how much of it is in the page cache."""
    wanted = facts["wanted_bytes"]
    rows = [
        (
            "wanted",
            f"{size_text(wanted)}: {facts['targets']} tensors in {facts['blobs']} files",
        )
    ]
    parts = [
        f"{size_text(facts[key])} {word} ({facts[key] / wanted:.0%})"
        for key, word in (
            ("warm_bytes", "warm"),
            ("mixed_bytes", "mixed"),
            ("speckled_bytes", "speckled"),
            ("unknown_bytes", "unknown"),
        )
        if wanted and facts[key]
    ]
    probes = ", ".join(name for name in facts.get("residency_probes", {}) if name != "none")
    asked = f"  [dim]asked {probes}[/]" if probes else ""
    rows.append(("page cache", (", ".join(parts) or "cold") + asked))
    if facts["others_loading"]:
        rows.append(("neighbours", f"{facts['others_loading']} processes load these files now"))
    elif facts["loaded_recently"]:
        rows.append(("neighbours", "a process loaded these files within the last hour"))
    return rows


def choice_rows(choice: dict[str, Any]) -> list[tuple[str, str]]:
    """What was chosen, why, and why not something else."""
    rows = [("choice", f"[bold]{shown(choice['name'])}[/]"), ("because", shown(choice["why"]))]
    rows += [("rejected", f"{one['name']}: {shown(one['reason'])}") for one in choice["rejected"]]
    return rows


def _lanes_table(choice: dict[str, Any]) -> Table:
    table = plain_table("lanes", "covering", "reads of", "in flight", right=("reads of",))
    for lane in choice["lanes"]:
        name = f"{lane['count']} x {lane['engine']}{' direct' if lane['direct'] else ''}"
        if lane["sequential"]:
            name += ", one stream each"
        growth = f" to {lane['most_depth']}" if lane["most_depth"] > lane["depth"] else ""
        depth = f"{lane['depth']}{growth}"
        table.add_row(name, lane["coverage"], size_text(lane["block_size"]), depth)
    return table


def source_text(source: dict[str, Any]) -> str:
    """What one place of several has given."""
    gone = ", given up" if source["given_up"] else ""
    return (
        f"{size_text(source['bytes'])}, {rate_text(source['gb_per_s'] * 1e9)}, "
        f"{source['retries']} retries, {source['hedges']} hedges{gone}"
    )


def stats_rows(stats: dict[str, Any]) -> list[tuple[str, str]]:
    """What the load did."""
    moved = [
        f"{size_text(stats[key])} {word}"
        for key, word in (
            ("bytes_read", "read"),
            ("bytes_mapped", "mapped"),
            ("bytes_copied", "copied once more"),
        )
        if stats[key]
    ]
    waits = f"{time_text(stats['seconds_to_first'])} to the first tensor"
    if stats["budget_wait"]:
        waits += f", lanes waited {time_text(stats['budget_wait'])} for budget"
    rows = [
        ("bytes", ", ".join(moved) or "none"),
        ("reads", f"{stats['reads']}, {stats['retries']} retries, {stats['hedges']} hedges"),
        ("staging", f"{size_text(stats['peak_staging'])} at most of {size_text(stats['budget'])}"),
        ("waits", waits),
    ]
    if len(stats["sources"]) > 1:
        rows += [("from " + shown(one["uri"]), source_text(one)) for one in stats["sources"]]
    rows += [("fell back", shown(reason)) for reason in stats["fallbacks"]]
    if stats["orphaned"]:
        rows.append(("orphaned", f"{size_text(stats['orphaned'])} held by a stuck read"))
    return rows


def limit_table(limit: dict[str, Any]) -> Table:
    """What raw loops reached on the same files."""
    rate = limit["bytes_per_second"]
    reached = f"[bold]{rate_text(rate)}[/] " if rate else "not measured: "
    return facts_table([("limit", f"{reached}[dim]{limit['state']}, {shown(limit['method'])}[/]")])
