"""A checkpoint as a mapping from names to what is known of each tensor, and the ways to load it."""

from __future__ import annotations

import os
from collections.abc import Mapping

from inrush import _core
from inrush._errors import SourceError, UsageError, WrongTypeError
from inrush._frameworks import converter
from inrush._job import Job
from inrush._options import Options
from inrush._selection import exactly
from inrush._slicing import basic_index, parse_slice
from inrush._storage import fetch_refused, storage_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType
    from typing import Any

    from typing_extensions import Unpack

    from inrush._options import OptionWords

    Source = str | os.PathLike[str]


class TensorStream:
    """The tensors of a checkpoint, streamed while they are read: iterate over (name, tensor).

    Every iteration is a load of its own. One that is left early is cancelled.
    """

    def __init__(self, checkpoint: _core.Checkpoint, options: Options) -> None:
        self._checkpoint = checkpoint
        self._options = options

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        with Job(self._checkpoint, self._options, collect=False) as job:
            yield from job


class Checkpoint(Mapping[str, _core.TensorInfo]):
    """An opened checkpoint: a mapping from tensor names, in file order, to `TensorInfo`.

    The mapping shows the whole checkpoint; options say what of it is loaded. Made by
    `inrush.open`. Any thread may use it, and so may a process forked from this one.

    Parameters
    ----------
    source : str, os.PathLike or iterable of them
        A directory, a file, a URI, or several files.
    **options
        As for `inrush.open`; the methods that load take them too, and theirs win.
    """

    def __init__(self, source: Source | Iterable[Source], **options: Unpack[OptionWords]) -> None:
        self._options = Options(options)
        self._core: _core.Checkpoint | None = open_source(source, self._options)
        self._view: _core.View | None = None

    def _opened(self) -> _core.Checkpoint:
        if self._core is None:
            raise UsageError("the checkpoint is closed")
        return self._core

    def __getitem__(self, name: str) -> _core.TensorInfo:
        info = self._opened().find(name) if isinstance(name, str) else None
        if info is None:
            raise KeyError(name)
        return info

    def __iter__(self) -> Iterator[str]:
        return iter(self._opened().names())

    def __len__(self) -> int:
        return len(self._opened())

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._opened().find(name) is not None

    @property
    def uri(self) -> str:
        """Where it lies."""
        return self._opened().uri

    @property
    def format(self) -> str:
        """The format's name, such as ``'safetensors'``."""
        return self._opened().format

    @property
    def files(self) -> list[tuple[str, int]]:
        """(name, size in bytes) of each file, sorted by name."""
        return self._opened().files

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return self._opened().nbytes

    @property
    def metadata(self) -> dict[str, str]:
        """The metadata of all files; where two have the same key, the first file's."""
        merged: dict[str, str] = {}
        for one in self._opened().metadata:
            for key, value in (one or {}).items():
                merged.setdefault(key, value)
        return merged

    @property
    def file_metadata(self) -> dict[str, dict[str, str] | None]:
        """The metadata of each file by its name; None where a file has none."""
        core = self._opened()
        return {name: one for (name, _), one in zip(core.files, core.metadata, strict=True)}

    def tensors(self, **options: Unpack[OptionWords]) -> TensorStream:
        """The wanted tensors, streamed in order while they are read.

        Returns
        -------
        TensorStream
            Yields (name, tensor); reading begins with each iteration and ends when it is left.
        """
        return TensorStream(self._opened(), Options(options, self._options))

    def load(self, **options: Unpack[OptionWords]) -> dict[str, Any]:
        """The wanted tensors by name, all of them in memory.

        Raises
        ------
        DataError
            The bytes are wrong: malformed, truncated, or changed while they were read.
        UsageError
            No tensor or backend fits the options.
        SourceError
            The source is unreachable or refuses.
        MemoryBudgetError
            The budget is too small, or memory ran out.
        """
        with self.start(**options) as job:
            return dict(iter(job))

    def start(self, **options: Unpack[OptionWords]) -> Job:
        """Begin to load in the background at once."""
        return Job(self._opened(), Options(options, self._options), collect=True)

    def tensor(self, name: str, index: Any = None, **options: Unpack[OptionWords]) -> Any:
        """One tensor, or a part of it, read now.

        A local file that may be mapped is mapped, and the tensor is a view of its pages, so that
        tensors of a model larger than memory can be used one by one. What the checkpoint was
        opened with for whole loads (include, exclude, slices, order, out) does not matter here.

        Parameters
        ----------
        name : str
            As the mapping has it.
        index : slice, int, tuple of them or str, optional
            The part: only its bytes are read.

        Raises
        ------
        KeyError
            If there is no tensor of that name.
        """
        info = self[name]
        if Options(options, self._options).device is not None:
            return self._delivered(info, index, options)
        convert = converter(options.get("framework", self._options.framework))
        tensor = self._whole(info, options) if index is None else self._part(info, index, options)
        return tensor if convert is None else convert(tensor)

    def _whole(self, info: _core.TensorInfo, options: OptionWords) -> _core.Tensor:
        chosen = Options({**options, **one_tensor(info.name)}, self._options)
        mapped = None
        unchecked = chosen.verify == "none" and chosen.manifest is None
        if chosen.mapping == "auto" and not chosen.backend and unchecked:
            mapped = self._mapped(info)
        return self._only(chosen) if mapped is None else mapped

    def _part(self, info: _core.TensorInfo, index: Any, options: OptionWords) -> _core.Tensor:
        part = basic_index(parse_slice(index) if isinstance(index, str) else index, info.shape)
        if part is None:
            raise UsageError(f"index {index!r}: expected slices and integers")
        words = {**options, **one_tensor(info.name, part.slices)}
        return self._only(Options(words, self._options)).reshape(part.shape)

    def _delivered(self, info: _core.TensorInfo, index: Any, options: OptionWords) -> Any:
        # On a device nothing is mapped.
        text = isinstance(index, str)
        part = (
            None
            if index is None
            else basic_index(parse_slice(index) if text else index, info.shape)
        )
        if part is None and index is not None:
            raise UsageError(f"index {index!r}: expected slices and integers")
        words = {**one_tensor(info.name, None if part is None else part.slices)}
        words["framework"] = options.get("framework", self._options.framework)
        with Job(self._opened(), Options({**options, **words}, self._options), collect=True) as job:
            tensor = next(iter(job))[1]
        return tensor if part is None else tensor.reshape(part.shape)

    def _only(self, options: Options) -> _core.Tensor:
        with Job(self._opened(), options, collect=True) as job:
            tensor: _core.Tensor = next(iter(job))[1]
        return tensor

    def _mapped(self, info: _core.TensorInfo) -> _core.Tensor | None:
        if self._view is None:
            self._view = _core.View(self._opened())
        return self._view.tensor(info)

    def confirm(self, timeout: float | None = None) -> bool:
        """Wait until what was loaded was compared with the digests that its place names.

        The Hugging Face Hub names one of each file, and computing it may take longer than a fast
        load. What is found wrong after a load's end is logged, too, as an error.

        Parameters
        ----------
        timeout : float, optional
            Seconds; None waits as long as it takes.

        Returns
        -------
        bool
            False if the timeout passed first.

        Raises
        ------
        DataError
            They differ: what was loaded is wrong, and is not kept.
        """
        return self._opened().confirm(timeout)

    def close(self) -> None:
        """Close the files. Tensors and jobs live on; everything else raises `UsageError`."""
        self._options.derived.clear()
        self._core = None
        self._view = None

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        if self._core is None:
            return "<inrush.Checkpoint, closed>"
        return f"<inrush.Checkpoint {self.uri!r}: {len(self)} tensors, {self.nbytes / 1e9:.2f} GB>"


def one_tensor(name: str, slices: Any = None) -> dict[str, Any]:
    """Options that load one tensor, or a part of it, as a `Tensor`."""
    return {
        "framework": None,
        "include": None,
        "exclude": None,
        "slices": {exactly(name): slices} if slices else None,
        "order": [name],
        "out": None,
    }


def open_source(
    source: Source | Iterable[Source], options: Options | None = None
) -> _core.Checkpoint:
    """Open one place (and its mirrors), or several files as one checkpoint."""
    options = options or Options({})
    if isinstance(source, (str, bytes, os.PathLike)):
        one = place_of(source)
        if one != os.fsencode(source):
            demand_hub(str(source))
        try:
            return _opened([one, *options.mirrors], options, _open_one)
        except SourceError as error:
            if one == os.fsencode(source):
                raise
            why = f"{error}; nor is there a file or folder {source!r} here"
        raise SourceError(why)
    if options.mirrors:
        raise UsageError("mirrors: they are of one place, and several files were given")
    try:
        paths = [place_of(path) for path in source]
    except TypeError:
        raise WrongTypeError(
            f"source {source!r}: expected a path, a URI, or a list of paths"
        ) from None
    return _opened(paths, options, _core.Checkpoint.open_files)


def demand_hub(model: str) -> None:
    """Raise `SourceError` for what may be a model's id or a wrong path, without the package."""
    from inrush._hub import EXTRA, is_installed

    if not is_installed():
        raise SourceError(
            f"open {model}: no such file or folder; as the id of a model of the Hugging Face Hub "
            f"it needs huggingface_hub, which is missing: {EXTRA}"
        )


def place_of(source: Source) -> bytes:
    """A path or a URI; ``hf://...`` for the id of a model, where nothing here is called so."""
    if isinstance(source, str) and "/" in source and not os.path.lexists(source):
        from inrush._hub import SCHEME, is_model_id  # few need it, and importing it takes time

        if is_model_id(source):
            return os.fsencode(SCHEME + source)
    return os.fsencode(source)


def is_on_hub(source: Source) -> bool:
    """Whether it is a place on the Hugging Face Hub, or a model's id."""
    return place_of(source).lower().startswith(b"hf://")


def _open_one(places: list[bytes], storage: _core.StorageOptions) -> _core.Checkpoint:
    return _core.Checkpoint.open(places[0], storage, places[1:])


def _opened(
    places: list[bytes],
    options: Options,
    open_with: Callable[[list[bytes], _core.StorageOptions], _core.Checkpoint],
) -> _core.Checkpoint:
    fetched: set[tuple[bytes, str]] = set()
    while True:
        storage = storage_for(places, options.storage_options)
        storage.keep_in(options.cache_dir, options.cache_size)
        try:
            return open_with(places, storage)
        except SourceError:
            if not fetch_refused(storage, places, options.storage_options, fetched):
                raise
