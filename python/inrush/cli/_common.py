"""What the commands share: consoles, JSON output, sizes in words, option types."""

from __future__ import annotations

import json
import os
import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from inrush import __version__
from inrush._checkpoint import place_of
from inrush._errors import UsageError
from inrush._options import environment, parse_order, parse_slices, parse_storage_options
from inrush._text_file import is_uri
from inrush.cli._text import printable

SCHEMA_VERSION = 1

# Columns of output that goes into a pipe, where there is no terminal to fit, and a name that is cut
# off or goes on in the next line is not found.
_PIPE_WIDTH = 100_000

# Letters of a text from a file that are shown; --json has all of them.
_MOST_SHOWN = 400

Source = Annotated[
    str, typer.Argument(metavar="SOURCE", help="A directory, a file, a URI or a model's id.")
]
Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE",
        help="A directory, a file, a URI, a model's id; or a checkpoint's files.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, with schema_version.")]
Device = Annotated[str | None, typer.Option(help="Where to: cpu, cuda:0, hip:1.")]
Backend = Annotated[
    str | None,
    typer.Option(help="Ways to read, tried in order: URING,PREAD,... Default: chosen."),
]
Budget = Annotated[
    str | None, typer.Option(help="Most bytes of staging, such as 512MiB. Default: 256MiB or less.")
]
PageCache = Annotated[
    str | None, typer.Option(help="What becomes of the page cache: auto, keep or drop.")
]
Mapping = Annotated[str | None, typer.Option(help="Whether pages may be mapped: auto or never.")]
Order = Annotated[
    str | None,
    typer.Option(help="file, ready, or only these names and patterns: 'embed*,layers.0.*'."),
]
Include = Annotated[
    list[str] | None, typer.Option(help="Only these: name, glob or re:EXPRESSION. Repeatable.")
]
Exclude = Annotated[
    list[str] | None, typer.Option(help="Not these: name, glob or re:EXPRESSION. Repeatable.")
]
Verify = Annotated[
    str | None,
    typer.Option("--verify", help="Check the format's own checksums: none, crc or full."),
]
Mirrors = Annotated[
    list[str] | None,
    typer.Option("--mirror", metavar="URI", help="Another place of the same bytes. Repeatable."),
]
CacheDir = Annotated[
    str | None, typer.Option(metavar="DIR", help="Where remote files are kept for the next time.")
]
CacheSize = Annotated[
    str | None, typer.Option(help="Most bytes of all that is kept there, such as 200GB.")
]
KeyFile = Annotated[
    str | None, typer.Option(metavar="FILE", help="The key: 32 bytes, or 64 hex digits.")
]
PassphraseFile = Annotated[
    str | None, typer.Option(metavar="FILE", help="The passphrase that the key is derived from.")
]
KeyCommand = Annotated[
    str | None,
    typer.Option(metavar="COMMAND", help="What prints the key: a KMS's or a vault's program."),
]
StorageOptions = Annotated[
    str | None,
    typer.Option(metavar="NAME=VALUE;...", help="Of a remote place. Secrets: the environment."),
]
Slices = Annotated[
    list[str] | None, typer.Option(help="Only a part: 'PATTERN=0:512,:'. Repeatable.")
]


def _print_version(asked: bool) -> None:
    if asked:
        sys.stdout.write(f"inrush {__version__}\n")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version."),
]


def overview(*, version: Version = False) -> None:
    """Loads model weights at the speed of the narrowest physical link."""


def console(*, error: bool = False) -> Console:
    """The terminal, or the pipe, behind stdout or stderr."""
    stream = sys.stderr if error else sys.stdout
    width = None if stream.isatty() else _PIPE_WIDTH
    return Console(stderr=error, width=width, highlight=False, soft_wrap=not stream.isatty())


def one_or_several(sources: list[str]) -> str | list[str]:
    """What `inrush.open` takes: one place, or the files that make one checkpoint."""
    return sources[0] if len(sources) == 1 else sources


def load_words(**flags: Any) -> dict[str, Any]:
    """Keyword arguments of `inrush.open` from flags; those not given are left out."""
    words = {word: value for word, value in flags.items() if value not in (None, [], ())}
    if "slices" in words:
        words["slices"] = parse_slices(";".join(words["slices"]))
    if "storage_options" in words:
        words["storage_options"] = parse_storage_options(words["storage_options"])
    if "order" in words:
        words["order"] = parse_order(words["order"])
    return words


def is_far(place: str) -> bool:
    """Whether it is a URI of another machine's, or a model's id."""
    uri = place_of(place)
    return b"://" in uri and not uri.lower().startswith(b"file://")


def of_sources(storage: str | None, places: list[str], other: str | None) -> str | None:
    """Storage options as the sources take them: those of every far place, and of no other."""
    return None if other and is_uri(other) and not any(map(is_far, places)) else storage


def of_other(storage: str | None, place: str | None) -> dict[str, str] | None:
    """Storage options as a place beside the sources takes them."""
    return parse_storage_options(storage) if storage and place and is_uri(place) else None


def encryption_words(
    key_file: str | None, passphrase_file: str | None, key_command: str | None, prefix: str = ""
) -> dict[str, Any]:
    """The `encryption` option from its flags."""
    places = {"file": key_file, "passphrase-file": passphrase_file, "exec": key_command}
    given = [f"{scheme}:{place}" for scheme, place in places.items() if place]
    if len(given) > 1:
        raise UsageError(
            f"--{prefix}key-file, --{prefix}passphrase-file and --{prefix}key-command: only one "
            "of them can be meant"
        )
    return {"encryption": given[0]} if given else {}


def out_path(out: str | None) -> str | None:
    """Where `--out` or INRUSH_OUT says that tensors go."""
    return out or environment("out")


def print_json(command: str, values: dict[str, Any]) -> None:
    """One JSON object on stdout."""
    document = {"schema_version": SCHEMA_VERSION, "command": command, **values}
    sys.stdout.write(json.dumps(document, indent=2) + "\n")


def shown(text: str) -> str:
    """Text from a file, safe to print: no control characters, no markup of ours."""
    return escape(printable(text))


def shortened(text: str) -> str:
    """As `shown`, and no longer than one wants to see it."""
    left = len(text) - _MOST_SHOWN
    return shown(text) if left <= 0 else f"{shown(text[:_MOST_SHOWN])} [dim]and {left} more[/]"


def size_text(size: float) -> str:
    """Bytes in words: '3.0 GiB'."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


def rate_text(rate: float | None) -> str:
    """Bytes per second in words: '2.71 GB/s'; '-' where it is not known."""
    return "-" if not rate else f"{rate / 1e9:.2f} GB/s"


def time_text(seconds: float) -> str:
    """Seconds in words: '1.32 s', '4.1 ms'."""
    return f"{seconds * 1e3:.1f} ms" if seconds < 0.1 else f"{seconds:.2f} s"


def plain_table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """A table without frames; the columns in `right` are right-aligned.

    Where there is no room for all, the widest of the others go on in the next line.
    """
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for column in columns:
        if column in right:
            table.add_column(column, justify="right", no_wrap=True)
        else:
            table.add_column(column, overflow="fold")
    return table


def facts_table(rows: list[tuple[str, str]]) -> Table:
    """Two columns: what, and what it is."""
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", overflow="fold")
    table.add_column(overflow="fold")
    for what, value in rows:
        table.add_row(what, value)
    return table


def base_name(path: str) -> str:
    """The last part of a path or URI, as lists of files show it."""
    return os.path.basename(path.rstrip("/")) or path
