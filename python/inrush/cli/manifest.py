"""inrush manifest: a digest of every tensor, to verify a copy against later."""

from __future__ import annotations

import json as json_format
import os
import tempfile
from typing import Annotated, Any

import typer

import inrush
from inrush._errors import DataError, SourceError, UsageError
from inrush._options import Options
from inrush.cli._common import Json, Source, console, print_json, rate_text, size_text, time_text
from inrush.cli._progress import run

ALGORITHM = "sha256"
SCHEMA_VERSION = 1


def manifest(
    source: Source,
    *,
    output: Annotated[str, typer.Option("--output", "-o", help="The file to write.")],
    json: Json = False,
) -> None:
    """Read every byte and write a digest of each tensor."""
    document, stats = digest_all(source)
    _write(output, document)
    if json:
        print_json("manifest", {"output": output, "count": len(document["tensors"]), **stats})
        return
    console().print(
        f"{len(document['tensors'])} digests of {size_text(stats['bytes'])} in "
        f"{time_text(stats['seconds'])}, {rate_text(stats['gb_per_s'] * 1e9)}: {output}",
        markup=False,
    )


def digest_all(source: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The manifest of a checkpoint, and the stats of reading it."""
    with inrush.open(source) as checkpoint:
        job = checkpoint.start(checksum=ALGORITHM, collect=False)
        run(job, "reading")
        digests = job.digests()
        tensors = {
            name: {
                "dtype": info.dtype,
                "shape": list(info.shape),
                "nbytes": info.nbytes,
                "digest": digests[name],
            }
            for name, info in checkpoint.items()
        }
        document = {
            "schema_version": SCHEMA_VERSION,
            "format": checkpoint.format,
            "algorithm": ALGORITHM,
            "tensors": tensors,
        }
        return document, job.stats()


def read_manifest(path: str) -> dict[str, Any]:
    """A manifest from its file.

    Raises
    ------
    SourceError
        If it is missing or may not be read.
    DataError
        If it is no manifest.
    """
    try:
        with open(path, encoding="utf-8") as file:
            document = json_format.load(file)
    except OSError as error:
        raise SourceError(f"read manifest {path}: {error.strerror}") from None
    except ValueError as error:
        raise DataError(f"read manifest {path}: {error}") from None
    tensors = document.get("tensors") if isinstance(document, dict) else None
    if not isinstance(tensors, dict) or document.get("schema_version") != SCHEMA_VERSION:
        raise DataError(f"read manifest {path}: not a manifest of schema_version {SCHEMA_VERSION}")
    if document.get("algorithm") != ALGORITHM:
        raise DataError(f"read manifest {path}: unknown algorithm {document.get('algorithm')!r}")
    return document


def _write(path: str, document: dict[str, Any]) -> None:
    folder = os.path.dirname(os.path.abspath(path))
    try:
        with tempfile.NamedTemporaryFile(
            "w", dir=folder, prefix=".inrush-", delete=False, encoding="utf-8"
        ) as file:
            json_format.dump(document, file, indent=1)
            file.write("\n")
        os.replace(file.name, path)
    except OSError as error:
        raise SourceError(f"write manifest {path}: {error.strerror}") from None
