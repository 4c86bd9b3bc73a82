"""Keys as tensorizer's users hold them."""

from __future__ import annotations

import enum
import os

from inrush._keys import Key
from inrush._tensors_file import Cipher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_KEY_SIZE = 32
_SALT_SIZE = 16


class CryptographyError(Exception):
    """A key is wrong, missing or not wanted, or encrypted bytes were changed."""


class OpsLimit(enum.IntEnum):
    """Passes of Argon2id."""

    MIN = 1
    INTERACTIVE = 2
    MODERATE = 3
    SENSITIVE = 4


class MemLimit(enum.IntEnum):
    """Bytes of memory of Argon2id."""

    MIN = 8192
    INTERACTIVE = 64 << 20
    MODERATE = 256 << 20
    SENSITIVE = 1 << 30


def _key_of(key: Any) -> Key:
    if not isinstance(key, (bytes, bytearray, memoryview)):
        raise TypeError(f"a key is bytes, not {type(key).__name__}")
    with memoryview(key) as view:
        if view.nbytes != _KEY_SIZE:
            raise ValueError(f"a key of {view.nbytes} bytes, not {_KEY_SIZE}")
    return Key(key)


def _source_bytes(source: str | bytes, encoding: str) -> bytes:
    if not source:
        raise ValueError("a passphrase is not empty")
    if not isinstance(source, (str, bytes)):
        raise TypeError(f"a passphrase is text or bytes, not {type(source).__name__}")
    return source.encode(encoding) if isinstance(source, str) else source


def _cost(given: int | None, kind: type[enum.IntEnum], other: type[enum.IntEnum], name: str) -> int:
    """What a limit says, by default MODERATE."""
    if given is None:
        return int(kind["MODERATE"])
    if not isinstance(given, int) or isinstance(given, other):
        raise TypeError(f"{name}: expected {kind.__name__} or int, not {type(given).__name__}")
    return int(given)


class EncryptionParams:
    """What a `TensorSerializer` encrypts with.

    Parameters
    ----------
    key : bytes
        32 of them.
    """

    OpsLimit = OpsLimit
    MemLimit = MemLimit

    def __init__(self, key: bytes) -> None:
        self._salt: bytes | None = None
        self._costs: tuple[int, int] | None = None
        self._cipher = Cipher(_key_of(key))

    @classmethod
    def random(cls) -> EncryptionParams:
        """A key that nobody has had; keep its `key`."""
        return cls(os.urandom(_KEY_SIZE))

    @classmethod
    def from_string(
        cls,
        source: str | bytes,
        opslimit: int | None = None,
        memlimit: int | None = None,
        salt: bytes | None = None,
        *,
        encoding: str = "utf-8",
    ) -> EncryptionParams:
        """A key derived from a passphrase by Argon2id; costs and salt stand in the file."""
        passphrase = _source_bytes(source, encoding)
        if salt is not None and len(salt) != _SALT_SIZE:
            raise ValueError(f"a salt of {len(salt)} bytes, not {_SALT_SIZE}")
        operations = _cost(opslimit, OpsLimit, MemLimit, "opslimit")
        memory = _cost(memlimit, MemLimit, OpsLimit, "memlimit")
        made = cls.__new__(cls)
        made._salt = os.urandom(_SALT_SIZE) if salt is None else bytes(salt)
        made._costs = operations, memory
        made._cipher = Cipher(
            Key(passphrase=passphrase),
            salt=made._salt,
            operations=operations,
            memory=memory,
        )
        return made

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, EncryptionParams):
            return NotImplemented
        mine, others = ((one.key, one._salt, one._costs) for one in (self, other))
        return mine == others

    __hash__ = None  # type: ignore[assignment]  # as tensorizer's

    @property
    def key(self) -> bytes:
        """The key, 32 bytes."""
        return bytes(self._cipher.key)

    @property
    def salt(self) -> bytes:
        """The salt that the key was derived with."""
        if self._salt is None:
            raise ValueError("an exact key has no salt")
        return self._salt


class DecryptionParams:
    """What a `TensorDeserializer` decrypts with; made by `from_key` or `from_string`.

    It keeps copies, which are wiped when it goes, and does not show them in its `repr`.
    """

    def __init__(self) -> None:
        self._exact: Key | None = None
        self._derived: Key | None = None

    @property
    def key(self) -> bytes | None:
        """The key, 32 bytes; None if a passphrase was given."""
        return None if self._exact is None else bytes(self._exact.key or b"")

    @key.setter
    def key(self, key: bytes | None) -> None:
        self._exact = None if key is None else _key_of(key)

    @property
    def source(self) -> bytes | None:
        """The passphrase; None if a key was given."""
        return None if self._derived is None else bytes(self._derived.passphrase or b"")

    @source.setter
    def source(self, source: bytes | None) -> None:
        self._derived = None if source is None else Key(passphrase=_source_bytes(source, "utf-8"))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, DecryptionParams):
            return NotImplemented
        return (self.key, self.source) == (other.key, other.source)

    __hash__ = None  # type: ignore[assignment]  # as it can be changed

    @classmethod
    def from_key(cls, key: bytes) -> DecryptionParams:
        """The 32 bytes that it was encrypted with."""
        if not key:
            raise ValueError("a key is not empty")
        made = cls()
        made.key = key
        return made

    @classmethod
    def from_string(cls, source: str | bytes, *, encoding: str = "utf-8") -> DecryptionParams:
        """The passphrase that its key was derived from."""
        made = cls()
        made.source = _source_bytes(source, encoding)
        return made

    def __inrush_key__(self) -> Key:
        known = self._exact or self._derived
        if known is None:
            raise ValueError("decryption without a key: from_key() or from_string() has one")
        return known
