"""`torch.save` and `torch.load` with the bytes of all storages in a `.tensors` file beside.

The file that torch writes has, in a storage's place, a persistent id that tensorizer knows:
``("TensorizerPickler", 0, "storage", number, dtype)``; the number is that of a one-dimensional
tensor of bytes in the list that the other file holds. Tensors that share a storage still do after
they were loaded.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import io
import logging
import os
import pickle
import threading
import types
import typing

import torch

from inrush.tensorizer._deserializer import TensorDeserializer
from inrush.tensorizer._serializer import TensorSerializer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

__all__ = ("tensorizer_loading", "tensorizer_saving")

logger = logging.getLogger(__name__)

_FileLike: typing.TypeAlias = "str | os.PathLike[str] | typing.IO[bytes]"
_MARK = "TensorizerPickler"
_VERSION = 0
_SUFFIX = ".tensors"


class _Way(typing.NamedTuple):
    """What a context manager was given."""

    place: Any  # a file, a path, a callable that makes one from torch's `f`, or None
    function: Callable[..., Any] | None
    words: dict[str, Any]
    any_pickle: bool = False  # weights_only=True is taken for False

    def beside(self, f: Any) -> Any:
        """Where the tensors lie when torch uses `f`; None for inside of it."""
        if callable(self.place):
            return self.place(f)
        if self.place is not None:
            return self.place
        if isinstance(f, io.BytesIO):
            logger.warning("a BytesIO has no name to put %s beside: torch does it alone", _SUFFIX)
            return None
        name = f if isinstance(f, (str, bytes, os.PathLike)) else f.name
        return os.fsdecode(name) + _SUFFIX


class _Current(typing.NamedTuple):
    """A call of torch's that goes on."""

    way: _Way
    place: Any


_way_to_save: contextvars.ContextVar[_Way | None] = contextvars.ContextVar("save", default=None)
_way_to_load: contextvars.ContextVar[_Way | None] = contextvars.ContextVar("load", default=None)
_current: contextvars.ContextVar[_Current | None] = contextvars.ContextVar("call", default=None)


def _bytes_in(storage: Any) -> torch.Tensor | None:
    """All bytes of a storage as a tensor that is a view of it; None where it has none."""
    untyped = storage if isinstance(storage, torch.UntypedStorage) else storage._untyped_storage
    if untyped.device.type == "meta" or untyped.data_ptr() == 0:
        return None
    return torch.empty(0, dtype=torch.uint8, device=untyped.device).set_(untyped)


class _Pickler(pickle.Pickler):
    """What torch derives its pickler from; storages go to the other file."""

    def __init__(self, *arguments: Any, **words: Any) -> None:
        super().__init__(*arguments, **words)
        self._call = _current.get()
        self._storages: list[torch.Tensor] = []  # also keeps their addresses from being used anew
        self._numbers: dict[tuple[str, int, int], int] = {}
        self._torchs: Callable[[Any], Any] = lambda _: None

    def __init_subclass__(cls, **words: Any) -> None:
        super().__init_subclass__(**words)
        torchs = cls.__dict__.get("persistent_id")
        if torchs is not None:
            own = _Pickler.persistent_id
            cls.persistent_id = (  # type: ignore[method-assign]
                lambda self, obj: own(self, obj) or torchs(self, obj)
            )

    def __setattr__(self, name: str, value: Any) -> None:
        # torch's old format sets it on the instance.
        super().__setattr__("_torchs" if name == "persistent_id" else name, value)

    def persistent_id(self, obj: Any) -> Any:
        if self._call is not None and self._call.place is not None and torch.is_storage(obj):
            data = _bytes_in(obj)
            if data is not None:
                dtype = getattr(obj, "dtype", None)
                return (_MARK, _VERSION, "storage", self._number(data), dtype)
        return self._torchs(obj)

    def _number(self, data: torch.Tensor) -> int:
        key = (str(data.device), data.data_ptr(), data.numel())
        number = self._numbers.setdefault(key, len(self._storages))
        if number == len(self._storages):
            self._storages.append(data)
        return number

    def dump(self, obj: Any) -> None:
        super().dump(obj)
        if not self._storages or self._call is None:
            return
        way, place = self._call
        storages, self._storages = self._storages, []
        self._numbers.clear()
        if way.function is not None:
            way.function(place, storages, way.words)
            return
        serializer = TensorSerializer(place, **way.words)
        serializer.write_state_dict(storages)
        serializer.close()


class _Unpickler(pickle.Unpickler):
    """What torch derives its unpickler from; storages come from the other file."""

    def __init__(self, *arguments: Any, **words: Any) -> None:
        super().__init__(*arguments, **words)
        self._call = _current.get()
        self._storages: list[torch.Tensor] | None = None

    def __init_subclass__(cls, **words: Any) -> None:
        super().__init_subclass__(**words)
        torchs = cls.__dict__.get("persistent_load")
        if torchs is not None:
            own = _Unpickler._load_marked
            cls.persistent_load = (  # type: ignore[method-assign]
                lambda self, pid: own(self, pid) if _is_marked(pid) else torchs(self, pid)
            )

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__("_torchs" if name == "persistent_load" else name, value)

    def persistent_load(self, pid: Any) -> Any:
        if _is_marked(pid):
            return self._load_marked(pid)
        torchs = getattr(self, "_torchs", None)
        if torchs is None:
            raise pickle.UnpicklingError("a persistent id that nobody knows")
        return torchs(pid)

    def _load_marked(self, pid: tuple[Any, ...]) -> Any:
        if self._call is None or self._call.place is None:
            raise pickle.UnpicklingError("the storages lie in a file that nobody named")
        if len(pid) != 5 or pid[1] != _VERSION or pid[2] != "storage":
            raise pickle.UnpicklingError(f"a storage of a kind that is not known: {pid[1:3]}")
        if self._storages is None:
            self._storages = self._loaded(*self._call)
        _, _, _, number, dtype = pid
        if not 0 <= number < len(self._storages):
            raise pickle.UnpicklingError(f"storage {number} of {len(self._storages)}")
        made: Any = torch.TypedStorage
        return made(
            wrap_storage=self._storages[number].untyped_storage(),
            dtype=torch.uint8 if dtype is None else dtype,
            _internal=True,
        )

    @staticmethod
    def _loaded(way: _Way, place: Any) -> list[torch.Tensor]:
        if way.function is not None:
            return list(way.function(place, way.words))
        with TensorDeserializer(place, **way.words) as found:
            tree: Any = found.tree()
        return list(tree)


def _is_marked(pid: Any) -> bool:
    return isinstance(pid, tuple) and len(pid) >= 3 and pid[0] == _MARK


class _PickleModule(types.ModuleType):
    """`pickle` with the two classes above: torch takes a module."""

    Pickler = _Pickler
    Unpickler = _Unpickler

    def __getattr__(self, name: str) -> Any:
        return getattr(pickle, name)


_pickle_module = _PickleModule("tensorizer_pickle")
_torch_save = torch.save
_torch_load = torch.load
# torch.load's default of pickle_module, by the name that tensorizer's tests know.
globals()["_LOAD_WRAPPER_DEFAULT_MODULE"] = None


def _check_module(module: Any) -> None:
    if module is not None and module is not pickle:
        raise ValueError("pickle_module: within this context it cannot be chosen")


@contextlib.contextmanager
def _calling(way: _Way, f: Any) -> Iterator[None]:
    token = _current.set(_Current(way, way.beside(f)))
    try:
        yield
    finally:
        _current.reset(token)


@functools.wraps(_torch_save)
def _save(obj: Any, f: Any, pickle_module: Any = pickle, *args: Any, **words: Any) -> Any:
    way = _way_to_save.get()
    if way is None:
        return _torch_save(obj, f, pickle_module, *args, **words)
    _check_module(pickle_module)
    with _calling(way, f):
        return _torch_save(obj, f, _pickle_module, *args, **words)


@functools.wraps(_torch_load)
def _load(
    f: Any, map_location: Any = None, pickle_module: Any = None, *args: Any, **words: Any
) -> Any:
    way = _way_to_load.get()
    if way is None:
        return _torch_load(f, map_location, pickle_module, *args, **words)
    _check_module(pickle_module)
    if way.any_pickle:
        words["weights_only"] = False
    with _calling(way, f):
        return _torch_load(f, map_location, _pickle_module, *args, **words)


class _Patch:
    """A function of torch's, replaced while at least one context is open in any thread."""

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self._name = name
        self._function = function
        self._lock = threading.Lock()
        self._users = 0
        self._replaced: Any = None

    def __enter__(self) -> None:
        with self._lock:
            if self._users == 0:
                self._replaced = getattr(torch, self._name)
                setattr(torch, self._name, self._function)
            self._users += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                setattr(torch, self._name, self._replaced)


_save_patch = _Patch("save", _save)
_load_patch = _Patch("load", _load)


@contextlib.contextmanager
def _in_effect(
    variable: contextvars.ContextVar[_Way | None], way: _Way, patch: _Patch
) -> Iterator[None]:
    token = variable.set(way)
    try:
        with patch:
            yield
    finally:
        variable.reset(token)


def tensorizer_saving(
    file_obj: Any = None,
    *,
    save_func: Callable[[Any, Iterable[torch.Tensor], dict[str, Any]], object] | None = None,
    **kwargs: Any,
) -> contextlib.AbstractContextManager[None]:
    """A context in which `torch.save` puts the bytes of storages into a `.tensors` file.

    It holds for this thread, or this asynchronous task, alone.

    Parameters
    ----------
    file_obj : str, os.PathLike, binary file or callable, optional
        That file, or what makes it from the `f` that `torch.save` was given; None from such a
        callable leaves all to torch. Default: the name of `f` and ``.tensors``.
    save_func : callable, optional
        Called with (file_obj, tensors, kwargs) instead of a `TensorSerializer`.
    **kwargs
        For the `TensorSerializer`.
    """
    return _in_effect(_way_to_save, _Way(file_obj, save_func, kwargs), _save_patch)


def tensorizer_loading(
    file_obj: Any = None,
    *,
    load_func: Callable[[Any, dict[str, Any]], Iterable[torch.Tensor]] | None = None,
    suppress_weights_only: bool = False,
    **kwargs: Any,
) -> contextlib.AbstractContextManager[None]:
    """A context in which `torch.load` takes the bytes of storages from a `.tensors` file.

    It holds for this thread, or this asynchronous task, alone. As in tensorizer, torch then
    executes what the pickle says unless ``weights_only=True``, which it refuses.

    Parameters
    ----------
    file_obj : str, os.PathLike, binary file or callable, optional
        As for `tensorizer_saving`.
    load_func : callable, optional
        Called with (file_obj, kwargs) instead of a `TensorDeserializer`; it gives the tensors.
    suppress_weights_only : bool
        Take ``weights_only=True`` for False.
    **kwargs
        For the `TensorDeserializer`.
    """
    way = _Way(file_obj, load_func, kwargs, suppress_weights_only)
    return _in_effect(_way_to_load, way, _load_patch)
