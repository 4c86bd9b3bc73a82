"""A checkpoint's tensors into the parameters and buffers of a torch module."""

from __future__ import annotations

import torch

from inrush import _core, _frameworks
from inrush._arguments import existing
from inrush._checkpoint import Checkpoint, open_source
from inrush._dtypes import FRAMEWORK_NAMES
from inrush._errors import Error, UsageError
from inrush._frameworks import described
from inrush._job import Job
from inrush._options import Options
from inrush._selection import slice_text
from inrush._sharing import end_ptr

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any


class MismatchError(UsageError, RuntimeError):
    """Names, shapes or dtypes of a model and a checkpoint differ; nothing was written."""


class Place:
    """One of a module's tensors: a parameter, or a buffer that is saved with it."""

    __slots__ = ("attribute", "module", "name", "tensor")

    def __init__(self, module: torch.nn.Module, attribute: str, name: str, tensor: Any) -> None:
        self.module = module
        self.attribute = attribute
        self.name = name
        self.tensor = tensor

    def replace(self, tensor: Any) -> None:
        """Make `tensor` the module's, in place of what was there."""
        parameters = self.module._parameters
        kept = parameters if self.attribute in parameters else self.module._buffers
        kept[self.attribute] = tensor

    @property
    def memory(self) -> object:
        """Equal for names of the same tensor."""
        tensor = self.tensor
        if tensor.device.type == "meta" or tensor.nelement() == 0:
            return id(tensor)
        layout = (tensor.dtype, tensor.shape, tensor.stride())
        return (tensor.device, tensor.data_ptr(), layout)


def places(model: torch.nn.Module) -> Iterator[Place]:
    """Every parameter and every persistent buffer, under each of its names."""
    for prefix, module in model.named_modules(remove_duplicate=False):
        saved = dict(module._parameters)
        passing = module._non_persistent_buffers_set
        saved |= {name: one for name, one in module._buffers.items() if name not in passing}
        for attribute, tensor in saved.items():
            if tensor is not None:
                name = f"{prefix}.{attribute}" if prefix else attribute
                yield Place(module, attribute, name, tensor)


class Fitting:
    """Which tensor of a checkpoint goes where in a model, checked before anything is written.

    Attributes
    ----------
    ties : dict of str to list of Place
        Name in the checkpoint to the places of one tensor of the model.
    missing, unexpected : list of str
    """

    def __init__(self, model: torch.nn.Module, names: Mapping[str, object]) -> None:
        self.ties: dict[str, list[Place]] = {}
        self.missing: list[str] = []
        tied: dict[object, list[Place]] = {}
        for place in places(model):
            tied.setdefault(place.memory, []).append(place)
        for group in tied.values():
            there = sorted(place.name for place in group if place.name in names)
            if there:
                self.ties[there[0]] = group
            else:
                self.missing.append(min(place.name for place in group))
        self.missing.sort()
        self.unexpected = [name for name in names if name not in self.ties]

    def refuse_strangers(self, model: torch.nn.Module) -> None:
        """Raise MismatchError where a name of one has no tensor in the other."""
        problems = [
            f"{what} key(s) in state_dict: " + ", ".join(f'"{name}"' for name in sorted(names))
            for what, names in (("Missing", self.missing), ("Unexpected", self.unexpected))
            if names
        ]
        refuse(model, problems)


def refuse(model: torch.nn.Module, problems: list[str]) -> None:
    """Raise MismatchError if there are any, worded as torch does."""
    if problems:
        lines = "".join(f"\n    {problem}" for problem in problems)
        raise MismatchError(f"Error(s) in loading state_dict for {type(model).__name__}:{lines}")


class Filling:
    """One load into a model.

    Parameters
    ----------
    model : torch.nn.Module
    core : _core.Checkpoint
    strict, dtype, slices, assign
        As for `load_into`.
    """

    def __init__(
        self, model: torch.nn.Module, core: _core.Checkpoint, words: Mapping[str, Any]
    ) -> None:
        self.model = model
        self.core = core
        self.dtype: Any = words["dtype"]
        self.assign = bool(words["assign"])
        self.slices: Mapping[str, Any] = words["slices"] or {}
        if self.dtype not in (None, "model") and not isinstance(self.dtype, torch.dtype):
            raise UsageError(f"dtype {self.dtype!r}: expected None, 'model' or a torch.dtype")
        names = dict.fromkeys(core.names())
        self.fitting = Fitting(model, names)
        if words["strict"]:
            self.fitting.refuse_strangers(model)
        self.names = [name for name in names if name in self.fitting.ties]
        self._check()

    def _check(self) -> None:
        shapes: Mapping[str, tuple[int, ...]] = {}
        if self.slices:
            texts = [(pattern, slice_text(index)) for pattern, index in self.slices.items()]
            selection = _core.select(self.core, include=[], exclude=[], slices=texts, names=[])
            shapes = selection.shapes(self.core)
        problems: list[str] = []
        for name in self.names:
            info = self.core.find(name)
            assert info is not None
            dtype, shape = described(info.dtype, shapes.get(name, info.shape), "pt")
            for place in self.fitting.ties[name][:1]:
                problems += self._differences(place, dtype, shape)
        refuse(self.model, problems)

    def _differences(self, place: Place, dtype: Any, shape: Any) -> Iterator[str]:
        tensor = place.tensor
        if tuple(tensor.shape) != tuple(shape):
            yield (
                f"size mismatch for {place.name}: the checkpoint's is {list(shape)}, the model's "
                f"{list(tensor.shape)}"
            )
        if self.assign:
            return
        if tensor.device.type == "meta":
            yield f"{place.name} is on the meta device, without memory to fill: use assign=True"
        wanted = self._delivered(dtype, tensor.dtype)
        if wanted != tensor.dtype:
            yield (
                f"dtype mismatch for {place.name}: the checkpoint's is {wanted}, the model's "
                f"{tensor.dtype}; dtype='model' casts"
            )

    def _delivered(self, dtype: Any, own: Any) -> Any:
        # What a tensor of the checkpoint's `dtype` is made for a place of the model of `own`.
        if self.dtype == "model":
            return own
        return self.dtype if self.dtype is not None and dtype.is_floating_point else dtype

    def load(self, words: Mapping[str, Any]) -> None:
        """Bring the bytes in: into the model's memory, or new tensors into the model."""
        slices = {pattern: index for pattern, index in self.slices.items() if self._used(pattern)}
        everything = len(self.names) == len(self.core)
        asked = {**words, "framework": "pt", "slices": slices}
        asked |= {} if everything else {"order": self.names}
        if not self.names:
            return
        if self.assign:
            self._assign(Options(asked))
        else:
            self._fill(asked)

    def _used(self, pattern: str) -> bool:
        # A rule for tensors that the model does not have must not ask for them.
        texts = [(pattern, slice_text(self.slices[pattern]))]
        cut = _core.select(self.core, include=[pattern], exclude=[], slices=texts, names=[])
        return any(name in self.fitting.ties for name in cut.sizes(self.core))

    def _assign(self, options: Options) -> None:
        with Job(self.core, options, collect=True) as job:
            loaded = dict(iter(job))
        for name, tensor in loaded.items():
            group = self.fitting.ties[name]
            old = group[0].tensor
            made = tensor.to(self._delivered(tensor.dtype, old.dtype))
            if isinstance(old, torch.nn.Parameter):
                made = torch.nn.Parameter(made, requires_grad=old.requires_grad)
            for place in group:
                place.replace(made)

    def _fill(self, words: dict[str, Any]) -> None:
        direct = {}
        for name in self._apart():
            info = self.core.find(name)
            tensor = self.fitting.ties[name][0].tensor
            own = str(tensor.dtype) == f"torch.{FRAMEWORK_NAMES.get(info.dtype if info else '')}"
            here = tensor.device.type == "cpu" or _frameworks.device_index(tensor) is not None
            if own and here and tensor.is_contiguous():
                direct[name] = tensor.detach()
        devices = self._devices()
        if devices is not None:
            words = {**words, "device": devices}
        written: list[str] = []
        try:
            with Job(self.core, Options({**words, "out": direct}), collect=False) as job:
                for name, tensor in job:
                    if name not in direct:
                        with torch.no_grad():
                            self.fitting.ties[name][0].tensor.copy_(tensor)
                    written.append(name)
        except Error as error:
            told = type(error)(
                f"{error}; {len(written)} of {len(self.names)} tensors of the "
                f"{type(self.model).__name__} were written before that, and the others may be "
                "written in part"
            )
            told.written = written  # type: ignore[attr-defined]
            raise told from error

    def _devices(self) -> dict[str, Any] | None:
        # What is cast or not contiguous lands on its tensor's GPU too, and is copied there.
        devices: dict[str, Any] = {}
        for name in self.names:
            index = _frameworks.device_index(self.fitting.ties[name][0].tensor)
            devices[name] = "cpu" if index is None else f"cuda:{index}"
        return devices if any(device != "cpu" for device in devices.values()) else None

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


def opened_for(source: Any, options: Mapping[str, Any]) -> _core.Checkpoint:
    """The checkpoint of a path, of several, or one that is open already."""
    if isinstance(source, Checkpoint):
        return source._opened()
    return open_source(existing(source), Options({**options}))
