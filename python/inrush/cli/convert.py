"""inrush convert: write a checkpoint as another format."""

from __future__ import annotations

import time
from typing import Annotated

import typer

import inrush
from inrush._errors import UsageError
from inrush.cli._common import (
    Budget,
    Exclude,
    Include,
    Json,
    KeyFile,
    PassphraseFile,
    Source,
    Verify,
    console,
    encryption_words,
    print_json,
    shown,
    time_text,
)
from inrush.cli._progress import progress_bar


def convert(
    source: Source,
    destination: Annotated[
        str, typer.Argument(metavar="DESTINATION", help="A file or a folder that is not there.")
    ],
    *,
    to: Annotated[str, typer.Option(help="safetensors, serverlessllm or tensorizer.")],
    shard_size: Annotated[
        str | None, typer.Option(help="Most bytes of tensors in a file, such as 5GB.")
    ] = None,
    include: Include = None,
    exclude: Exclude = None,
    verify: Verify = None,
    key_file: KeyFile = None,
    passphrase_file: PassphraseFile = None,
    encrypt_key_file: Annotated[
        str | None, typer.Option(metavar="FILE", help="Encrypt with this key: tensorizer only.")
    ] = None,
    encrypt_passphrase_file: Annotated[
        str | None, typer.Option(metavar="FILE", help="Encrypt with a key from this passphrase.")
    ] = None,
    budget: Budget = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where an interrupted conversion ended.")
    ] = False,
    json: Json = False,
) -> None:
    """Write a checkpoint as another format, and compare every tensor at the end."""
    begin = time.monotonic()
    try:
        encrypt = encryption_words(encrypt_key_file, encrypt_passphrase_file).get("encryption")
    except UsageError:
        raise UsageError("--encrypt-key-file and --encrypt-passphrase-file: only one") from None
    words = encryption_words(key_file, passphrase_file)
    with progress_bar("converting") as report:
        digests = inrush.convert(
            source,
            destination,
            to=to,
            include=include or None,
            exclude=exclude or None,
            shard_size=shard_size,
            verify=verify or "none",
            encryption=words.get("encryption"),
            encrypt=encrypt,
            budget=budget,
            resume=resume,
            progress=report,
        )
    if json:
        print_json("convert", {"uri": destination, "format": to, "digests": digests})
        return
    line = f"[bold]{len(digests)}[/] tensors written and compared in"
    console().print(f"{line} [bold]{time_text(time.monotonic() - begin)}[/]  {shown(destination)}")
