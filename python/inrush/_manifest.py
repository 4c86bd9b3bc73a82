"""Digests of every tensor: making them, and comparing a checkpoint with those expected."""

from __future__ import annotations

from inrush import _core
from inrush._arguments import WHOLE
from inrush._errors import DataError, SourceError
from inrush._job import Job
from inrush._options import Options
from inrush._selection import passing
from inrush._text_file import is_uri, read_far_text, write_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping
    from typing import Any


class Digested:
    """A checkpoint whose every byte was read.

    Attributes
    ----------
    manifest : _core.Manifest
    verified : bool
        Whether the files' own checksums were compared.
    stats : dict
        Of the load, as of `Job.stats`.
    """

    def __init__(
        self,
        checkpoint: _core.Checkpoint,
        progress: Callable[..., object] | None = None,
        opened: Options | None = None,
    ) -> None:
        leaves = _core.Leaves()
        # Every byte, whatever the environment presets for loads.
        budget = opened.budget if opened else 0
        words = {**WHOLE, **passing(checkpoint, budget), "order": "ready", "progress": progress}
        options = Options(words, opened)

        def digesting(asked: _core.LoadOptions) -> None:
            _core.add_digests(asked, leaves)

        with Job(checkpoint, options, collect=False, digesting=digesting) as job:
            job.confirms = True
            for one in job:
                del one  # its memory is of use to the next ones
            digests = job.digests()
            left_out = set(checkpoint.names()) - set(digests)
            if left_out:
                raise DataError(f"digest {min(left_out)!r}: it was not read")
            self.verified = options.verify != "none"
            self.manifest = _core.Manifest.make(checkpoint, digests, leaves)
            self.stats: dict[str, Any] = job.stats()


def read_manifest(
    path: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None
) -> _core.Manifest:
    """A manifest from its file, which may be a URI with these options.

    Raises
    ------
    SourceError
        If it is missing or may not be read.
    DataError
        If it is no manifest.
    """
    if is_uri(path):
        name, text = read_far_text(str(path), storage_options)
        return _core.Manifest.parse(text, name)
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except OSError as error:
        raise SourceError(f"read manifest {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"read manifest {path}: {error}") from None
    return _core.Manifest.parse(text, str(path))


def manifest_of(
    given: str | os.PathLike[str] | _core.Manifest, storage_options: Mapping[str, Any] | None
) -> _core.Manifest:
    """The manifest that an option means: read, where it is a place."""
    return given if isinstance(given, _core.Manifest) else read_manifest(given, storage_options)


def write_manifest(
    manifest: _core.Manifest,
    path: str | os.PathLike[str],
    storage_options: Mapping[str, Any] | None = None,
) -> None:
    """Write a manifest whole or not at all, to a path or a URI with these options.

    Raises
    ------
    SourceError
        If it cannot be written.
    """
    write_text(path, manifest.to_json(), storage_options)
