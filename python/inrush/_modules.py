"""A checkpoint's tensors into the parameters and buffers of a torch module."""

from __future__ import annotations

import torch
from torch.nn.parameter import is_lazy

from inrush import _core, _frameworks
from inrush._arguments import existing
from inrush._checkpoint import Checkpoint, open_source
from inrush._dtypes import FRAMEWORK_NAMES
from inrush._errors import Error, UsageError
from inrush._frameworks import described
from inrush._job import Job
from inrush._options import Options
from inrush._selection import slice_text, wanted_names
from inrush._sharing import end_ptr
from inrush._state_dict import (
    MismatchError,
    has_default,
    load_through,
    own_loading,
    refuse,
    strangers,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from typing import Any

__all__ = ["Filling", "MismatchError", "Place", "opened_for", "places"]

# The words of `inrush.open` that say which tensors are wanted.
_SELECTING = {"include": None, "exclude": None, "slices": None, "order": "file", "out": None}


class Place:
    """One of a module's tensors: a parameter, or a buffer that is saved with it.

    Attributes
    ----------
    governed : bool
        Whether code of a module decides what becomes of the tensor under this name.
    """

    __slots__ = ("attribute", "governed", "module", "name", "tensor")

    def __init__(
        self, module: torch.nn.Module, attribute: str, prefix: str, *, governed: bool
    ) -> None:
        self.module = module
        self.attribute = attribute
        self.name = f"{prefix}.{attribute}" if prefix else attribute
        self.tensor = self.current
        self.governed = governed

    @property
    def current(self) -> Any:
        """What the module has there now."""
        return self._kept.get(self.attribute)

    @property
    def _kept(self) -> dict[str, Any]:
        parameters: dict[str, Any] = self.module._parameters
        return parameters if self.attribute in parameters else self.module._buffers

    def replace(self, tensor: Any) -> None:
        """Make `tensor` the module's, in place of what was there."""
        self._kept[self.attribute] = tensor

    @property
    def memory(self) -> object:
        """Equal for names of the same tensor."""
        tensor = self.tensor
        if is_lazy(tensor) or tensor.device.type == "meta" or tensor.nelement() == 0:
            return id(tensor)
        layout = (tensor.dtype, tensor.shape, tensor.stride())
        return (tensor.device, tensor.data_ptr(), layout)


def places(model: torch.nn.Module, governed: Collection[str] = ()) -> Iterator[Place]:
    """Every parameter and every persistent buffer, under each of its names.

    `governed`: the prefixes of modules that say themselves how they are loaded.
    """
    for prefix, module in model.named_modules(remove_duplicate=False):
        saved = dict(module._parameters)
        passing = module._non_persistent_buffers_set
        saved |= {name: one for name, one in module._buffers.items() if name not in passing}
        for attribute, tensor in saved.items():
            if tensor is not None:
                yield Place(module, attribute, prefix, governed=prefix in governed)


class Fitting:
    """Which tensor of a checkpoint goes where in a model, checked before anything is written.

    Attributes
    ----------
    ties : dict of str to list of Place
        Name in the checkpoint to the places of one tensor of the model.
    groups : list of list of Place
        All places, those of one tensor together.
    defaults : list of Place
        What the checkpoint lacks and torch does without.
    missing, unexpected : list of str
    """

    def __init__(self, found: Iterator[Place], names: Mapping[str, object]) -> None:
        self.ties: dict[str, list[Place]] = {}
        self.defaults: list[Place] = []
        self.missing: list[str] = []
        tied: dict[object, list[Place]] = {}
        for place in found:
            tied.setdefault(place.memory, []).append(place)
        self.groups = list(tied.values())
        for group in self.groups:
            there = sorted(place.name for place in group if place.name in names)
            if there:
                self.ties[there[0]] = group
            elif all(has_default(place) for place in group):
                self.defaults += group
            else:
                self.missing.append(min(place.name for place in group))
        self.missing.sort()
        # Other names of what is tied come last, as with safetensors.
        known = {place.name for group in self.groups for place in group}
        left = [name for name in names if name not in self.ties]
        self.unexpected = sorted(left, key=known.__contains__)


class Filling:
    """One load into a model.

    Parameters
    ----------
    model : torch.nn.Module
    core : _core.Checkpoint
    words : mapping
        strict, dtype, slices, assign: as for `load_into`.
    options : Options
        How to load, and which tensors of the checkpoint count as there.

    Attributes
    ----------
    missing, unexpected : list of str
        As of `load_into`; complete after `load`.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        core: _core.Checkpoint,
        words: Mapping[str, Any],
        options: Options,
    ) -> None:
        self.model = model
        self.core = core
        self.options = options
        self.strict = bool(words["strict"])
        self.dtype: Any = _dtype_of(words["dtype"])
        self.assign = bool(words["assign"])
        self.slices: Mapping[str, Any] = words["slices"] or {}
        self.wanted = wanted_names(core, Options({"slices": None}, options))
        self.governed = own_loading(model)
        self.fitting = Fitting(places(model, self.governed), dict.fromkeys(self.wanted))
        self.missing, self.unexpected = self.fitting.missing, self.fitting.unexpected
        self.names = [name for name in self.wanted if name in self.fitting.ties]
        early = self.strict and not self.governed
        names = strangers(self.missing, self.unexpected) if early else []
        refuse(model, [*names, *self._misfits()])

    def _misfits(self) -> Iterator[str]:
        shapes: Mapping[str, tuple[int, ...]] = {}
        if self.slices:
            texts = [(pattern, slice_text(index)) for pattern, index in self.slices.items()]
            selection = _core.select(self.core, include=[], exclude=[], slices=texts, names=[])
            shapes = selection.shapes(self.core)
        for name in self.names:
            info = self.core.find(name)
            assert info is not None
            group = self.fitting.ties[name]
            if any(place.governed for place in group):
                yield from self._without_memory(group[0])
                continue
            dtype, shape = described(info.dtype, shapes.get(name, info.shape), "pt")
            yield from self._differences(group[0], dtype, shape)

    def _differences(self, place: Place, dtype: Any, shape: Any) -> Iterator[str]:
        tensor = place.tensor
        # As torch has it, one element is a scalar too.
        if tuple(tensor.shape) not in (tuple(shape), () if tuple(shape) == (1,) else shape):
            yield (
                f"size mismatch for {place.name}: the checkpoint's is {list(shape)}, the model's "
                f"{list(tensor.shape)}"
            )
        if self.assign:
            return
        yield from self._without_memory(place)
        wanted = self._delivered(dtype, tensor.dtype)
        if wanted != tensor.dtype:
            yield (
                f"dtype mismatch for {place.name}: the checkpoint's is {wanted}, the model's "
                f"{tensor.dtype}; dtype='model' casts"
            )

    def _without_memory(self, place: Place) -> Iterator[str]:
        if not self.assign and not is_lazy(place.tensor) and place.tensor.device.type == "meta":
            yield f"{place.name} is on the meta device, without memory to fill: use assign=True"

    def _delivered(self, dtype: Any, own: Any) -> Any:
        # What a tensor of the checkpoint's `dtype` is made for a place of the model of `own`.
        if self.dtype == "model":
            return own
        return self.dtype if self.dtype is not None and dtype.is_floating_point else dtype

    def load(self) -> None:
        """Bring the bytes in: into the model's memory, or new tensors into the model."""
        if self.governed:
            self._hand_over()
        elif self.assign:
            self._assign()
        elif self.names:
            self._fill()

    def _asked(self, names: Sequence[str], **words: Any) -> Options:
        used = {pattern: cut for pattern, cut in self.slices.items() if self._used(pattern, names)}
        selecting: dict[str, Any] = {**_SELECTING, "order": self.options.order}
        if len(names) < len(self.core) or isinstance(self.options.order, list):
            selecting["order"] = list(names)
        return Options({**selecting, "framework": "pt", "slices": used, **words}, self.options)

    def _used(self, pattern: str, names: Collection[str]) -> bool:
        # A rule for tensors that are not loaded must not ask for them.
        texts = [(pattern, slice_text(self.slices[pattern]))]
        cut = _core.select(self.core, include=[pattern], exclude=[], slices=texts, names=[])
        return any(name in names for name in cut.sizes(self.core))

    def _hand_over(self) -> None:
        # What the model's code makes of a name only it knows, so it sees all of them.
        state: dict[str, Any] = {}
        if self.wanted:
            with Job(self.core, self._asked(self.wanted), collect=True) as job:
                job.confirms = True
                for name, tensor in job:
                    state[name] = self._cast(name, tensor)
        self.missing, self.unexpected = load_through(
            self.model, state, self.fitting.groups, assign=self.assign
        )
        if self.strict:
            refuse(self.model, strangers(self.missing, self.unexpected), late=True)

    def _cast(self, name: str, tensor: Any) -> Any:
        if self.dtype is None:
            return tensor
        if self.dtype != "model":
            return tensor.to(self._delivered(tensor.dtype, None))
        group = self.fitting.ties.get(name)
        known = self.assign and group is not None and not is_lazy(group[0].tensor)
        return tensor.to(group[0].tensor.dtype) if known and group is not None else tensor

    def _assign(self) -> None:
        loaded: dict[str, Any] = {}
        if self.names:
            with Job(self.core, self._asked(self.names), collect=True) as job:
                job.confirms = True
                loaded = dict(iter(job))
        for name, tensor in loaded.items():
            group = self.fitting.ties[name]
            old = group[0].tensor
            made = tensor.to(self._delivered(tensor.dtype, old.dtype)).reshape(old.shape)
            if isinstance(old, torch.nn.Parameter):
                made = torch.nn.Parameter(made, requires_grad=old.requires_grad)
            for place in group:
                place.replace(made)
        for place in self.fitting.defaults:
            if place.tensor.device.type == "meta":
                place.replace(torch.zeros((), dtype=place.tensor.dtype, device="cpu"))

    def _fill(self) -> None:
        direct = {}
        for name in self._apart():
            info = self.core.find(name)
            tensor = self.fitting.ties[name][0].tensor
            own = str(tensor.dtype) == f"torch.{FRAMEWORK_NAMES.get(info.dtype if info else '')}"
            here = tensor.device.type == "cpu" or _frameworks.device_index(tensor) is not None
            marked = tensor.is_conj() or tensor.is_neg()
            if own and here and tensor.is_contiguous() and not marked:
                direct[name] = tensor.detach()
        options = self._asked(self.names, out=direct, device=self._devices())
        written: list[str] = []
        try:
            with Job(self.core, options, collect=False) as job:
                job.confirms = True
                for name, tensor in job:
                    if name not in direct:
                        place = self.fitting.ties[name][0].tensor
                        with torch.no_grad():
                            place.copy_(tensor.reshape(place.shape))
                    written.append(name)
        except Error as error:
            told = type(error)(
                f"{error}; {len(written)} of {len(self.names)} tensors of the "
                f"{type(self.model).__name__} were written before that, and the others may be "
                "written in part"
            )
            told.written = written  # type: ignore[attr-defined]
            raise told from error

    def _devices(self) -> Any:
        # What is cast or not contiguous lands on its tensor's GPU too, and is copied there.
        devices: dict[str, Any] = {}
        for name in self.names:
            index = _frameworks.device_index(self.fitting.ties[name][0].tensor)
            devices[name] = "cpu" if index is None else f"cuda:{index}"
        return devices if any(device != "cpu" for device in devices.values()) else "cpu"

    def _apart(self) -> list[str]:
        # Memory that two tensors share in part is written by one at a time.
        spans = []
        for name in self.names:
            tensor = self.fitting.ties[name][0].tensor
            if tensor.nelement() and tensor.device.type != "meta":
                spans.append((int(tensor.data_ptr()), end_ptr(tensor), name))
        spans.sort()
        apart = []
        reach = -1
        for index, (start, end, name) in enumerate(spans):
            following = spans[index + 1][0] if index + 1 < len(spans) else end
            if start >= reach and following >= end:
                apart.append(name)
            reach = max(reach, end)
        return apart


def _dtype_of(dtype: Any) -> Any:
    named = isinstance(dtype, str) and dtype != "model"
    found = getattr(torch, dtype.removeprefix("torch."), None) if named else dtype
    if isinstance(found, torch.dtype) or dtype is None or dtype == "model":
        return found
    raise UsageError(f"dtype {dtype!r}: expected None, 'model' or a torch.dtype")


def opened_for(source: Any, words: Mapping[str, Any]) -> tuple[_core.Checkpoint, Options]:
    """The checkpoint of a path, of several, or one that is open already; and how to load it.

    Raises
    ------
    UsageError
        If `words` say where the tensors go, which the model does.
    """
    if words.get("out") is not None:
        raise UsageError("out: the memory of the model is what is filled")
    if isinstance(source, Checkpoint):
        return source._opened(), Options(words, source._options)
    options = Options(words)
    return open_source(existing(source), options), options
