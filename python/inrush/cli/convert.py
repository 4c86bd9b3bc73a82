"""inrush convert: write a checkpoint as another format."""

from __future__ import annotations

import time
from typing import Annotated

import typer

import inrush
from inrush._errors import UsageError
from inrush._storage import without_secrets
from inrush.cli._common import (
    Budget,
    Exclude,
    Include,
    Json,
    KeyCommand,
    KeyFile,
    PassphraseFile,
    Source,
    StorageOptions,
    Verify,
    console,
    encryption_words,
    load_words,
    print_json,
    shown,
    time_text,
)
from inrush.cli._progress import progress_bar

Encrypt = Annotated[
    bool,
    typer.Option("--encrypt", help="Encrypt: the given key is the destination's."),
]

Decrypt = Annotated[bool, typer.Option("--decrypt", help="Decrypt: the destination is plain.")]

Rekey = Annotated[
    bool, typer.Option("--rekey", help="Decrypt with one key and encrypt with the other.")
]

Dtype = Annotated[
    str | None, typer.Option(help="Cast floating-point tensors to this, such as BF16.")
]

Ranks = Annotated[int | None, typer.Option(help="Folders rank_0, rank_1, ...: serverlessllm only.")]

Dialect = Annotated[
    str | None, typer.Option(help="original or tensora: how serverlessllm is written.")
]

EncryptKeyFile = Annotated[
    str | None, typer.Option(metavar="FILE", help="Encrypt with this key: not serverlessllm.")
]

EncryptPassphraseFile = Annotated[
    str | None, typer.Option(metavar="FILE", help="Encrypt with a key from this passphrase.")
]

EncryptKeyCommand = Annotated[
    str | None, typer.Option(metavar="COMMAND", help="Encrypt with the key that this prints.")
]


def convert(
    source: Source,
    destination: Annotated[
        str,
        typer.Argument(
            metavar="DESTINATION",
            help="A file or a folder that is not there; or s3://, gs://, redis://.",
        ),
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
    key_command: KeyCommand = None,
    encrypt: Encrypt = False,
    decrypt: Decrypt = False,
    rekey: Rekey = False,
    encrypt_key_file: EncryptKeyFile = None,
    encrypt_passphrase_file: EncryptPassphraseFile = None,
    encrypt_key_command: EncryptKeyCommand = None,
    dtype: Dtype = None,
    ranks: Ranks = None,
    dialect: Dialect = None,
    budget: Budget = None,
    storage_options: StorageOptions = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where an interrupted conversion ended.")
    ] = False,
    json: Json = False,
) -> None:
    """Write a checkpoint as another format, and compare every tensor at the end."""
    begin = time.monotonic()
    source_key = encryption_words(key_file, passphrase_file, key_command).get("encryption")
    target_key = encryption_words(
        encrypt_key_file, encrypt_passphrase_file, encrypt_key_command, prefix="encrypt-"
    ).get("encryption")
    if encrypt and target_key is None:
        source_key, target_key = None, source_key
    _check_intent(source_key, target_key, encrypt=encrypt, decrypt=decrypt, rekey=rekey)
    with progress_bar("converting") as report:
        digests = inrush.convert(
            source,
            destination,
            to=to,
            include=include or None,
            exclude=exclude or None,
            shard_size=shard_size,
            verify=verify,
            encryption=source_key,
            encrypt=target_key,
            dtype=dtype,
            ranks=ranks,
            dialect=dialect,
            budget=budget,
            resume=resume,
            **load_words(storage_options=storage_options),
            progress=report,
        )
    destination = without_secrets(destination)
    if json:
        print_json("convert", {"uri": destination, "format": to, "digests": digests})
        return
    line = f"[bold]{len(digests)}[/] tensors written and compared in"
    console().print(f"{line} [bold]{time_text(time.monotonic() - begin)}[/]  {shown(destination)}")


def _check_intent(
    source_key: str | None, target_key: str | None, *, encrypt: bool, decrypt: bool, rekey: bool
) -> None:
    """The keys that were given are those that the flags speak of."""
    if encrypt + decrypt + rekey > 1:
        raise UsageError("--encrypt, --decrypt and --rekey: only one")
    if (encrypt or rekey) and target_key is None:
        flag = "--encrypt" if encrypt else "--rekey"
        raise UsageError(f"{flag}: the key is missing: --encrypt-key-file names it")
    if decrypt and target_key is not None:
        raise UsageError("--decrypt: the destination is plain; --rekey changes a key")
