"""What tensorizer's files are made of, as tensorizer 2.12 writes them: the head, lines, records.

The layout stands in docs/formats/tensorizer.md.
"""

from __future__ import annotations

import functools
import os
import struct

from inrush import _core
from inrush._dtypes import FRAMEWORK_NAMES
from inrush._errors import UsageError
from inrush._keys import Key, wipe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    Buffer = bytes | bytearray | memoryview

MAGIC = b"|TZR|"
HEAD_SIZE = 0x49
INDEX_SIZE = 256 * 1024  # bytes; larger where the lines need it
CHUNK_SIZE = 2 << 20  # bytes that are encrypted at once
PARAMETER, BUFFER, STATE_DICT = range(3)

# Argon2id as libsodium's MODERATE.
OPERATIONS = 3
MEMORY = 256 << 20

_LONG = 1 << 32  # a length from here on takes 64 bits
_ENCRYPTED, _TAGGED = 1, 2  # flags
_OPAQUE_VERSION, _ENCRYPTED_VERSION, _META_VERSION, LONG_VERSION = 2, 3, 4, 5
_LONG_TAG = struct.pack("<I", LONG_VERSION)  # before a line whose lengths take 64 bits

# safetensors' dtypes by numpy's names; the others by a width and torch's name.
PLAIN = {
    "BOOL": "|b1", "U8": "|u1", "I8": "|i1", "U16": "<u2", "I16": "<i2", "U32": "<u4",
    "I32": "<i4", "U64": "<u8", "I64": "<i8", "F16": "<f2", "F32": "<f4", "F64": "<f8",
    "C64": "<c8",
}  # fmt: skip
_WIDTHS = {
    "BF16": "<V2", "F8_E5M2": "|V1", "F8_E4M3": "|V1", "F8_E8M0": "|V1", "F8_E4M3FNUZ": "|V1",
    "F8_E5M2FNUZ": "|V1", "F4": "|V1",
}  # fmt: skip
OPAQUE = {name: f"{width}\0torch.{FRAMEWORK_NAMES[name]}" for name, width in _WIDTHS.items()}


def _checksums(
    covered: bytes, data: memoryview, *, crc32: bool, sha256: bool = True
) -> tuple[int | None, bytes | None]:
    """Of bytes and then others, by all that the processor has for it."""
    return _core.checksums(covered, _core.buffer_address(data), len(data), crc32, sha256)


class Cipher:
    """A key and how it was made, for one file.

    Parameters
    ----------
    key : Key
        A passphrase is stretched by Argon2id.
    salt : bytes, optional
        16 bytes; random if not given.
    """

    def __init__(
        self,
        key: Key,
        *,
        salt: bytes | None = None,
        operations: int = OPERATIONS,
        memory: int = MEMORY,
    ) -> None:
        self._derivation = b""
        self._held = key  # which wipes what it holds
        if key.key is not None:
            return
        salt = os.urandom(16) if salt is None else salt
        derived = _core.derive_key(key.passphrase or bytearray(), salt, operations, memory)
        self._held = Key(derived)
        wipe(derived)
        fields = struct.pack("<HHQQiH", 1, 1, operations, memory, 2, len(salt)) + salt
        self._derivation = struct.pack("<Q", len(fields)) + fields

    @property
    def key(self) -> bytearray:
        """The 32 bytes that encrypt, for as long as this lives."""
        assert self._held.key is not None
        return self._held.key

    def block(self, size: int, nonce: bytes, codes: bytes = b"") -> bytes:
        """The crypt chunks of a record's header; without codes, with room for them."""
        if size == 0:
            return struct.pack("<QH", 2, 0)
        count = -(-size // CHUNK_SIZE)
        fields = struct.pack("<HQ24sQ", 2, CHUNK_SIZE, nonce, count) + (codes or bytes(16 * count))
        chunks = self._derivation + struct.pack("<Q", len(fields)) + fields
        return struct.pack("<QH", 2 + len(chunks), 2 if self._derivation else 1) + chunks

    def encrypt(self, address: int, size: int, nonce: bytes) -> bytes:
        """Encrypt this memory in place; the codes."""
        return _core.encrypt(address, size, self.key, nonce, CHUNK_SIZE)


class Record:
    """A tensor as it stands in the file: its line of the index and the header of its record.

    Parameters
    ----------
    path : bytes
        As it stands in the file.
    kind : int
        `PARAMETER`, `BUFFER` or `STATE_DICT`.
    module : int
        Number of its module.
    dtype : str
    shape : sequence of int
        As torch counts elements.
    size : int
        Bytes; 0 for a meta tensor.
    cipher : Cipher, optional
    """

    def __init__(
        self,
        path: bytes,
        dtype: str,
        shape: Sequence[int],
        size: int,
        *,
        kind: int = STATE_DICT,
        module: int = 0,
        cipher: Cipher | None = None,
    ) -> None:
        if not path or len(path) > 0xFFFF:
            raise UsageError(f"save {path[:60]!r}: a name of {len(path)} bytes, not 1 to 65535")
        self.dtype = dtype
        self.size = size
        self.long = any(length >= _LONG for length in shape)
        self._cipher = cipher
        self._nonce = os.urandom(24) if cipher is not None and size else b""
        name = dtype.encode()
        self._identity = struct.pack("<B", kind) + struct.pack("<H", len(path)) + path
        self._line_identity = struct.pack("<H", len(path)) + path + struct.pack("<B", kind)
        lengths = struct.pack(f"<B{len(shape)}{'Q' if self.long else 'I'}", len(shape), *shape)
        self._type = struct.pack("<B", len(name)) + name + lengths
        self._module = module
        # Encrypted bytes have no CRC-32: it would tell something of the plain ones.
        self._has_crc = not self._nonce
        crypt = 0 if cipher is None else len(cipher.block(size, self._nonce))
        self.header_size = len(self._plain_header(b"")) + crypt

    def line(self, offset: int, *, tagged: bool) -> bytes:
        """The line of the index, where the record begins at `offset`."""
        tag = (_LONG_TAG if self.long else struct.pack("<I", 1)) if tagged else b""
        places = struct.pack("<QQQ", offset, offset + self.header_size, self.size)
        return tag + self._line_identity + self._type + places

    def _checksums(self, crc: int = 0, digest: bytes = bytes(32)) -> bytes:
        block = struct.pack("<BBI", 0, 4, crc) if self._has_crc else b""
        block += struct.pack("<BB", 1, 32) + digest
        count = 2 if self._has_crc else 1
        return struct.pack("<HB", 1 + len(block), count) + block

    def _front(self, checksums: bytes) -> bytes:
        front = struct.pack("<H", self._module) + self._identity + self._type
        return front + (checksums or self._checksums())

    def _plain_header(self, checksums: bytes, size: int = 0) -> bytes:
        """Without the crypt chunks, as checksums cover it; `size` is that of the whole header."""
        return struct.pack("<Q", size) + self._front(checksums) + struct.pack("<q", self.size)

    def encode(self, data: memoryview) -> tuple[bytes, Buffer]:
        """The header, and the bytes as they stand in the file: encrypted ones are a copy.

        Parameters
        ----------
        data : memoryview
            Of bytes; `size` of them.
        """
        zeroed = self._plain_header(b"", self.header_size)
        crc, digest = _checksums(zeroed, data, crc32=self._has_crc)
        assert digest is not None
        checksums = self._checksums(crc or 0, digest)
        stored: Buffer = data
        crypt = b""
        if self._cipher is not None:
            codes = b""
            if self._nonce:
                stored = bytearray(data)
                address = _core.buffer_address(stored)
                codes = self._cipher.encrypt(address, len(stored), self._nonce)
            crypt = self._cipher.block(self.size, self._nonce, codes)
        front = struct.pack("<Q", self.header_size) + self._front(checksums)
        return front + crypt + struct.pack("<q", self.size), stored


class Line:
    """A line of a file's index.

    Parameters
    ----------
    raw : bytes
        As it stands in the index.
    tagged : bool
        Whether lines begin with a tag there.

    Attributes
    ----------
    path : bytes
    kind : int
    dtype : str
    shape : tuple of int
    header, data, size : int
        Where the record begins, where the tensor's bytes begin, and how many they are.
    wide : bool
        Lengths have 64 bits.
    raw : bytes
    """

    __slots__ = ("data", "dtype", "header", "kind", "path", "raw", "shape", "size", "wide")

    def __init__(self, raw: bytes, *, tagged: bool) -> None:
        self.raw = raw
        self.wide = tagged and raw.startswith(_LONG_TAG)
        at = len(_LONG_TAG) if tagged else 0
        end = at + 2 + (raw[at] | raw[at + 1] << 8)
        self.path, self.kind = raw[at + 2 : end], raw[end]
        at = end + 2 + raw[end + 1]
        self.dtype = raw[end + 2 : at].decode()
        numbers = _numbers(raw[at], "Q" if self.wide else "I").unpack_from(raw, at + 1)
        self.shape = numbers[:-3]
        self.header, self.data, self.size = numbers[-3:]

    @property
    def nbytes(self) -> int:
        """Bytes in memory: a meta tensor has some there and none in the file."""
        size = int("".join(filter(str.isdigit, self.dtype.partition("\0")[0])))
        for length in self.shape:
            size *= length
        return size


class LinesIndex:
    """The index of a file that was opened before, and so is known to be sound.

    Parameters
    ----------
    head : bytes
        The file's first 73.
    index : bytes
        What is behind them.

    Attributes
    ----------
    paths : list of str or bytes
        Of each line in order; bytes if it is a structure.
    flat : bool
        None is.
    """

    def __init__(self, head: bytes, index: bytes) -> None:
        version, flags = struct.unpack_from("<IQ", head, len(MAGIC))
        count = struct.unpack_from("<Q", head, HEAD_SIZE - 16)[0]
        self._index = index
        self._tagged = bool(flags & _TAGGED)
        if version == LONG_VERSION and not self._tagged:  # as before its release
            self._tagged = struct.unpack_from("<I", index)[0] in (1, LONG_VERSION)
        self._lines = _core.TensorsLines(index, count, self._tagged)
        self.paths = self._lines.paths
        self.flat = self._lines.flat

    def line(self, i: int) -> Line:
        """That of the path `i`."""
        begin, end = self._lines.place(i)
        return Line(self._index[begin:end], tagged=self._tagged)


@functools.lru_cache(maxsize=512)
def _numbers(rank: int, width: str) -> struct.Struct:
    """Of a line: lengths, and where its record and its bytes begin, and how many these are."""
    return struct.Struct(f"<{rank}{width}3Q")


class _Fields:
    """Little-endian fields, one behind the other."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def many(self, count: int, form: str) -> tuple[Any, ...]:
        form = f"<{count}{form}"
        values = struct.unpack_from(form, self._data, self.at)
        self.at += struct.calcsize(form)
        return values

    def take(self, form: str) -> Any:
        values = struct.unpack_from("<" + form, self._data, self.at)
        self.at += struct.calcsize("<" + form)
        return values[0]


class RecordHeader:
    """The checksums that stand before a tensor's bytes.

    Attributes
    ----------
    covered : bytes
        What they cover before the tensor's bytes.
    crc32 : int or None
    sha256 : bytes or None
    """

    __slots__ = ("covered", "crc32", "sha256")

    def __init__(self, covered: bytes, crc32: int | None, sha256: bytes | None) -> None:
        self.covered = covered
        self.crc32 = crc32
        self.sha256 = sha256

    def matches(self, data: memoryview) -> bool:
        """Whether these bytes are those that all of them were made of."""
        wanted = {"crc32": self.crc32 is not None, "sha256": self.sha256 is not None}
        return _checksums(self.covered, data, **wanted) == (self.crc32, self.sha256)


def parse_record(header: bytes, *, wide: bool, encrypted: bool) -> RecordHeader:
    """The checksums in a record's header, of a file that is known to be sound.

    Parameters
    ----------
    header : bytes
    wide : bool
        Lengths have 64 bits.
    encrypted : bool
        It has crypt chunks, which checksums do not cover.
    """
    fields = _Fields(header)
    fields.at = 11
    fields.take(f"{fields.take('H')}s")
    fields.take(f"{fields.take('B')}s")
    rank = fields.take("B")
    begin = fields.at + rank * (8 if wide else 4)
    size, count = struct.unpack_from("<HB", header, begin)
    covered = bytearray(header)
    crc = digest = None
    at = begin + 3
    for _ in range(count):
        kind, length = header[at], header[at + 1]
        value = header[at + 2 : at + 2 + length]
        covered[at + 2 : at + 2 + length] = bytes(length)
        if kind == 0:
            crc = int.from_bytes(value, "little")
        else:
            digest = value
        at += 2 + length
    if encrypted:
        rest = begin + 2 + size
        del covered[rest : rest + 8 + struct.unpack_from("<Q", header, rest)[0]]
    return RecordHeader(bytes(covered), crc, digest)


def version_of(records: Iterable[Record], *, encrypted: bool, meta: bool = False) -> int:
    """The data version that tensorizer writes for these."""
    version = _ENCRYPTED_VERSION if encrypted else 1
    for record in records:
        if "\0" in record.dtype:
            version = max(version, _OPAQUE_VERSION)
        if record.long:
            version = max(version, LONG_VERSION)
    return max(version, _META_VERSION) if meta else version


def head_of(version: int, count: int, size: int, index_size: int, *, encrypted: bool) -> bytes:
    """The first 73 bytes of a file."""
    flags = 0
    if version >= _META_VERSION:
        flags = (_ENCRYPTED if encrypted else 0) | (_TAGGED if version >= LONG_VERSION else 0)
    head = MAGIC + struct.pack("<I", version) + flags.to_bytes(32, "little")
    return head + struct.pack("<QQQQ", size, 0, count, index_size)
