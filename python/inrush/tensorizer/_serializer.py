"""Writing `.tensors` files as tensorizer's class does."""

from __future__ import annotations

import collections
import concurrent.futures
import os

import torch

from inrush._tensors_file import HEAD_SIZE, INDEX_SIZE, Record, head_of, version_of
from inrush.tensorizer._crypto import EncryptionParams
from inrush.tensorizer._devices import bytes_of
from inrush.tensorizer._paths import check_paths, encode_path, flatten
from inrush.tensorizer._types import TensorType, code_of
from inrush.tensorizer.stream_io import open_stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import TracebackType
    from typing import Any

    from inrush.tensorizer._paths import Path


class TensorSerializer:
    """Writes a `.tensors` file. The file is whole after every call that writes.

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
        self.cpu_limit = limit_cpu_concurrency or len(os.sched_getaffinity(0))
        self.total_compressed_tensor_bytes = 0
        self._cipher = None if encryption is None else encryption._cipher
        self._file = _writable(file_obj)
        self._start = self._file.tell()
        self._records: list[tuple[Record, int]] = []  # with where each begins
        self._paths: list[Path] = []
        self._meta = False
        self._index_size = 0
        self._end = 0
        self._size = 0

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
        name : str or tuple
        tensor_type : TensorType
        tensor : torch.Tensor or numpy.ndarray
        """
        if not isinstance(tensor, torch.Tensor):
            tensor = torch.from_numpy(tensor)
        self._write([(idx, name, TensorType(tensor_type), tensor, None)])

    def write_state_dict(self, state_dict: Any) -> None:
        """Write nested dictionaries, lists and tuples of tensors."""
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
        check_paths([*self._paths, *(path for _, path, *_ in specs)])
        records = [self._record(idx, path, kind, tensor) for idx, path, kind, tensor, _ in specs]
        self._reserve(records)
        tensors = [tensor for *_, tensor, _ in specs]
        encoded = self._encoded(records, tensors)
        for record, (_, path, _, _, owner) in zip(records, specs, strict=True):
            header, stored = next(encoded)
            self._put(self._end, header)
            self._put(self._end + len(header), stored)
            self._records.append((record, self._end))
            self._paths.append(path)
            self._end += len(header) + len(stored)
            self._size += record.size
            if owner is not None:
                module, attribute = owner
                setattr(module, attribute, None)
        self._commit()

    def _encoded(
        self, records: list[Record], tensors: list[torch.Tensor]
    ) -> Iterator[tuple[bytes, Any]]:
        """Headers and bytes in order; `cpu_limit` threads hash and encrypt, a few tensors ahead."""

        def encode(record: Record, tensor: torch.Tensor) -> tuple[bytes, Any]:
            return record.encode(bytes_of(tensor) if record.size else memoryview(b""))

        ahead: collections.deque[Any] = collections.deque()
        with concurrent.futures.ThreadPoolExecutor(self.cpu_limit) as pool:
            for pair in zip(records, tensors, strict=True):
                ahead.append(pool.submit(encode, *pair))
                if len(ahead) > self.cpu_limit:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()

    def _record(self, idx: int, path: Path, kind: TensorType, tensor: torch.Tensor) -> Record:
        if tensor.is_meta:
            self._meta = True
        return Record(
            encode_path(path),
            code_of(tensor.dtype),
            tuple(tensor.shape),
            0 if tensor.is_meta else tensor.nbytes,
            kind=int(kind),
            module=idx,
            cipher=self._cipher,
        )

    def _lines(self, records: Iterable[tuple[Record, int]]) -> bytes:
        known = list(records)
        tagged = any(record.long for record, _ in known)
        return b"".join(record.line(offset, tagged=tagged) for record, offset in known)

    def _reserve(self, records: list[Record]) -> None:
        """Room for the lines, before anything is written that would not fit."""
        needed = len(self._lines([*self._records, *((record, 0) for record in records)]))
        if not self._records:
            self._index_size = max(INDEX_SIZE, needed)
            self._end = self._start + HEAD_SIZE + self._index_size
        elif needed > self._index_size:
            raise RuntimeError("Metadata overflow: write all tensors in one call")

    def _put(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        self._file.seek(offset)
        rest = memoryview(data)
        while rest:
            done = self._file.write(rest)
            rest = rest[len(rest) if done is None else done :]

    def _commit(self) -> None:
        encrypted = self._cipher is not None
        version = version_of(
            (record for record, _ in self._records), encrypted=encrypted, meta=self._meta
        )
        if version == 5 and not any(record.long for record, _ in self._records):
            raise AssertionError("version 5 without a long dimension")
        self._put(self._end, bytes(8))
        lines = self._lines(self._records)
        head = head_of(
            version, len(self._records), self._size, self._index_size, encrypted=encrypted
        )
        self._put(self._start, head + lines + bytes(self._index_size - len(lines)))
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
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
        if leave is None:
            self.close()
        else:
            leave(kind, error, trace)  # an upload that an exception ends is not published


def _writable(file_obj: Any) -> Any:
    if isinstance(file_obj, (str, os.PathLike)):
        return open_stream(file_obj, "wb+")
    if not hasattr(file_obj, "write"):
        raise TypeError(f"file_obj: a {type(file_obj).__name__} is neither a path nor a file")
    mode = getattr(file_obj, "mode", "b+")
    if (isinstance(mode, str) and "b" not in mode and mode != "rb+") or not file_obj.readable():
        raise ValueError("file_obj: expected a binary file that can be read and written")
    if not file_obj.seekable():
        raise ValueError("file_obj: expected a file that can be sought in")
    return file_obj
