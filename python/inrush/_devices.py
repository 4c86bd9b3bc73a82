"""Where tensors go: host memory, the memory of GPUs, or wherever torch moves them afterwards."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping

from inrush import _core, _frameworks
from inrush._errors import MemoryBudgetError, UsageError
from inrush._frameworks import described, framework_of
from inrush._slicing import strides_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from inrush._options import Options

    Request = tuple[str, str, tuple[int, ...], int, int]
    Places = list[tuple[int, int]]  # index of a request, offset in the block

# Tensors smaller than this that are asked for together share blocks, which are no larger than that
# and than they need: torch's own allocator does the same with what it gives for small tensors.
_SMALL = 512 << 10
_BLOCK = 2 << 20
_ALIGNMENT = 256
_LEAST_ALIGNMENT = 16

_NATIVE = re.compile(r"(cuda|hip)(?::(\d+))?")


class Delivery:
    """The devices of one load, and the memory that its tensors get there.

    Attributes
    ----------
    devices : list of str
        As the engine names them: ``'cuda:0'``, ``'hip:1'``, ``'cpu'``.
    places : dict of str to int
        Index into `devices` by tensor name; empty where all go to the first.
    memory : TorchMemory or None
        None where the driver gives it.
    """

    def __init__(self, devices: list[str], places: dict[str, int], framework: str | None) -> None:
        self.devices = devices
        self.places = places
        self.memory = torch_memory(devices, places) if framework == "pt" else None

    def ask(self, asked: _core.LoadOptions) -> None:
        """Tell the engine."""
        memory = self.memory
        asked.deliver_to(
            self.devices,
            self.places,
            None if memory is None else memory.allocate,
            None if memory is None else memory.stream,
        )


def delivery_of(
    checkpoint: _core.Checkpoint, options: Options, device: Any
) -> tuple[Delivery | None, Any]:
    """How tensors get to a device: by the engine, or by torch from host memory, or not at all.

    Parameters
    ----------
    checkpoint : _core.Checkpoint
    options : Options
    device : str, int, torch.device, mapping of them, or None
        A mapping goes from names, or what they begin with, to devices.

    Returns
    -------
    delivery : Delivery or None
    moved_to : device or None
        What torch's ``.to`` takes: accelerators that the engine does not know, and tensors whose
        bytes are decoded on the host.

    Raises
    ------
    UsageError
        If the framework's arrays are not on devices, or a tensor has no device.
    """
    framework = framework_of(options.framework)
    index_of = _frameworks.device_index
    on_device = [name for name, array in options.out.items() if index_of(array) is not None]
    if device is None and not on_device:
        return None, None
    if framework not in (None, "pt"):
        raise UsageError(f"device {device}: framework {framework} takes tensors in host memory")
    if isinstance(device, Mapping):
        return _mapped(checkpoint, options, device, framework), None
    native = native_name(device)
    if native is None and device is not None:
        if framework is None:
            raise UsageError(f"device {device}: only torch moves tensors there (framework='pt')")
        return None, device
    if _is_read_by_host(checkpoint, options):
        if framework is None or on_device:
            raise UsageError(
                f"device {device}: what is checked or decrypted is read by the host; load it with "
                "device='cpu', or with framework='pt', which moves it"
            )
        return None, device
    devices = [native or "cpu"]
    for name in on_device:
        devices.append(_device_name(options.out[name]))
    return Delivery(list(dict.fromkeys(devices)), {}, framework), None


def _is_read_by_host(checkpoint: _core.Checkpoint, options: Options) -> bool:
    """Whether what is delivered is decrypted or compared first."""
    checked = options.verify != "none" or options.manifest is not None
    return checked or options.key is not None or checkpoint.encrypted


def _mapped(
    checkpoint: _core.Checkpoint,
    options: Options,
    mapping: Mapping[str, Any],
    framework: str | None,
) -> Delivery:
    if _is_read_by_host(checkpoint, options):
        raise UsageError("device: what is checked or decrypted goes to one device, not to several")
    devices: dict[str, int] = {}
    indices = {}
    for key, device in mapping.items():
        name = "cpu" if device in (None, "cpu") else native_name(device)
        if name is None:
            raise UsageError(f"device[{key!r}]: {device} is neither cpu nor a GPU's")
        indices[key] = devices.setdefault(name, len(devices))
    places = {}
    for tensor in checkpoint.names():
        owner = _owner(tensor, indices)
        if owner is not None:
            places[tensor] = indices[owner]
    from inrush._selection import wanted_names

    lost = [name for name in wanted_names(checkpoint, options) if name not in places]
    if lost:
        raise UsageError(f"device: the mapping says nothing of {lost[0]!r} ({len(lost)} in all)")
    return Delivery(list(devices), places, framework)


def _owner(tensor: str, keys: Mapping[str, int]) -> str | None:
    # accelerate's rule: the longest of the names of modules that a tensor's name begins with.
    name = tensor
    while True:
        if name in keys:
            return name
        if not name:
            return None
        name = name.rpartition(".")[0]


def native_name(device: Any) -> str | None:
    """The engine's name of a GPU, such as ``'cuda:0'``; None for everything else."""
    torch = sys.modules.get("torch")
    if isinstance(device, int) and not isinstance(device, bool):
        kind, index = _accelerator(torch), device
    else:
        match = _NATIVE.fullmatch(str(device))
        if match is None:
            return None
        kind = match[1]
        index = int(match[2]) if match[2] else _current(torch)
    if kind == "cuda" and _is_rocm(torch):
        kind = "hip"
    return f"{kind}:{index}" if kind in ("cuda", "hip") else None


def _is_rocm(torch: Any) -> bool:
    # torch calls ROCm's devices cuda too.
    if torch is not None:
        return bool(torch.version.hip)
    return not _usable("cuda") and _usable("hip")


def _accelerator(torch: Any) -> str:
    if torch is None or torch.cuda.is_available():
        return "cuda"
    ask = getattr(getattr(torch, "accelerator", None), "current_accelerator", None)
    found = ask() if ask is not None else None
    return "cuda" if found is None else str(found.type)


def _current(torch: Any) -> int:
    if torch is None or not torch.cuda.is_available():
        return 0
    return int(torch.cuda.current_device())


def _usable(vendor: str) -> bool:
    return any(one.vendor == vendor and not one.reason for one in _core.drivers())


def _device_name(array: Any) -> str:
    name = native_name(f"cuda:{_frameworks.device_index(array)}")
    assert name is not None
    return name


def torch_memory(devices: list[str], places: Mapping[str, int]) -> TorchMemory:
    """Memory of torch's own allocators for the tensors of one load.

    Raises
    ------
    UsageError
        If torch has no GPU here.
    """
    import torch

    if not torch.cuda.is_available():
        wanted = next((name for name in devices if name != "cpu"), devices[0])
        raise UsageError(
            f"device {wanted}: torch {torch.__version__} sees no GPU here; framework=None needs "
            "no torch"
        )
    return TorchMemory(devices, places)


class TorchMemory:
    """torch's allocators as the engine's: asked on the thread that asks for tensors, so that
    whatever pool is active there is used. The tensors are torch's own from the beginning.

    Parameters
    ----------
    devices : list of str
        As the engine names them.
    places : mapping of str to int
        Index into `devices` by tensor name; empty where all go to the first.
    """

    def __init__(self, devices: list[str], places: Mapping[str, int]) -> None:
        self._indices = [int(name.partition(":")[2] or -1) for name in devices]
        self._places = places
        self._tensors: dict[str, Any] = {}
        self._forms: dict[tuple[str, tuple[int, ...]], tuple[Any, Any, list[int], int]] = {}

    def take(self, name: str) -> Any:
        """The tensor of that name, which is the caller's from now on."""
        return self._tensors.pop(name)

    def stream(self, device: int) -> int:
        """The handle of the stream that this thread works on."""
        import torch

        # Without a Stream made for it, where torch has that: its own compiled code asks so too.
        ask = getattr(torch._C, "_cuda_getCurrentRawStream", None)
        return int(ask(device) if ask else torch.cuda.current_stream(device).cuda_stream)

    def empty(self, shape: Any, dtype: Any, device: int) -> Any:
        """Memory for a tensor, not yet filled; device -1 is the host."""
        import torch

        where = "cpu" if device < 0 else f"cuda:{device}"
        return torch.empty(shape, dtype=dtype, device=where)

    def _given(self, request: Request, shape: Any, dtype: Any, device: int) -> Any:
        try:
            return self.empty(shape, dtype, device)
        except RuntimeError as error:  # torch.OutOfMemoryError is one
            place = "the host" if device < 0 else f"cuda:{device}"
            raise MemoryBudgetError(
                f"allocate tensor {request[0]}, {request[3]} bytes, on {place} with torch's "
                f"allocator (no part of the budget, which is of staging): {error}"
            ) from error

    def allocate(self, requests: list[Request]) -> list[tuple[int, int, Any]]:
        """(address, device, owner) for each request."""
        answers: dict[int, tuple[int, int, Any]] = {}
        for device, places in self._shared(requests):
            if len(places) == 1:
                index = places[0][0]
                answers[index] = self._own(requests[index], device)
            else:
                self._packed(requests, device, places, answers)
        return [answers[index] for index in range(len(requests))]

    def _shared(self, requests: list[Request]) -> list[tuple[int, Places]]:
        """Which requests share memory: the device, and the places there."""
        groups: list[tuple[int, Places]] = []
        blocks: dict[int, Block] = {}
        for index, (name, _, _, nbytes, file_offset) in enumerate(requests):
            device = self._indices[self._places[name] if self._places else 0]
            if device < 0 or not 0 < nbytes < _SMALL:
                groups.append((device, [(index, 0)]))
                continue
            block = blocks.get(device)
            offset = -1 if block is None else block.offset_for(nbytes, file_offset)
            if block is None or offset < 0:
                block, offset = Block(), 0
                blocks[device] = block
                groups.append((device, block.places))
            block.places.append((index, offset))
            block.end = offset + nbytes
            block.last = (offset, file_offset)
        return groups

    def _own(self, request: Request, device: int) -> tuple[int, int, Any]:
        name, dtype, shape, _, _ = request
        torch_dtype, torch_shape = described(dtype, shape, "pt")
        tensor = self._tensors[name] = self._given(request, torch_shape, torch_dtype, device)
        return tensor.data_ptr(), device, tensor

    def _packed(
        self,
        requests: list[Request],
        device: int,
        places: Places,
        answers: dict[int, tuple[int, int, Any]],
    ) -> None:
        import torch

        last, offset = places[-1]
        # Whole elements of every type.
        size = -(-(offset + requests[last][3]) // _LEAST_ALIGNMENT) * _LEAST_ALIGNMENT
        memory = self._given(requests[places[0][0]], (size,), torch.uint8, device)
        address = int(memory.data_ptr())
        typed: dict[Any, Any] = {}  # the block as elements of each type
        for index, offset in places:
            name, dtype, shape, _, _ = requests[index]
            torch_dtype, torch_shape, strides, itemsize = self._form(dtype, shape)
            elements = typed.get(torch_dtype)
            if elements is None:
                elements = typed[torch_dtype] = memory.view(torch_dtype)
            # One call of torch: a slice and two views of it take three times as long.
            self._tensors[name] = torch.as_strided(
                elements, torch_shape, strides, offset // itemsize
            )
            answers[index] = address + offset, device, memory

    def _form(self, dtype: str, shape: tuple[int, ...]) -> tuple[Any, Any, list[int], int]:
        """Dtype, shape, strides and bytes an element: experts by the thousand have few of them."""
        form = self._forms.get((dtype, shape))
        if form is None:
            torch_dtype, torch_shape = described(dtype, shape, "pt")
            form = torch_dtype, torch_shape, strides_of(torch_shape), torch_dtype.itemsize
            self._forms[dtype, shape] = form
        return form


class Block:
    """Memory that small tensors share, while their places in it are being found."""

    __slots__ = ("end", "last", "places")

    def __init__(self) -> None:
        self.places: Places = []
        self.end = 0
        self.last = (0, 0)

    def offset_for(self, nbytes: int, file_offset: int) -> int:
        """Where a tensor goes: as far behind the last one as in the file, if that is near and
        aligned, for then one copy fills both. -1: there is no room."""
        offset, before = self.last
        place = offset + file_offset - before
        near = file_offset >= before and self.end <= place < self.end + _ALIGNMENT
        if not near or place % _LEAST_ALIGNMENT:
            place = -(-self.end // _ALIGNMENT) * _ALIGNMENT
        return place if place + nbytes <= _BLOCK else -1
