"""inrush verify: every byte read, the structure checked, checksums and digests compared."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from inrush import _core
from inrush._manifest import Digested, read_manifest
from inrush._storage import without_secrets
from inrush.cli._common import (
    Backend,
    Budget,
    CacheDir,
    CacheSize,
    Json,
    KeyCommand,
    KeyFile,
    Mirrors,
    PageCache,
    PassphraseFile,
    Sources,
    StorageOptions,
    Verify,
    console,
    of_other,
    of_sources,
    print_json,
    rate_text,
    shown,
    size_text,
    time_text,
)
from inrush.cli._digesting import read_all

# Differences shown before the rest is counted only.
_SHOWN = 50


def verify(
    sources: Sources,
    *,
    manifest: Annotated[
        str | None,
        typer.Option("--manifest", metavar="FILE", help="What inrush manifest wrote."),
    ] = None,
    checksums: Verify = None,
    backend: Backend = None,
    budget: Budget = None,
    page_cache: PageCache = None,
    mirrors: Mirrors = None,
    cache_dir: CacheDir = None,
    cache_size: CacheSize = None,
    key_file: KeyFile = None,
    passphrase_file: PassphraseFile = None,
    key_command: KeyCommand = None,
    storage_options: StorageOptions = None,
    json: Json = False,
) -> None:
    """Read every byte, check the structure and the files' own checksums, compare a manifest."""
    expected = None
    of_source = of_sources(storage_options, [*sources, *(mirrors or [])], manifest)
    if manifest is not None:
        expected = read_manifest(manifest, of_other(storage_options, manifest))
        manifest = without_secrets(manifest)
    checkpoint, digested = read_all(
        sources,
        "verifying",
        (key_file, passphrase_file, key_command),
        by_all=True,
        verify=checksums,
        backend=backend,
        budget=budget,
        page_cache=page_cache,
        mirrors=mirrors,
        cache_dir=cache_dir,
        cache_size=cache_size,
        storage_options=of_source,
    )
    if digested.verified:
        _core.check_unused(checkpoint)
    different = [] if expected is None else _core.compare(expected, digested.manifest)
    if json:
        print_json("verify", _values(checkpoint.uri, manifest, digested, different))
    else:
        _print(digested, different, compared=expected is not None)
    if different:
        raise typer.Exit(1)


def _values(
    source: str, manifest: str | None, digested: Digested, different: list[_core.Difference]
) -> dict[str, Any]:
    return {
        "uri": source,
        "manifest": manifest,
        "ok": not different,
        "checksums": digested.verified,
        "count": len(digested.manifest),
        "differences": [
            {"what": one.what.name, "name": one.name, "text": one.text} for one in different
        ],
        "stats": digested.stats,
    }


def _print(digested: Digested, different: list[_core.Difference], *, compared: bool) -> None:
    out = console()
    stats = digested.stats
    for one in different[:_SHOWN]:
        out.print(f"[red]differs[/] {shown(one.text)}", soft_wrap=True)
    if len(different) > _SHOWN:
        out.print(f"[dim]and {len(different) - _SHOWN} more[/]")
    read = (
        f"{len(digested.manifest)} tensors, {size_text(stats['bytes'])} read in "
        f"{time_text(stats['seconds'])}, {rate_text(stats['gb_per_s'] * 1e9)}"
    )
    if different:
        count = "1 difference" if len(different) == 1 else f"{len(different)} differences"
        out.print(f"[bold red]{count}[/]  [dim]{read}[/]")
    elif compared:
        out.print(f"[bold green]all digests agree[/]  [dim]{read}[/]")
    elif digested.verified:
        out.print(f"[bold green]all checksums agree[/]  [dim]{read}; no manifest to compare[/]")
    else:
        out.print(f"[bold green]structure is sound[/]  [dim]{read}; no manifest to compare[/]")
