"""inrush load: bring a checkpoint into memory, and say how fast and why that way."""

from __future__ import annotations

import logging
from typing import Annotated, Any

import typer

import inrush
from inrush import _core
from inrush._manifest import read_manifest
from inrush._memory import Memory
from inrush._saving import check_place, save_file
from inrush._storage import without_secrets
from inrush._text_file import check_folder
from inrush._trace import check_picture, is_mapped
from inrush.cli._common import (
    Backend,
    Budget,
    CacheDir,
    CacheSize,
    Device,
    Exclude,
    Include,
    Json,
    KeyCommand,
    KeyFile,
    Mapping,
    Mirrors,
    Order,
    PageCache,
    PassphraseFile,
    Slices,
    Sources,
    StorageOptions,
    Verify,
    console,
    encryption_words,
    load_words,
    of_other,
    of_sources,
    one_or_several,
    out_path,
    print_json,
    rate_text,
    shown,
    size_text,
    time_text,
)
from inrush.cli._explain import explain_tables, limit_table
from inrush.cli._limit import measure_limit
from inrush.cli._progress import progress_bar

Words = dict[str, str] | None


Manifest = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Compare with this manifest while loading."),
]
Trace = Annotated[
    str | None, typer.Option(metavar="FILE", help="Write a trace for ui.perfetto.dev.")
]
Plot = Annotated[
    str | None, typer.Option(metavar="FILE", help="Draw the time line: .png, .svg, .pdf.")
]


def load(
    sources: Sources,
    *,
    device: Device = None,
    backend: Backend = None,
    strict: Annotated[bool, typer.Option(help="Only these backends.")] = False,
    budget: Budget = None,
    page_cache: PageCache = None,
    mapping: Mapping = None,
    order: Order = None,
    include: Include = None,
    exclude: Exclude = None,
    slices: Slices = None,
    verify: Verify = None,
    manifest: Manifest = None,
    mirrors: Mirrors = None,
    cache_dir: CacheDir = None,
    cache_size: CacheSize = None,
    key_file: KeyFile = None,
    passphrase_file: PassphraseFile = None,
    key_command: KeyCommand = None,
    storage_options: StorageOptions = None,
    out: Annotated[
        str | None, typer.Option(help="Save what was loaded as this safetensors file or object.")
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Facts, choice, and the ratio to the limit.")
    ] = False,
    trace: Trace = None,
    plot: Plot = None,
    json: Json = False,
) -> None:
    """Load a checkpoint into memory; several files are one checkpoint."""
    out = out_path(out)
    words = load_words(
        device=device,
        backend=backend,
        budget=budget,
        page_cache=page_cache,
        mapping=mapping,
        order=order,
        include=include,
        exclude=exclude,
        slices=slices,
        verify=verify,
        manifest=_expected(manifest, storage_options),
        mirrors=mirrors,
        cache_dir=cache_dir,
        cache_size=cache_size,
        storage_options=of_sources(storage_options, [*sources, *(mirrors or [])], out),
        **encryption_words(key_file, passphrase_file, key_command),
    )
    traced = _check(trace, plot)
    written_with = _check_out(out, storage_options)
    with inrush.open(one_or_several(sources), **words) as checkpoint:
        job = _loaded(checkpoint, strict=strict, trace=traced)
        stats = job.stats()
        _save(job, out, checkpoint, written_with)
        limit = _limit(checkpoint, job) if explain or plot else None
        place = checkpoint.uri  # without what is secret in the source
    _draw(job, trace, plot, limit)
    if json:
        more = {**job.explain(), "limit": limit} if explain else {}
        print_json("load", {"uri": place, "stats": stats, **more})
        return
    _print(job, stats, limit if explain else None, explain=explain)
    for path in filter(None, (out, trace, plot)):
        console().print(f"[dim]wrote[/] {shown(without_secrets(path))}")


def _expected(manifest: str | None, storage: str | None) -> _core.Manifest | None:
    return None if manifest is None else read_manifest(manifest, of_other(storage, manifest))


def _loaded(checkpoint: inrush.Checkpoint, *, strict: bool, trace: bool) -> inrush.Job:
    with progress_bar("loading") as report:
        job = checkpoint.start(strict=strict, trace=trace, progress=report, framework=None)
        job.confirms = True
        job.wait()
    return job


def _check(trace: str | None, plot: str | None) -> bool:
    if trace:
        check_folder(trace)
    if plot:
        # That it has nowhere to keep its fonts is nothing to a user who looks at our output.
        logging.getLogger("matplotlib").setLevel(logging.ERROR)
        check_picture(plot)
    return bool(trace or plot)


def _draw(
    job: inrush.Job, trace: str | None, plot: str | None, limit: dict[str, Any] | None
) -> None:
    if trace:
        job.trace().save(trace)
    if plot:
        job.trace().plot(plot, limit["bytes_per_second"] if limit else None)


def _check_out(out: str | None, storage: str | None) -> Words:
    """The storage options that `out` is written with; an error where it cannot be."""
    words = of_other(storage, out)
    if out:
        check_place(out, words)
    return words


def _save(job: inrush.Job, path: str | None, checkpoint: inrush.Checkpoint, storage: Words) -> None:
    if path:
        memories = {name: Memory(tensor) for name, tensor in job}
        save_file(memories, path, checkpoint.metadata or None, storage_options=storage)


def _limit(checkpoint: inrush.Checkpoint, job: inrush.Job) -> dict[str, Any]:
    """The limit of the kind of load that it was: off the disk, or out of the page cache."""
    facts = job.explain()["facts"]
    warm = facts["warm_bytes"] * 2 > facts["wanted_bytes"] or facts["filesystem"]["memory"]
    limit = measure_limit(checkpoint._opened(), "warm" if warm else "cold")
    stats = job.stats()
    reached = stats["gb_per_s"] * 1e9
    # Nothing is above the limit: where this very load was faster, it is the best that was seen.
    if limit["bytes_per_second"] and not is_mapped(stats) and reached > limit["bytes_per_second"]:
        limit |= {"bytes_per_second": reached, "method": "this load; slower: " + limit["method"]}
    return limit


def _print(
    job: inrush.Job, stats: dict[str, Any], limit: dict[str, Any] | None, *, explain: bool
) -> None:
    out = console()
    mapped = is_mapped(stats)
    line = f"[bold]{size_text(stats['bytes'])}[/] "
    line += f"{'mapped ' if mapped else ''}in [bold]{time_text(stats['seconds'])}[/]"
    if not mapped:
        line += f", [bold green]{rate_text(stats['gb_per_s'] * 1e9)}[/]"
    if limit and limit["bytes_per_second"] and not mapped:
        rate = limit["bytes_per_second"]
        line += f", {stats['gb_per_s'] * 1e9 / rate:.0%} of the limit {rate_text(rate)}"
    out.print(f"{line}  [dim]{stats['tensors']} tensors via[/] {stats['choice']}")
    if explain:
        limits = [] if limit is None else [limit_table(limit)]
        for table in [*explain_tables(job.explain(), stats), *limits]:
            out.print()
            out.print(table)
    else:
        out.print(f"[dim]{shown(stats['why'])}[/]")
