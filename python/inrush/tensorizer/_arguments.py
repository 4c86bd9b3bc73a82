"""What a deserializer is given, checked."""

from __future__ import annotations

import torch

from inrush.tensorizer._crypto import DecryptionParams

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def check_key(encryption: Any) -> None:
    """Before the file is opened.

    Raises
    ------
    TypeError, ValueError
        It is no `DecryptionParams`, or one without a key.
    """
    if encryption is None:
        return
    if not isinstance(encryption, DecryptionParams):
        raise TypeError("encryption: expected DecryptionParams")
    encryption.__inrush_key__()


def check_arguments(num_readers: Any, dtype: Any) -> None:
    """Raise TypeError or ValueError for those that cannot be."""
    if dtype is not None and not isinstance(dtype, torch.dtype):
        raise TypeError(f"dtype: expected a torch.dtype, not {type(dtype).__name__}")
    if num_readers is not None and (not isinstance(num_readers, int) or num_readers is True):
        raise TypeError("num_readers: expected an int")
    if num_readers is not None and num_readers < 1:
        raise ValueError("num_readers: at least 1")
