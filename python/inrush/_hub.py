"""Places on the Hugging Face Hub: what huggingface_hub makes of them, as values for the engine.

``hf://org/name[@revision][/file]`` and plain model ids. huggingface_hub says which commit that is
and which files it has; the engine reads them, from that package's cache where they are in it, else
from where the Hub sends it, into that cache.
"""

from __future__ import annotations

import fnmatch
import importlib.util
import os
import random
import re
import time
from typing import NamedTuple
from urllib.parse import unquote

from inrush import _core
from inrush._errors import Error, SourceError, UsageError
from inrush._hub_cache import COMMIT, files_here, is_enough, snapshot_folder
from inrush._hub_errors import OFFLINE, Unavailable, explained
from inrush._options import hub_environment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

SCHEME = "hf://"
# Words of storage options that are used up here.
WORDS = ("anon", "cache", "endpoint", "token")

EXTRA = "pip install 'inrush[hub]'"
_NAME = r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*"
_REVISION = r"refs/(?:pr|convert)/[^/]+|[^/@]+"
_PLACE = re.compile(rf"({_NAME})(?:@({_REVISION}))?(?:/(.*))?", re.ASCII)
_ID = re.compile(rf"{_NAME}(?:@(?:{_REVISION}))?", re.ASCII)
_OTHER_KINDS = ("buckets", "datasets", "kernels", "spaces")
# What is called so is a file that is not there, and no model.
# fmt: off
_FILES = (
    ".bin", ".ckpt", ".gguf", ".h5", ".json", ".npz", ".onnx", ".pt", ".pth", ".safetensors",
    ".tensors", ".txt", ".zip",
)
# fmt: on
_PAUSES = (0.5, 1.0, 2.0)  # seconds before the Hub is asked again
_MOST_HEADS = 500  # files of which the Hub's listing says too little, each asked for
_SHOWN = 5  # names in one error


class HubPlace(NamedTuple):
    """A place in parts.

    Attributes
    ----------
    repo, revision : str
        ``'org/name'`` and a branch, a tag or a commit.
    path : str
        A file, a folder or a pattern of names in it; '' for the whole.
    """

    repo: str
    revision: str
    path: str

    @property
    def shown(self) -> str:
        """The repository and the revision, as errors have them."""
        return f"{SCHEME}{self.repo}@{self.revision}"


def is_model_id(source: str) -> bool:
    """Whether a text that is no URI looks like ``org/name``, and nothing here is called so."""
    if "://" in source or not _ID.fullmatch(source) or source.lower().endswith(_FILES):
        return False
    return not os.path.lexists(source)


def parse_place(uri: str) -> HubPlace:
    """The parts of ``hf://org/name[@revision][/path]``.

    Raises
    ------
    UsageError
        For anything else.
    """
    rest = uri[len(SCHEME) :].removeprefix("models/")
    kind = rest.partition("/")[0]
    if kind in _OTHER_KINDS:
        raise UsageError(f"open {uri}: of the Hub only models are opened, not {kind}")
    match = _PLACE.fullmatch(rest)
    if match is None:
        raise UsageError(f"open {uri}: expected hf://org/name[@revision][/file]")
    repo, revision, path = match.groups()
    place = HubPlace(repo, unquote(revision or "main"), path or "")
    parts = [*place.path.rstrip("/").split("/"), *place.revision.split("/")]
    if "." in parts or ".." in parts or "" in parts[1:]:
        raise UsageError(f"open {uri}: a name that leads out of the repository")
    return place


def needs_hub(uri: str) -> Error:
    """The error that names the extra."""
    return UsageError(f"open {uri}: the Hub needs huggingface_hub, which is missing: {EXTRA}")


class Hub:
    """The Hub as huggingface_hub and the caller have it configured.

    Parameters
    ----------
    words : mapping
        ``token``, ``endpoint``, ``cache``, ``anon`` of the storage options, as text.
    """

    def __init__(self, words: Mapping[str, str]) -> None:
        import huggingface_hub
        from huggingface_hub import constants

        self._api = huggingface_hub
        self._words = words
        found = hub_environment()
        usual = (found["HF_ENDPOINT"] or constants.ENDPOINT).rstrip("/")
        self.endpoint = (words.get("endpoint") or usual).rstrip("/")
        # An endpoint among the storage options may be meant for another kind of store.
        self._is_usual = self.endpoint == usual
        kept = words.get("cache", "true").lower() != "false"
        self.cache = _cache_folder(found, str(constants.HF_HUB_CACHE)) if kept else ""
        self.links = not constants.HF_HUB_DISABLE_SYMLINKS
        self._timeout = constants.HF_HUB_ETAG_TIMEOUT
        self._quiet = constants.HF_HUB_DISABLE_IMPLICIT_TOKEN
        asked = (found["HF_HUB_OFFLINE"], found["TRANSFORMERS_OFFLINE"])
        self.offline = constants.HF_HUB_OFFLINE or any(_is_true(value) for value in asked)

    @property
    def renews(self) -> bool:
        """Whether the token may be another one later: it is not the caller's."""
        return self._words.get("token", "true") == "true"

    def token(self) -> str | None:
        """What to show to the Hub; None: nothing."""
        given = self._words.get("token", "")
        if given.lower() == "false" or self._words.get("anon") == "true":
            return None
        if given and given.lower() != "true":
            return given
        if not given and (self._quiet or not self._is_usual):
            return None
        return self._api.get_token()

    def resolve(self, place: HubPlace) -> _core.HubSnapshot:
        """The commit and its files.

        Raises
        ------
        SourceError
            There is no such repository, revision or file, it may not be read, or the Hub cannot be
            asked and the cache has not got it.
        """
        snapshot = _core.HubSnapshot()
        snapshot.shown, snapshot.revision = place.shown, place.revision
        snapshot.links = self.links
        if self.cache:
            name = "models--" + place.repo.replace("/", "--")
            snapshot.folder = os.path.join(self.cache, name)
            snapshot.locks = os.path.join(self.cache, ".locks", name)
        known = files_here(snapshot, place)
        if known and COMMIT.fullmatch(place.revision) and is_enough(known, place):
            return self._settle(snapshot, place, place.revision, known)
        if self.offline:
            return self._from_here(snapshot, place, OFFLINE)
        try:
            info = self._ask(place, patient=known is None)
        except Unavailable as error:
            if known is None or error.certain:
                raise SourceError(f"open {place.shown}: {error}") from None
            return self._from_here(snapshot, place, f"the Hub gave no answer to go by ({error})")
        files = self._files(place, info)
        if snapshot.folder:
            folder = snapshot_folder(snapshot, info.sha)
            for file in files:
                path = os.path.join(folder, file.name)
                if os.path.isfile(path) and os.path.getsize(path) == file.size:
                    file.path = path
        return self._settle(snapshot, place, info.sha, files)

    def download(self, place: HubPlace, commit: str, name: str) -> str:
        """Have huggingface_hub download a file as a whole; its path.

        Raises
        ------
        SourceError
            If that fails, or nothing may be kept.
        """
        if not self.cache:
            raise SourceError(
                f"open {place.shown}/{name}: the server gives no parts of it, so that it must be "
                "downloaded as a whole, and the cache is switched off"
            )
        path: str = self._call(
            place,
            name,
            lambda: self._api.hf_hub_download(
                place.repo,
                name,
                revision=commit,
                cache_dir=self.cache,
                endpoint=self.endpoint,
                token=self.token() or False,
            ),
        )
        return path

    def _ask(self, place: HubPlace, *, patient: bool) -> Any:
        """What the Hub says of the revision; again where that may help, if `patient`."""
        api = self._api.HfApi(endpoint=self.endpoint, library_name="inrush")

        def ask() -> Any:
            return api.model_info(
                place.repo,
                revision=place.revision,
                files_metadata=True,
                timeout=self._timeout,
                token=self.token() or False,
            )

        pauses = list(_PAUSES) if patient else []
        while True:
            try:
                info = ask()
                break
            except Exception as error:
                problem = explained(error, self.token(), self._page(place))
            if not problem.may_pass or not pauses:
                raise problem
            time.sleep(max(pauses.pop(0) * (1 + random.random() / 4), problem.pause))
        if not isinstance(info.sha, str) or not re.fullmatch(r"[0-9A-Za-z]{1,64}", info.sha):
            raise SourceError(f"open {place.shown}: the Hub does not say which commit that is")
        return info

    def _files(self, place: HubPlace, info: Any) -> list[_core.HubFile]:
        files, unclear = [], []
        for one in info.siblings or []:
            name = one.rfilename
            if {"", ".", ".."} & set(name.split("/")):
                raise SourceError(
                    f"open {place.shown}: the Hub lists {name!r}, which leads out of the repository"
                )
            file = _core.HubFile()
            file.name = name
            file.url = self._api.hf_hub_url(
                place.repo, name, revision=info.sha, endpoint=self.endpoint
            )
            lfs = one.lfs or {}
            size = lfs.get("size") if lfs else one.size
            etag = lfs.get("sha256") if lfs else one.blob_id
            if size is None or not etag:
                unclear.append(file)
            else:
                file.size, file.etag = size, etag
            files.append(file)
        if unclear:
            meant = [file for file in unclear if _concerns(place, file.name)][:_MOST_HEADS]
            self._look_at(place, meant)
            kept = {id(file) for file in meant}
            files = [file for file in files if file.etag or id(file) in kept]
        return files

    def _look_at(self, place: HubPlace, files: list[_core.HubFile]) -> None:
        """Size and ETag of files of which the listing does not say them."""
        from concurrent.futures import ThreadPoolExecutor

        token = self.token()

        def look(file: _core.HubFile) -> None:
            found = self._call(
                place,
                file.name,
                lambda: self._api.get_hf_file_metadata(
                    file.url, token=token or False, timeout=self._timeout
                ),
            )
            if found.size is None or not found.etag:
                raise SourceError(f"open {place.shown}/{file.name}: the Hub does not say its size")
            file.size, file.etag = found.size, found.etag

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(look, files))

    def _page(self, place: HubPlace) -> str:
        return f"{self.endpoint}/{place.repo}"

    def _call(self, place: HubPlace, name: str, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except Error:
            raise
        except Exception as error:
            problem = explained(error, self.token(), self._page(place))
        raise SourceError(f"open {place.shown}/{name}: {problem}")

    def _from_here(
        self, snapshot: _core.HubSnapshot, place: HubPlace, why: str
    ) -> _core.HubSnapshot:
        """From the cache alone, as `why` says."""
        snapshot.offline = why
        known = files_here(snapshot, place)
        if known is None:
            where = f"it is not in the cache {snapshot.folder}" if self.cache else _NO_CACHE
            raise SourceError(f"open {place.shown}: {where}, and {why}")
        return self._settle(snapshot, place, snapshot.commit, known)

    def _settle(
        self,
        snapshot: _core.HubSnapshot,
        place: HubPlace,
        commit: str,
        files: list[_core.HubFile],
    ) -> _core.HubSnapshot:
        """With what of the files is meant."""
        snapshot.commit = commit
        if not place.path:
            snapshot.files = files
            return snapshot
        path = place.path.rstrip("/")
        folder, _, last = path.rpartition("/")
        prefix = folder + "/" if folder else ""
        if any(letter in last for letter in "*?["):
            snapshot.prefix = prefix
            files = [
                file
                for file in files
                if file.name.startswith(prefix)
                and fnmatch.fnmatchcase(file.name[len(prefix) :], last)
            ]
        elif any(file.name == place.path for file in files):
            snapshot.prefix, snapshot.entry = prefix, last
        elif any(file.name.startswith(path + "/") for file in files):
            snapshot.prefix = path + "/"
        else:
            raise _missing(snapshot, place, files)
        if not files:
            raise _missing(snapshot, place, files)
        snapshot.files = files
        return snapshot


_NO_CACHE = "the cache is switched off"


def _is_true(value: str) -> bool:
    return value.upper() in ("1", "ON", "YES", "TRUE")


def _cache_folder(found: Mapping[str, str], otherwise: str) -> str:
    """Where huggingface_hub keeps what it downloads, as the environment has it now."""
    given = found["HF_HUB_CACHE"] or found["HUGGINGFACE_HUB_CACHE"]
    if not given and found["HF_HOME"]:
        given = os.path.join(found["HF_HOME"], "hub")
    return os.path.abspath(os.path.expanduser(os.path.expandvars(given or otherwise)))


def _concerns(place: HubPlace, name: str) -> bool:
    """Whether a file may be a part of what is meant, as far as names tell."""
    folder = place.path.rstrip("/")
    beside = name.rpartition("/")[0]
    return name == place.path or beside in (folder, folder.rpartition("/")[0])


def _missing(
    snapshot: _core.HubSnapshot, place: HubPlace, files: list[_core.HubFile]
) -> SourceError:
    if snapshot.offline:
        return SourceError(
            f"open {place.shown}/{place.path}: it is not in the cache {snapshot.folder}, and "
            f"{snapshot.offline}"
        )
    names = sorted(file.name for file in files)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return SourceError(
        f"open {place.shown}/{place.path}: no such file in the repository at commit "
        f"{snapshot.commit}, which has {', '.join(names[:_SHOWN]) or 'none'}{more}"
    )


def file_here(uri: str) -> str:
    """The path of one file of the Hub in the cache; it is downloaded if it is not there.

    Raises
    ------
    SourceError
        If there is no such file, or it cannot be had.
    UsageError
        Without huggingface_hub, or where no file is named.
    """
    place = parse_place(uri)
    if not is_installed():
        raise needs_hub(uri)
    from inrush._storage import hub_for  # which imports this

    hub = hub_for(None, [os.fsencode(uri)])
    snapshot = hub.resolve(place)
    if not snapshot.entry:
        raise UsageError(f"open {uri}: expected one file, hf://org/name[@revision]/file")
    name = snapshot.prefix + snapshot.entry
    path = next(file.path for file in snapshot.files if file.name == name)
    return path or hub.download(place, snapshot.commit, name)


def is_installed() -> bool:
    """Whether huggingface_hub can be imported."""
    return importlib.util.find_spec("huggingface_hub") is not None
