"""InstantTensor's `safe_open`, through Inrush: the arguments and the order are the same.

What it cannot do there it can here: deliver to host memory, iterate again, give single tensors
and slices, and keep views (``copy=False``) without their being overwritten.
"""

from __future__ import annotations

import fnmatch
import os
import re

from inrush import _safe_open
from inrush._checkpoint import TensorStream
from inrush._errors import SafetensorError, UsageError
from inrush._job import Job
from inrush._options import Backend, BackendPolicy, instanttensor_backend

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType
    from typing import Any

    from inrush import _core
    from inrush._arguments import Source

__all__ = ["Backend", "BackendPolicy", "safe_open"]


class _ClosedError(SafetensorError, RuntimeError):
    """The handle was left, for which InstantTensor has a RuntimeError."""


class safe_open(_safe_open.safe_open):
    """Open a checkpoint and stream its tensors by file name, then offset.

    Parameters
    ----------
    filename : str, os.PathLike or iterable of them
        A file, several, a directory, or a URI.
    framework : str
        As for `inrush.safe_open`; ``'pt'`` is InstantTensor's only one.
    device : int, str, torch.device or None
        As for `inrush.safe_open`.
    process_group : torch.distributed.ProcessGroup, optional
        None, or a group of one.
    buffer_size : int or str, optional
        Bytes of the buffer of ``copy=False``; at least what the largest tensors need, by default
        256 MiB.
    chunk_size, concurrency, io_depth, max_free_mem_usage : optional
        Accepted, and not used: how large reads are and how many are in flight follows from what
        is measured while they run.
    load_now : bool
        Whether reading begins at once, or with the first iteration.
    copy : bool or None
        True: tensors own their memory. None: they may be the file's own pages. False: views of
        a buffer whose memory is used again once a view has died; keeping so many that nothing is
        left for the next raises `inrush.MemoryBudgetError` at once.
    backend : Backend, BackendPolicy, str or list of them, optional
        Ways to read, tried in order; by default those of ``INSTANTTENSOR_BACKEND``, else chosen.
    host_fallback : bool, optional
        Accepted, and not used: a tensor larger than the buffer enlarges it.
    tensor_filter : list of str, optional
        Which tensors there are, by whole names; an empty list selects none.
    tensor_name_match_mode : {'glob', 'exact', 'regex'}
        What the filter's entries are.

    Raises
    ------
    FileNotFoundError
        If a file does not exist.
    inrush.Error
        If it is malformed, an argument is invalid, or the group has several ranks.
    """

    def __init__(
        self,
        filename: Source,
        framework: str,
        device: Any,
        process_group: Any = None,
        *,
        buffer_size: int | str | None = None,
        chunk_size: int | None = None,
        concurrency: int | None = None,
        io_depth: int | None = None,
        max_free_mem_usage: float | None = None,
        load_now: bool = True,
        copy: bool | None = True,
        backend: Any = None,
        host_fallback: bool | None = None,
        tensor_filter: list[str] | None = None,
        tensor_name_match_mode: str = "glob",
    ) -> None:
        limits = {"chunk_size": chunk_size, "concurrency": concurrency, "io_depth": io_depth}
        for word, limit in {**limits, "max_free_mem_usage": max_free_mem_usage}.items():
            if limit is not None and not (isinstance(limit, (int, float)) and limit > 0):
                raise UsageError(f"{word} {limit!r}: expected a number, more than zero")
        if max_free_mem_usage is not None and max_free_mem_usage > 1:
            raise UsageError(f"max_free_mem_usage {max_free_mem_usage!r}: expected at most 1")
        if process_group is not None and not callable(getattr(process_group, "size", None)):
            raise UsageError(f"process_group {process_group!r}: expected a ProcessGroup or None")
        if process_group is not None and process_group.size() != 1:
            raise UsageError(
                f"process_group of {process_group.size()} ranks: one that reads together is not "
                "there yet; without it every rank reads by itself, and those of one machine share "
                "the page cache"
            )
        super().__init__(
            filename,
            framework,
            device,
            backend=_named(instanttensor_backend() if backend is None else backend),
            copy=copy,
            buffer_size=buffer_size,
        )
        self.filename = filename
        self.framework = framework
        self.device = device
        self.process_group = process_group
        self.world_size = 1
        self.rank = 0
        self._selected: dict[str, None] | None = None
        if tensor_filter is not None:
            matches = _matcher(tensor_filter, tensor_name_match_mode)
            self._selected = {name: None for name in self._opened().names() if matches(name)}
            if self._selected:
                self._options.order = list(self._selected)
        self._started: list[tuple[int, Job]] = []
        if load_now and self._selected != {}:
            self._started.append((os.getpid(), self._begin()))

    def _opened(self) -> _core.Checkpoint:
        try:
            return super()._opened()
        except SafetensorError as error:
            raise _ClosedError(str(error)) from None

    def _begin(self) -> Job:
        return Job(self._opened(), self._options, collect=False)

    def _next_load(self) -> Job:
        # What was begun in the constructor serves whoever comes first; not in a forked process.
        try:
            process, job = self._started.pop()
        except IndexError:
            return self._begin()
        return job if process == os.getpid() else self._begin()

    def _info(self, name: str) -> _core.TensorInfo:
        if self._selected is not None and name not in self._selected:
            raise SafetensorError(f"File does not contain tensor {name}")
        return super()._info(name)

    def keys(self) -> list[str]:
        """The names of the tensors by file name, then offset."""
        return self.offset_keys()

    def offset_keys(self) -> list[str]:
        """The names of the tensors by file name, then offset."""
        names = super().offset_keys()
        return names if self._selected is None else list(self._selected)

    @property
    def total_tensor_size(self) -> int:
        """Bytes of all tensors."""
        if self._selected is None:
            return super().total_tensor_size
        return sum(self._info(name).nbytes for name in self._selected)

    def get_tensors(self) -> dict[str, Any]:
        """All tensors by name, loaded together."""
        return {} if self._selected == {} else super().get_tensors()

    def tensors(self) -> TensorStream:
        """All tensors by file name, then offset, streamed while they are read.

        Returns
        -------
        TensorStream
            Yields (name, tensor). Every iteration but the first reads anew.
        """
        return _Stream(self)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._started.clear()
        super().__exit__(kind, error, trace)


class _Stream(TensorStream):
    def __init__(self, opened: safe_open) -> None:
        super().__init__(opened._opened(), opened._options)
        self._handle = opened

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        if self._handle._selected == {}:
            return
        with self._handle._next_load() as job:
            yield from job


def _named(backend: Any) -> Any:
    # InstantTensor's own enumerations have these names too. In small letters two of them would be
    # safetensors' hints.
    several = isinstance(backend, (list, tuple))
    names = [getattr(one, "name", one) for one in (backend if several else (backend,))]
    names = [name.upper() if isinstance(name, str) else name for name in names]
    return names if several else names[0]


def _matcher(patterns: Any, mode: str) -> Callable[[str], object]:
    if mode not in ("glob", "exact", "regex"):
        raise UsageError(f"tensor_name_match_mode {mode!r}: expected 'glob', 'exact' or 'regex'")
    if isinstance(patterns, str) or not all(isinstance(one, str) for one in patterns):
        raise UsageError(f"tensor_filter {patterns!r}: expected a list of names or patterns")
    if mode == "exact":
        return set(patterns).__contains__
    try:
        rules = [re.compile(fnmatch.translate(one) if mode == "glob" else one) for one in patterns]
    except re.error as error:
        raise UsageError(f"tensor_filter {patterns!r}: {error}") from None
    return lambda name: any(rule.fullmatch(name) for rule in rules)
