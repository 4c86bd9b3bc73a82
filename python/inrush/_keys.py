"""Keys for encrypted checkpoints, and the ways in which a user's key gets here."""

from __future__ import annotations

import os

from inrush._errors import SourceError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class HasKey(Protocol):
        """What carries a key of its own, such as `inrush.tensorizer.DecryptionParams`."""

        def __inrush_key__(self) -> Key: ...

    Encryption = bytes | str | HasKey

_SIZE = 32  # bytes
_LARGEST = 1 << 16  # bytes of a file or a command's answer


class Key:
    """A key of 32 bytes, or a passphrase that one is derived from.

    Parameters
    ----------
    key : bytes, optional
        32 bytes.
    passphrase : bytes or str, optional
        Text is UTF-8. Exactly one of the two is given.

    Raises
    ------
    UsageError
        If the key has another length, or not exactly one of the two is given.
    """

    __slots__ = ("key", "passphrase")

    def __init__(self, key: bytes | None = None, *, passphrase: bytes | str | None = None) -> None:
        if (key is None) == (passphrase is None):
            raise UsageError("encryption: either a key or a passphrase is needed")
        if key is not None and len(key) != _SIZE:
            raise UsageError(f"encryption: a key of {len(key)} bytes, not {_SIZE}")
        self.key = None if key is None else bytes(key)
        self.passphrase = passphrase.encode() if isinstance(passphrase, str) else passphrase

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Key:
        """The key in a file: 32 bytes, or 64 hex digits."""
        return cls(_key_bytes(_read(path), f"key file {os.fspath(path)}"))

    @classmethod
    def from_passphrase_file(cls, path: str | os.PathLike[str]) -> Key:
        """The passphrase in a file, without the line feed at its end."""
        return cls(passphrase=_read(path).removesuffix(b"\n").removesuffix(b"\r"))

    @classmethod
    def from_command(cls, command: str) -> Key:
        """The key that a command prints: a KMS's or a vault's. It runs in a shell."""
        import subprocess

        done = subprocess.run(command, shell=True, stdout=subprocess.PIPE, check=False)
        if done.returncode != 0:
            raise SourceError(f"encryption: the command for the key failed with {done.returncode}")
        return cls(_key_bytes(done.stdout, "what the command printed"))

    def __repr__(self) -> str:
        return "<inrush.Key>"


def _read(path: str | os.PathLike[str]) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_LARGEST)
    except OSError as error:
        raise SourceError(f"read key {os.fspath(path)}: {error.strerror}") from None


def _key_bytes(data: bytes, what: str) -> bytes:
    if len(data) == _SIZE:
        return data
    try:
        key = bytes.fromhex(data.decode("ascii").strip())
    except (UnicodeDecodeError, ValueError):
        key = b""
    if len(key) != _SIZE:
        raise UsageError(f"encryption: {what}: neither {_SIZE} bytes nor {2 * _SIZE} hex digits")
    return key


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
        return Key(bytes(encryption))
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
