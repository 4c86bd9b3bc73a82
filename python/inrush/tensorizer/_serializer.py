"""Writing `.tensors` files as tensorizer's class does."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import io
import json
import os
import sys

import torch

from inrush import _core
from inrush._tensors_file import (
    HEAD_SIZE,
    INDEX_SIZE,
    LONG_VERSION,
    Record,
    head_of,
    version_of,
)
from inrush._tensors_paths import TakenPaths, check_parts, check_paths, encode_path, flatten
from inrush.tensorizer._crypto import EncryptionParams
from inrush.tensorizer._devices import bytes_of, tensor_of
from inrush.tensorizer._types import TensorType, code_of
from inrush.tensorizer.stream_io import open_stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Any

    from inrush._tensors_paths import Path

_DEPTH = 8  # tensors for each thread: a large one at the front keeps none waiting
_AHEAD = 1 << 30  # bytes of copies that wait to be written: encrypted, or from a device


class TensorSerializer:
    """Writes a `.tensors` file. The file is whole after every call that writes.

    It then stands where the tensors end. What somebody else writes there is kept: further tensors
    go behind it.

    Parameters
    ----------
    file_obj : str, os.PathLike or binary file
        A path, or a file that can be read, written and sought in.
    compress_tensors : bool
        Accepted as tensorizer does; nothing is compressed.
    encryption : EncryptionParams, optional
    limit_cpu_concurrency : int, optional
        How many threads hash and encrypt; by default as many as there are processors.

    Raises
    ------
    ValueError
        The file cannot be read, written or sought in.
    TypeError
        An argument is of another type.
    """

    def __init__(
        self,
        file_obj: Any,
        compress_tensors: bool = False,
        *,
        encryption: EncryptionParams | None = None,
        limit_cpu_concurrency: int | None = None,
    ) -> None:
        if encryption is not None and not isinstance(encryption, EncryptionParams):
            raise TypeError("encryption: expected EncryptionParams")
        if limit_cpu_concurrency is not None:
            if not isinstance(limit_cpu_concurrency, int):
                raise TypeError("limit_cpu_concurrency: expected an int")
            if limit_cpu_concurrency < 1:
                raise ValueError("limit_cpu_concurrency: at least 1")
        self.compress_tensors = compress_tensors
        self.cpu_limit: int = limit_cpu_concurrency or json.loads(_core.machine_json())["cpus"]
        self.total_compressed_tensor_bytes = 0
        self._cipher = None if encryption is None else encryption._cipher
        self._file = _writable(file_obj)
        local = isinstance(self._file, (io.FileIO, io.BufferedRandom, io.BufferedWriter))
        self._piece = _core.best_cached_write() if local else sys.maxsize
        self._start = self._file.tell()
        self._records: list[tuple[Record, int]] = []  # with where each begins
        self._told = 0  # of them stand in the index
        self._paths = TakenPaths()
        self._version = version_of((), encrypted=self._cipher is not None)
        self._index_size = INDEX_SIZE
        self._index_used = 0
        self._end = self._start + HEAD_SIZE + INDEX_SIZE
        self._size = 0
        self._commit()

    @property
    def total_tensor_bytes(self) -> int:
        """Bytes of the tensors that were written."""
        return self._size

    def write_tensor(self, idx: int, name: Path, tensor_type: TensorType, tensor: Any) -> None:
        """Write one tensor, or a numpy array.

        Parameters
        ----------
        idx : int
            Number of its module, at most 65535.
        name : str, or tuple of str and int
        tensor_type : TensorType
        tensor : torch.Tensor, or numpy's array or scalar

        Raises
        ------
        TypeError
            A part of the name is neither text nor a number from 0 on.
        """
        check_parts(name)
        if not isinstance(tensor, torch.Tensor):
            tensor = tensor_of(tensor)
        self._write([(idx, name, TensorType(tensor_type), tensor, None)])

    def write_state_dict(self, state_dict: Any) -> None:
        """Write nested dictionaries, lists and tuples of tensors."""
        if isinstance(state_dict, torch.Tensor):  # it has no name
            raise TypeError("state_dict: a Tensor is none")
        kind = TensorType.STATE_DICT
        self._write([(0, path, kind, tensor, None) for path, tensor in flatten(state_dict)])

    def write_module(
        self,
        m: torch.nn.Module,
        remove_tensors: bool = False,
        *,
        include_non_persistent_buffers: bool = True,
    ) -> None:
        """Write the parameters and buffers of a module and of those in it.

        Parameters
        ----------
        m : torch.nn.Module
        remove_tensors : bool
            Put None in the place of each tensor once it is written.
        include_non_persistent_buffers : bool
        """
        specs: list[Any] = []
        for idx, (prefix, module) in enumerate(m.named_modules()):
            left_out = (
                set() if include_non_persistent_buffers else module._non_persistent_buffers_set
            )
            for kind, named in (
                (TensorType.PARAM, module.named_parameters(recurse=False)),
                (TensorType.BUFFER, module.named_buffers(recurse=False)),
            ):
                for name, tensor in named:
                    if kind is TensorType.BUFFER and name in left_out:
                        continue
                    owner = (module, name) if remove_tensors else None
                    specs.append((idx, f"{prefix}.{name}", kind, tensor, owner))
        self._write(specs)

    def _write(self, specs: list[Any]) -> None:
        check_paths((path for _, path, *_ in specs), self._paths)
        records = [self._record(idx, path, kind, tensor) for idx, path, kind, tensor, _ in specs]
        tensors = [tensor for *_, tensor, _ in specs]
        version = version_of(
            records,
            encrypted=self._cipher is not None,
            meta=any(tensor.is_meta for tensor in tensors),
        )
        self._end = max(self._end, self._file.tell())
        self._reserve(records, max(version, self._version))
        try:
            self._append(specs, records, self._encoded(records, tensors))
        except BaseException:
            with contextlib.suppress(OSError, ValueError):
                self._file.seek(self._end)  # the next one goes over what stands there in part
            raise
        self._commit()

    def _append(self, specs: list[Any], records: list[Record], encoded: Iterator[Any]) -> None:
        for record, (_, path, _, _, owner) in zip(records, specs, strict=True):
            header, stored = next(encoded)
            self._put(self._end, header)
            self._put(self._end + len(header), stored)
            self._records.append((record, self._end))
            self._paths.add(path)
            self._end += len(header) + len(stored)
            self._size += record.size
            if owner is not None:
                module, attribute = owner
                setattr(module, attribute, None)

    def _encoded(
        self, records: list[Record], tensors: list[torch.Tensor]
    ) -> Iterator[tuple[bytes, Any]]:
        """Headers and bytes in order; `cpu_limit` threads hash and encrypt, a few tensors ahead.

        What was not written yet is a gigabyte at most, or one tensor.
        """

        def encode(record: Record, tensor: torch.Tensor) -> tuple[bytes, Any]:
            return record.encode(bytes_of(tensor) if record.size else memoryview(b""))

        ahead: collections.deque[tuple[Any, int]] = collections.deque()
        waiting = 0
        with concurrent.futures.ThreadPoolExecutor(self.cpu_limit) as pool:
            for record, tensor in zip(records, tensors, strict=True):
                copied = self._cipher is not None or not _is_view(tensor)
                size = record.size if copied else 0
                while ahead and (len(ahead) > _DEPTH * self.cpu_limit or waiting + size > _AHEAD):
                    yield ahead[0][0].result()
                    waiting -= ahead.popleft()[1]
                ahead.append((pool.submit(encode, record, tensor), size))
                waiting += size
            while ahead:
                yield ahead.popleft()[0].result()

    def _record(self, idx: int, path: Path, kind: TensorType, tensor: torch.Tensor) -> Record:
        return Record(
            encode_path(path),
            code_of(tensor.dtype),
            tuple(tensor.shape),
            0 if tensor.is_meta else tensor.nbytes,
            kind=int(kind),
            module=idx,
            cipher=self._cipher,
        )

    def _reserve(self, records: list[Record], version: int) -> None:
        """Room for the lines, before anything is written that would not fit."""
        empty = self._end == self._start + HEAD_SIZE + self._index_size
        tagged = version >= LONG_VERSION
        if tagged and self._version < LONG_VERSION:  # those that stand there get tags too
            self._told = self._index_used = 0
        known = [record for record, _ in self._records[self._told :]]
        lines = (record.line(0, tagged=tagged) for record in (*known, *records))
        needed = self._index_used + sum(map(len, lines))
        if needed > self._index_size:
            if not empty:
                raise RuntimeError("Metadata overflow: write all tensors in one call")
            self._index_size = needed
            self._end = self._start + HEAD_SIZE + needed
        self._version = version

    def _put(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        self._file.seek(offset)
        rest = memoryview(data)
        while rest:
            piece = rest[: self._piece]
            done = self._file.write(piece)
            rest = rest[len(piece) if done is None else done :]

    def _commit(self) -> None:
        tagged = self._version >= LONG_VERSION
        lines = b"".join(
            record.line(offset, tagged=tagged) for record, offset in self._records[self._told :]
        )
        at = self._index_used
        unwritten = at == 0 and (not lines or self._index_size > INDEX_SIZE)
        fill = bytes(self._index_size - len(lines)) if unwritten else b""
        head = head_of(
            self._version,
            len(self._records),
            self._size,
            self._index_size,
            encrypted=self._cipher is not None,
        )
        self._put(self._end, bytes(8))
        self._put(self._start + HEAD_SIZE + at, lines + fill)
        self._put(self._start, head)
        self._told = len(self._records)
        self._index_used = at + len(lines)
        self._file.seek(self._end)
        if hasattr(self._file, "flush"):
            self._file.flush()

    def _finish(self) -> None:
        """The end, behind what somebody wrote after the tensors."""
        if not getattr(self._file, "closed", False) and self._file.tell() > self._end:
            self._put(self._file.tell(), bytes(8))

    def close(self) -> None:
        """Close the file."""
        self._finish()
        self._file.close()

    def __enter__(self) -> TensorSerializer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        leave = getattr(self._file, "__exit__", None)
        if kind is None:
            self._finish()
        if leave is None:
            self.close()
        else:
            leave(kind, error, trace)  # an upload that an exception ends is not published


def _is_view(tensor: torch.Tensor) -> bool:
    """Whether its bytes are taken as they stand in memory."""
    return tensor.device.type == "cpu" and tensor.is_contiguous()


def _writable(file_obj: Any) -> Any:
    if isinstance(file_obj, (str, os.PathLike)):
        return open_stream(file_obj, "wb+")
    if not hasattr(file_obj, "write"):
        raise TypeError(f"file_obj: a {type(file_obj).__name__} is neither a path nor a file")
    # What does not say is taken at its word.
    able = [getattr(file_obj, name, None) for name in ("readable", "writable")]
    mode = getattr(file_obj, "mode", "b+")
    text = isinstance(file_obj, io.TextIOBase) or (isinstance(mode, str) and "b" not in mode)
    if text or not all(known is None or known() for known in able):
        raise ValueError("file_obj: expected a binary file that can be read and written")
    seekable = getattr(file_obj, "seekable", None)
    if seekable is not None and not seekable():
        raise ValueError("file_obj: expected a file that can be sought in")
    return file_obj
