"""inrush cache: what is kept of remote checkpoints on this machine."""

from __future__ import annotations

import os
import time
from typing import Annotated, Any

import typer

import inrush
from inrush._cache import Kept, age_text, kept
from inrush._checkpoint import is_on_hub
from inrush._errors import UsageError
from inrush._options import Options
from inrush._storage import without_secrets
from inrush.cli._common import (
    CacheDir,
    CacheSize,
    Json,
    KeyCommand,
    KeyFile,
    PassphraseFile,
    Source,
    console,
    encryption_words,
    plain_table,
    print_json,
    shown,
    size_text,
)
from inrush.cli._fetching import fetch, fetch_from_hub

# Looks at whether a copy that is whole is on disk.
_SEALING = 50

app = typer.Typer(help="What is kept of remote checkpoints on this machine.", no_args_is_help=True)


def _folder(cache_dir: str | None) -> bytes:
    words = {} if cache_dir is None else {"cache_dir": cache_dir}
    folder = Options(words).cache_dir
    if not folder:
        raise UsageError("cache: name its folder with --cache-dir or INRUSH_CACHE_DIR")
    return folder


def _values(one: Kept) -> dict[str, Any]:
    return {
        "uri": one.uri,
        "bytes": one.bytes,
        "used": one.used,
        "filling": one.is_filled_now(),
        "files": [
            {"name": copy.name, "size": copy.size, "present": copy.present, "sealed": copy.sealed}
            for copy in one.copies
        ],
    }


@app.command("ls")
def list_kept(*, cache_dir: CacheDir = None, json: Json = False) -> None:
    """List checkpoints: how much of each is here, and when it was used last."""
    found = [one for one in kept(_folder(cache_dir)) if one.copies or one.broken]
    if json:
        print_json("cache ls", {"checkpoints": [_values(one) for one in found]})
        return
    table = plain_table("checkpoint", "here", "of", "used", right=("here", "of", "used"))
    for one in found:
        present = sum(copy.present for copy in one.copies)
        size = sum(copy.size for copy in one.copies)
        table.add_row(shown(one.uri), size_text(present), size_text(size), age_text(one.used))
    console().print(table)


def _named(found: list[Kept], uri: str) -> Kept:
    for one in found:
        if one.uri in (uri, without_secrets(uri)):
            return one
    raise UsageError(f"cache: nothing is kept of {without_secrets(uri)}")


@app.command("rm")
def remove(
    uris: Annotated[list[str] | None, typer.Argument(metavar="URI...")] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    cache_dir: CacheDir = None,
    json: Json = False,
) -> None:
    """Remove checkpoints, by the names that `ls` shows, or that they were loaded by."""
    found = kept(_folder(cache_dir))
    if bool(uris) == everything:
        raise UsageError("cache rm: name checkpoints, or say --all")
    chosen = found if everything else [_named(found, uri) for uri in uris or []]
    for one in chosen:
        one.remove()
    if json:
        print_json("cache rm", {"removed": [one.uri for one in chosen]})
    else:
        console().print(f"removed {len(chosen)}, {size_text(sum(one.bytes for one in chosen))}")


@app.command("verify")
def verify(*, cache_dir: CacheDir = None, json: Json = False) -> None:
    """Read all that is kept, and compare it with the checksums of what came."""
    found = kept(_folder(cache_dir))
    wrong = [line for one in found for copy in one.copies for line in copy.wrong()]
    wrong += [line for one in found for line in one.broken]
    if json:
        print_json("cache verify", {"ok": not wrong, "wrong": wrong})
    else:
        for line in wrong:
            console().print(f"[red]wrong[/] {shown(line)}", soft_wrap=True)
        count = sum(len(one.copies) for one in found)
        console().print(f"{count} files, {len(wrong)} findings")
    if wrong:
        raise typer.Exit(1)


@app.command("prefetch")
def prefetch(
    source: Source,
    *,
    cache_dir: CacheDir = None,
    cache_size: CacheSize = None,
    key_file: KeyFile = None,
    passphrase_file: PassphraseFile = None,
    key_command: KeyCommand = None,
    json: Json = False,
) -> None:
    """Bring a checkpoint into the cache, without keeping it in memory.

    What is on the Hub goes into huggingface_hub's cache, and needs no folder. What is encrypted is
    kept so, and checked with its key.
    """
    key = encryption_words(key_file, passphrase_file, key_command)
    if is_on_hub(source):
        uri, files = fetch_from_hub(source, key)
        size = sum(os.path.getsize(path) for path in files)
        _report({"uri": uri, "bytes": size, "files": files, "whole": True}, json)
        return
    folder = _folder(cache_dir).decode(errors="surrogateescape")
    words: dict[str, Any] = {"cache_dir": folder, **key}
    if cache_size is not None:
        words["cache_size"] = cache_size
    uri, _ = fetch(source, words)
    for _ in range(_SEALING):
        inrush.open(source, **words).close()  # fetches what no load reads, and seals
        found = [one for one in kept(words["cache_dir"]) if one.uri == uri]
        if not found:  # there is nothing that tells versions of it apart
            _report({"uri": uri, "bytes": 0, "files": [], "whole": False}, json)
            return
        one = found[0]
        if all(copy.sealed or copy.present < copy.size for copy in one.copies):
            break
        time.sleep(0.1)  # the load's last thread still has the lock
    whole = bool(one.copies) and all(copy.present == copy.size for copy in one.copies)
    _report({**_values(one), "whole": whole}, json)


def _report(values: dict[str, Any], json: bool) -> None:
    if json:
        print_json("cache prefetch", values)
    else:
        wrong = "not whole: is the disk full, or cache_size too small?"
        if not values["files"]:
            wrong = "not kept: the server tells no versions of it apart"
        state = "whole" if values["whole"] else wrong
        console().print(f"{shown(values['uri'])}: {size_text(values['bytes'])}, {state}")
    if not values["whole"]:
        raise typer.Exit(4)
