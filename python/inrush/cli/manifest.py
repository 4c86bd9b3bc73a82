"""inrush manifest: a digest of every tensor, to verify a copy against later."""

from __future__ import annotations

from typing import Annotated

import typer

from inrush._manifest import write_manifest
from inrush._saving import check_place
from inrush._storage import without_secrets
from inrush._text_file import check_folder, is_uri
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


def manifest(
    sources: Sources,
    *,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="The file or object to write.")
    ],
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
    """Read every byte and write a digest of each tensor."""
    written_with = of_other(storage_options, output)
    if is_uri(output):
        check_place(output, written_with)
    else:
        check_folder(output)
    checkpoint, digested = read_all(
        sources,
        "reading",
        (key_file, passphrase_file, key_command),
        backend=backend,
        budget=budget,
        page_cache=page_cache,
        mirrors=mirrors,
        cache_dir=cache_dir,
        cache_size=cache_size,
        storage_options=of_sources(storage_options, [*sources, *(mirrors or [])], output),
    )
    write_manifest(digested.manifest, output, written_with)
    output = without_secrets(output)
    stats = digested.stats
    if json:
        values = {
            "uri": checkpoint.uri,
            "output": output,
            "count": len(digested.manifest),
            "stats": stats,
        }
        print_json("manifest", values)
        return
    console().print(
        f"[bold]{len(digested.manifest)}[/] digests of {size_text(stats['bytes'])} in "
        f"{time_text(stats['seconds'])}, {rate_text(stats['gb_per_s'] * 1e9)}  "
        f"[dim]wrote[/] {shown(output)}"
    )
