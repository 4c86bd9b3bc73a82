"""inrush manifest: a digest of every tensor, to verify a copy against later."""

from __future__ import annotations

from typing import Annotated

import typer

from inrush._checkpoint import open_source
from inrush._manifest import Digested, write_manifest
from inrush.cli._common import (
    Json,
    Source,
    console,
    print_json,
    rate_text,
    shown,
    size_text,
    time_text,
)
from inrush.cli._progress import progress_bar


def manifest(
    source: Source,
    *,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="The file to write.")
    ],
    json: Json = False,
) -> None:
    """Read every byte and write a digest of each tensor."""
    with progress_bar("reading") as report:
        checkpoint = open_source(source)
        digested = Digested(checkpoint, report)
    write_manifest(digested.manifest, output)
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
