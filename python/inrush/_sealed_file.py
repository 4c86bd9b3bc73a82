"""What sealed files are made of when their tensors come one by one: docs/formats/sealed.md."""

from __future__ import annotations

import hashlib
import os
import struct

from inrush import _core
from inrush._tensors_file import MEMORY, OPERATIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from inrush._keys import Key
    from inrush._tensors_file import Buffer

_HEAD_SIZE = 192
_ALIGNMENT = 4096  # of the first tensor in the file
_CHUNK_SIZE = 1 << 20


class SealKey:
    """A key and how it was made, for all files of one checkpoint.

    Parameters
    ----------
    key : Key
        A passphrase is stretched by Argon2id, once.
    parts : int
        How many files there will be.
    """

    def __init__(self, key: Key, parts: int) -> None:
        self.parts = parts
        self.set = os.urandom(16)
        salt = bytes(16)
        costs = (0, 0, 0)
        if key.key is not None:
            self.key = key.key
        else:
            salt, costs = os.urandom(16), (1, OPERATIONS, MEMORY)
            self.key = _core.derive_key(key.passphrase or b"", salt, OPERATIONS, MEMORY)
        self.derivation = struct.pack("<QQQ", *costs) + salt


class SealedFile:
    """One file: tensors are encrypted in any order, and then the header is known.

    Parameters
    ----------
    key : SealKey
    part : int
        Which of the checkpoint's files this is, from 0.
    text : bytes
        The JSON of the safetensors header.
    sizes : sequence of int
        Bytes of each tensor, in the order of their offsets.
    """

    def __init__(self, key: SealKey, part: int, text: bytes, sizes: Sequence[int]) -> None:
        self._key = key
        self._part = part
        self._text = text
        self._salt = os.urandom(32)
        self._first = []
        count = 0
        for size in sizes:
            self._first.append(count)
            count += -(-size // _CHUNK_SIZE)
        self._codes = [b""] * len(sizes)
        size = _HEAD_SIZE + 16 * count + len(text)
        self._count = count
        self.data_start = size + -size % _ALIGNMENT

    def _sub_key(self, purpose: bytes) -> bytes:
        salted = b"inrush seal 1 " + purpose + self._salt
        return hashlib.blake2b(salted, key=self._key.key, digest_size=32).digest()

    def tensor(self, number: int) -> SealedTensor:
        """What encrypts the tensor of this number."""
        return SealedTensor(self, number)

    def encrypt(self, number: int, data: memoryview) -> Buffer:
        """The bytes of this tensor as they stand in the file: a copy."""
        if not len(data):
            return b""
        stored = bytearray(data)
        nonce = self._first[number].to_bytes(24, "little")
        self._codes[number] = _core.encrypt(
            _core.buffer_address(stored), len(stored), self._sub_key(b"data"), nonce, _CHUNK_SIZE
        )
        return stored

    def header(self) -> bytes:
        """All before the data, once every tensor was encrypted."""
        codes = b"".join(self._codes)
        assert len(codes) == 16 * self._count
        head = b"INRSEAL1" + self._key.derivation + self._salt + self._key.set
        head += struct.pack("<II", self._part, self._key.parts)
        head += struct.pack("<QQQ", _CHUNK_SIZE, self._count, len(self._text)) + bytes(32)
        rest = codes + self._text
        rest += bytes(self.data_start - _HEAD_SIZE - len(rest))
        covered = head + bytes(32) + rest
        key = self._sub_key(b"header")
        return head + hashlib.blake2b(covered, key=key, digest_size=32).digest() + rest


class SealedTensor:
    """A tensor of a sealed file, as a place of a layout has it."""

    def __init__(self, file: SealedFile, number: int) -> None:
        self._file = file
        self._number = number

    def encode(self, data: memoryview) -> tuple[bytes, Buffer]:
        """Nothing before it, and its bytes as they stand in the file."""
        return b"", self._file.encrypt(self._number, data)
