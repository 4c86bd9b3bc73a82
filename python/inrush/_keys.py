"""Keys for encrypted checkpoints, and the ways in which a user's key gets here."""

from __future__ import annotations

import os

from inrush._errors import SourceError, UsageError
from inrush._sizes import parse_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    import io
    from typing import IO, Protocol

    class HasKey(Protocol):
        """What carries a key of its own, such as `inrush.tensorizer.DecryptionParams`."""

        def __inrush_key__(self) -> Key: ...

    Encryption = bytes | bytearray | memoryview | str | HasKey

_SIZE = 32  # bytes
_LARGEST = 1 << 16  # bytes of a file or a command's answer


class Key:
    """A key of 32 bytes, or a passphrase that one is derived from.

    What it holds is a copy, which is wiped when the object goes; what it was made from is the
    caller's.

    Parameters
    ----------
    key : bytes, bytearray or memoryview, optional
        32 bytes.
    passphrase : bytes, bytearray or str, optional
        Text is UTF-8. Exactly one of the two is given.
    most_operations : int, optional
        Passes over memory that a file may ask for to derive its key from the passphrase;
        INRUSH_KEY_OPERATIONS, else 16.
    most_memory : int or str, optional
        Bytes that it may ask for, such as ``"2GiB"``; INRUSH_KEY_MEMORY, else 1 GiB.

    Attributes
    ----------
    key, passphrase : bytearray or None

    Raises
    ------
    UsageError
        If the key has another length, or not exactly one of the two is given.
    """

    __slots__ = ("key", "most_memory", "most_operations", "passphrase")

    def __init__(
        self,
        key: bytes | bytearray | memoryview | None = None,
        *,
        passphrase: bytes | bytearray | str | None = None,
        most_operations: int | None = None,
        most_memory: int | str | None = None,
    ) -> None:
        self.key: bytearray | None = None
        self.passphrase: bytearray | None = None
        self.most_operations = most_operations
        self.most_memory = None if most_memory is None else parse_size(most_memory, "most_memory")
        if (key is None) == (passphrase is None):
            raise UsageError("encryption: either a key or a passphrase is needed")
        if key is not None:
            self.key = bytearray(key)
            if len(self.key) != _SIZE:
                raise UsageError(f"encryption: a key of {len(self.key)} bytes, not {_SIZE}")
        elif isinstance(passphrase, str):
            self.passphrase = bytearray(passphrase, "utf-8")
        elif passphrase is not None:
            self.passphrase = bytearray(passphrase)

    def __del__(self) -> None:
        wipe(self.key)
        wipe(self.passphrase)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Key:
        """The key in a file: 32 bytes, or 64 hex digits."""
        return _made_from(_read(path), f"key file {os.fspath(path)}")

    @classmethod
    def from_passphrase_file(cls, path: str | os.PathLike[str]) -> Key:
        """The passphrase in a file, without the line feed at its end."""
        data = _read(path)
        end = len(data)
        for ending in (b"\n", b"\r"):
            end -= data.endswith(ending, 0, end)
        try:
            if end == 0:
                raise UsageError(f"encryption: the passphrase file {os.fspath(path)} is empty")
            wipe(data, end)
            del data[end:]
            return cls(passphrase=data)
        finally:
            wipe(data)

    @classmethod
    def from_command(cls, command: str) -> Key:
        """The key that a command prints: a KMS's or a vault's. It runs in a shell."""
        import subprocess

        with subprocess.Popen(command, shell=True, stdout=subprocess.PIPE, bufsize=0) as running:
            assert running.stdout is not None
            data = _filled(running.stdout, "what the command printed")
        if running.returncode != 0:
            wipe(data)
            raise SourceError(
                f"encryption: the command for the key failed with {running.returncode}"
            )
        return _made_from(data, "what the command printed")

    def __repr__(self) -> str:
        return "<inrush.Key>"


def wipe(secret: bytearray | None, begin: int = 0) -> None:
    """Zeros where a secret was, from this byte on."""
    if secret is not None:
        secret[begin:] = bytes(len(secret) - begin)


def _filled(file: io.RawIOBase | IO[bytes], what: str) -> bytearray:
    """What a file without a buffer of its own gives, up to a limit: nothing else holds it."""
    data = bytearray(_LARGEST)
    size = 0
    with memoryview(data) as room:
        while size < _LARGEST and (count := file.readinto(room[size:])):  # type: ignore[union-attr]
            size += count
    if size == _LARGEST:
        wipe(data)
        raise UsageError(f"encryption: {what}: {_LARGEST} bytes or more are no key")
    del data[size:]
    return data


def _read(path: str | os.PathLike[str]) -> bytearray:
    try:
        with open(path, "rb", buffering=0) as file:
            return _filled(file, f"key file {os.fspath(path)}")
    except OSError as error:
        raise SourceError(f"read key {os.fspath(path)}: {error.strerror}") from None


_DIGITS = frozenset(b"0123456789abcdefABCDEF")
_SPACE = frozenset(b" \t\r\n")


def _made_from(data: bytearray, what: str) -> Key:
    """The key that these bytes are or write out; they are wiped."""
    key = bytearray()
    try:
        if len(data) == _SIZE:
            return Key(data)
        begin, end = 0, len(data)
        while begin < end and data[begin] in _SPACE:
            begin += 1
        while end > begin and data[end - 1] in _SPACE:
            end -= 1
        if end - begin != 2 * _SIZE or not all(data[i] in _DIGITS for i in range(begin, end)):
            raise UsageError(
                f"encryption: {what}: neither {_SIZE} bytes nor {2 * _SIZE} hex digits"
            )
        # Digit by digit: text of all of them would stay in memory.
        key.extend(int(data[at : at + 2], 16) for at in range(begin, end, 2))
        return Key(key)
    finally:
        wipe(data)
        wipe(key)


_SCHEMES = {
    "file": Key.from_file,
    "passphrase-file": Key.from_passphrase_file,
    "exec": Key.from_command,
}


def key_at(place: str) -> Key:
    """The key in this file, or where the place says: ``'exec:COMMAND'`` and the like."""
    scheme, colon, rest = place.partition(":")
    if colon and scheme in _SCHEMES:
        return _SCHEMES[scheme](rest)
    return Key.from_file(place)


def key_of(encryption: Encryption | Key | None) -> Key | None:
    """The key that an option means.

    Parameters
    ----------
    encryption : Key, bytes, str or None
        32 bytes; or where the key is: ``'file:PATH'``, ``'passphrase-file:PATH'``,
        ``'exec:COMMAND'``.

    Raises
    ------
    UsageError
        If it is none of these.
    SourceError
        If the key cannot be read.
    """
    if encryption is None or isinstance(encryption, Key):
        return encryption
    if isinstance(encryption, (bytes, bytearray, memoryview)):
        return Key(encryption)
    if isinstance(encryption, str):
        scheme, colon, rest = encryption.partition(":")
        if not colon or scheme not in _SCHEMES:
            # Never the text itself: it may be the secret.
            raise UsageError(
                "encryption: expected 32 bytes, or text that begins with "
                + ", ".join(f"{name}:" for name in _SCHEMES)
            )
        return _SCHEMES[scheme](rest)
    own = getattr(encryption, "__inrush_key__", None)
    if own is None:
        raise UsageError(f"encryption: a {type(encryption).__name__} is no key")
    key: Key = own()
    return key
