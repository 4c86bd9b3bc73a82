"""Modules that say themselves how they are loaded, and loading through what they say."""

from __future__ import annotations

import torch
from torch.nn.modules.batchnorm import _NormBase

from inrush._errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from inrush._modules import Place


class MismatchError(UsageError, RuntimeError):
    """Names, shapes or dtypes of a model and a checkpoint differ.

    Nothing was written, unless the message says otherwise.
    """


# What torch's own loading does, which is to copy tensors under their names; `_NormBase` keeps its
# count of batches beside that, see `has_default`.
_PLAIN = (torch.nn.Module._load_from_state_dict, _NormBase._load_from_state_dict)

_LATER = "; the {} loads through its own code, and is written in part or wholly"


def own_loading(model: torch.nn.Module) -> set[str]:
    """The prefixes of all modules that a hook, an override or an extra state has a say in."""
    prefixes: set[str] = set()
    for prefix, module in model.named_modules(remove_duplicate=False):
        # What a module does to the state dict, its children see.
        parent = prefix.rpartition(".")[0]
        if (prefix and parent in prefixes) or _loads_itself(module, is_root=not prefix):
            prefixes.add(prefix)
    return prefixes


def _loads_itself(module: torch.nn.Module, *, is_root: bool) -> bool:
    kind = type(module)
    plain = torch.nn.Module
    if "_load_from_state_dict" in vars(module) or kind._load_from_state_dict not in _PLAIN:
        return True
    if module._load_state_dict_pre_hooks or module._load_state_dict_post_hooks:
        return True
    if kind.set_extra_state is not plain.set_extra_state:
        return True
    if is_root and (
        "load_state_dict" in vars(module) or kind.load_state_dict is not plain.load_state_dict
    ):
        return True
    tensors = (*module._parameters.values(), *module._buffers.values())
    return any(_is_exotic(tensor) for tensor in tensors if tensor is not None)


def _is_exotic(tensor: torch.Tensor) -> bool:
    # A DTensor, a quantised one: what it stands for is not what its memory holds.
    return type(tensor).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__


def has_default(place: Place) -> bool:
    """Whether torch does without it in a file: a normalisation's count of batches, of old files."""
    module = place.module
    return (
        place.attribute == "num_batches_tracked"
        and isinstance(module, _NormBase)
        and module.track_running_stats
    )


def load_through(
    model: torch.nn.Module,
    state: Mapping[str, torch.Tensor],
    ties: Sequence[Sequence[Place]],
    *,
    assign: bool,
) -> tuple[list[str], list[str]]:
    """Load tensors by the model's `load_state_dict`; its missing and its unexpected names.

    Parameters
    ----------
    ties : sequence of sequence of Place
        The places of each tensor: of its names one is enough, and the others are unexpected.

    Raises
    ------
    MismatchError
        If the model's code finds that something does not fit.
    """
    words = {"assign": True} if assign else {}
    try:
        missing, unexpected = model.load_state_dict(dict(state), strict=False, **words)
    except RuntimeError as error:
        if not str(error).startswith("Error(s) in loading state_dict"):
            raise
        raise MismatchError(f"{error}{_LATER.format(type(model).__name__)}") from error
    lacking = set(missing)
    strays = list(unexpected)
    for group in ties:
        loaded = sorted(place.name for place in group if place.name not in lacking)
        lacking -= {place.name for place in group} - {min(place.name for place in group)}
        if not loaded:
            continue
        lacking -= {place.name for place in group}
        strays += loaded[1:]
        if assign:
            keep = next(place.current for place in group if place.name == loaded[0])
            for place in group:
                place.replace(keep)
    return sorted(lacking), strays


def refuse(model: torch.nn.Module, problems: Sequence[str], *, late: bool = False) -> None:
    """Raise MismatchError if there are any, worded as torch does; `late`: after the load."""
    if problems:
        kind = type(model).__name__
        lines = "".join(f"\n    {problem}" for problem in problems)
        told = f"Error(s) in loading state_dict for {kind}:{lines}"
        raise MismatchError(told + (_LATER.format(kind) if late else ""))


def strangers(missing: Sequence[str], unexpected: Sequence[str]) -> list[str]:
    """Lines that name what only one of model and checkpoint has."""
    return [
        f"{what} key(s) in state_dict: " + ", ".join(f'"{name}"' for name in sorted(names))
        for what, names in (("Missing", missing), ("Unexpected", unexpected))
        if names
    ]
