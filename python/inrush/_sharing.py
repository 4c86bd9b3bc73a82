"""Which torch tensors share memory, by the words that safetensors.torch has for it."""

from __future__ import annotations

import torch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def storage_ptr(tensor: torch.Tensor) -> int:
    """Address of the storage that a tensor lies in; 0 where it has none."""
    try:
        return int(tensor.untyped_storage().data_ptr())
    except (NotImplementedError, RuntimeError):  # subclasses that hold several tensors, or none
        return 0


def storage_size(tensor: torch.Tensor) -> int:
    """Bytes of the storage that a tensor lies in; of the tensor where it has none."""
    try:
        return int(tensor.untyped_storage().nbytes())
    except (NotImplementedError, RuntimeError):
        return int(tensor.nelement() * tensor.element_size())


def end_ptr(tensor: torch.Tensor) -> int:
    """The address behind a tensor's last element."""
    start = int(tensor.data_ptr())
    if tensor.nelement() == 0:
        return start
    extents = zip(tensor.shape, tensor.stride(), strict=True)
    last = sum((extent - 1) * stride for extent, stride in extents)
    return start + (last + 1) * int(tensor.element_size())


def is_complete(tensor: torch.Tensor) -> bool:
    """Whether a tensor covers its storage from the first byte to the last."""
    size = tensor.nelement() * tensor.element_size()
    return bool(tensor.data_ptr() == storage_ptr(tensor) and size == storage_size(tensor))


def find_shared_tensors(state_dict: Mapping[str, torch.Tensor]) -> list[set[str]]:
    """The names in sets whose tensors overlap; a tensor that overlaps none is alone in its set.

    Tensors without memory (on the meta device, of no storage) are in none.
    """
    storages: dict[tuple[object, int, int], list[str]] = {}
    for name, tensor in state_dict.items():
        place, size = storage_ptr(tensor), storage_size(tensor)
        if tensor.device.type != "meta" and place and size:
            storages.setdefault((tensor.device, place, size), []).append(name)
    groups: list[set[str]] = []
    for names in storages.values():
        reach = -1
        for name in sorted(names, key=lambda name: int(state_dict[name].data_ptr())):
            if int(state_dict[name].data_ptr()) < reach:
                groups[-1].add(name)
            else:
                groups.append({name})
            reach = max(reach, end_ptr(state_dict[name]))
    return groups


def remove_duplicate_names(
    state_dict: Mapping[str, torch.Tensor],
    *,
    preferred_names: Iterable[str] | None = None,
    discard_names: Iterable[str] | None = None,
) -> dict[str, list[str]]:
    """Which names to leave out so that shared memory is saved once: kept name to those left out.

    Parameters
    ----------
    state_dict : mapping of str to torch.Tensor
    preferred_names, discard_names : iterable of str, optional
        Names that had better be kept, or left out.

    Raises
    ------
    RuntimeError
        If none of the tensors that share a storage covers it wholly.
    """
    preferred = set(preferred_names or ())
    discarded = set(discard_names or ())
    removed: dict[str, list[str]] = {}
    for shared in find_shared_tensors(state_dict):
        complete = {name for name in shared if is_complete(state_dict[name])}
        if not complete:
            raise RuntimeError(
                f"which of {sorted(shared)} to keep cannot be told: none covers its whole storage. "
                "Saved, a view would take all of it along; clone what is meant"
            )
        kept = min(complete & preferred or complete - discarded or complete)
        for name in sorted(shared - {kept}):
            removed.setdefault(kept, []).append(name)
    return removed
