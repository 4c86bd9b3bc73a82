"""What huggingface_hub's cache has of a commit, by that package's own rules."""

from __future__ import annotations

import json
import os
import re

from inrush import _core

TYPE_CHECKING = False
if TYPE_CHECKING:
    from inrush._hub import HubPlace

COMMIT = re.compile(r"[0-9a-f]{40}")


def snapshot_folder(snapshot: _core.HubSnapshot, commit: str) -> str:
    return os.path.join(snapshot.folder, "snapshots", commit)


def files_here(snapshot: _core.HubSnapshot, place: HubPlace) -> list[_core.HubFile] | None:
    """The files that the cache has of the revision, and the commit in `snapshot`; None: no such."""
    if not snapshot.folder:
        return None
    commit = place.revision
    if not COMMIT.fullmatch(commit):
        try:
            with open(os.path.join(snapshot.folder, "refs", place.revision)) as ref:
                commit = ref.read().strip()
        except OSError:
            return None
    folder = snapshot_folder(snapshot, commit)
    if not commit or not os.path.isdir(folder):
        return None
    snapshot.commit = commit
    files = []
    for where, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(where, name)
            if not os.path.isfile(path):
                continue
            file = _core.HubFile()
            file.name = os.path.relpath(path, folder)
            status = os.stat(path)
            file.size, file.path = status.st_size, path
            linked = os.path.basename(os.readlink(path)) if os.path.islink(path) else ""
            file.etag = linked or f"{status.st_size}-{status.st_mtime_ns}"
            files.append(file)
    return files or None


def is_enough(files: list[_core.HubFile], place: HubPlace) -> bool:
    """Whether these files are, beyond doubt, all that is meant."""
    by_name = {file.name: file for file in files}
    if place.path in by_name:
        return True
    if any(letter in place.path for letter in "*?["):
        return False
    prefix = place.path.rstrip("/") + "/" if place.path else ""
    for name, file in by_name.items():
        if not name.startswith(prefix) or "/" in name[len(prefix) :]:
            continue
        if name.endswith(".safetensors.index.json"):
            return all(prefix + part in by_name for part in _indexed(file.path))
    return prefix + "model.safetensors" in by_name


def _indexed(path: str) -> set[str]:
    """The files that an index names; something that is never there if it is none."""
    try:
        with open(path) as file:
            return set(json.load(file)["weight_map"].values()) or {""}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {""}
