"""Reading `.tensors` files as tensorizer's class does."""

from __future__ import annotations

import contextlib
import copy
import functools
import threading
from collections.abc import Mapping

import torch
from torch.utils.dlpack import from_dlpack

from inrush._arguments import WHOLE
from inrush._checkpoint import Checkpoint
from inrush._errors import DataError, UsageError
from inrush._tensors_file import HEAD_SIZE, parse_record
from inrush._tensors_paths import frozen, nest, plain, way_of
from inrush.tensorizer._arguments import check_arguments, check_key
from inrush.tensorizer._crypto import CryptographyError
from inrush.tensorizer._devices import bytes_of, chosen_device, raw_array, settled_device
from inrush.tensorizer._lines import Lines
from inrush.tensorizer._redis import write_tensors
from inrush.tensorizer._source import in_groups, open_as_source, readable
from inrush.tensorizer._types import (
    FileFeatureFlags,
    FileHeader,
    HashMismatchError,
    TensorType,
    code_of,
    type_of,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, KeysView, Sequence
    from types import TracebackType
    from typing import Any

    from inrush._tensors_file import Line
    from inrush._tensors_paths import Path
    from inrush.tensorizer._crypto import DecryptionParams
    from inrush.tensorizer._types import FilterFuncType


class TensorDeserializer(Mapping):  # type: ignore[type-arg]
    """The tensors of a `.tensors` file, as a mapping of its first layer.

    Parameters
    ----------
    file_obj : str, os.PathLike or binary file
        What `stream_io.open_stream` opens, or what it gave.
    device : torch.device, str or int, optional
        Default: cuda where there is one, else the CPU. ``'cuda'`` is the device that is current
        when a tensor is loaded.
    filter_func : callable, optional
        Of a name (or a tuple, in nested structures): whether it is wanted. The others are not read.
    dtype : torch.dtype, optional
        What floating-point tensors are cast to.
    lazy_load : bool
        Read a tensor when it is asked for.
    plaid_mode, plaid_mode_buffers
        Accepted and without effect, as in tensorizer.
    num_readers : int, optional
        How many connections fetch from a server at most; by default, and from local files, as much
        is in flight as helps.
    verify_hash : bool
        Compare checksums while reading.
    encryption : DecryptionParams, optional

    Raises
    ------
    ValueError
        It is no sound `.tensors` file.
    CryptographyError
        It is encrypted and no key was given, or the reverse; the key is wrong.
    HashMismatchError
        A checksum differs.
    """

    def __init__(
        self,
        file_obj: Any,
        device: torch.device | str | int | None = None,
        filter_func: FilterFuncType | None = None,
        dtype: torch.dtype | None = None,
        *,
        lazy_load: bool = False,
        plaid_mode: bool | None = None,
        plaid_mode_buffers: int | None = None,
        num_readers: int | None = None,
        verify_hash: bool = False,
        encryption: DecryptionParams | None = None,
    ) -> None:
        del plaid_mode, plaid_mode_buffers
        check_key(encryption)
        self._device = chosen_device(device)
        self._dtype = dtype
        self._verify = verify_hash
        self._key = encryption
        self._eager = not lazy_load
        self._lock = threading.RLock()
        self._tensors: dict[Path, torch.nn.Parameter] = {}
        self._next = 0  # of the lines, for read_tensors
        self._file = readable(file_obj)
        with contextlib.ExitStack() as opened:
            opened.callback(self._file.close)
            check_arguments(num_readers, dtype)
            self._source = open_as_source(self._file, num_readers)
            opened.callback(self._source.close)
            self._checkpoint: Checkpoint | None = self._opened()
            opened.callback(self._checkpoint.close)
            self._check_encryption(self._checkpoint)
            self._lines = self._wanted(filter_func)
            if self._source.alone and min(num_readers or 1, len(self._lines)) > 1:
                raise ValueError(
                    "num_readers: this kind of file cannot be opened again, and so has one reader"
                )
            if self._eager:
                self._load(list(self._lines))
                self._file.close()
            self._closing = opened.pop_all()

    def _opened(self, path: str | None = None, *, verify: bool | None = None) -> Checkpoint:
        words: dict[str, Any] = {**WHOLE, "encryption": self._key, **self._source.options}
        words["verify"] = "full" if (self._verify if verify is None else verify) else "none"
        if not self._source.stable:
            words["mapping"] = "never"
        checkpoint = Checkpoint(path or self._source.path, **words)
        if checkpoint.format != "tensorizer":
            checkpoint.close()
            raise ValueError("Not a tensorizer file")
        return checkpoint

    def _check_encryption(self, checkpoint: Checkpoint) -> None:
        encrypted = checkpoint._opened().encrypted or bool(self._file_flags & 1)
        if encrypted and self._key is None:
            raise CryptographyError("Tensor is encrypted, but decryption was not requested")
        if not encrypted and self._key is not None:
            raise CryptographyError("decryption was requested, but the file is not encrypted")

    def _head(self) -> bytes:
        return self._source.read(0, HEAD_SIZE)

    @property
    def _file_header(self) -> FileHeader:
        head = self._head()
        version = int.from_bytes(head[5:9], "little")
        flags = int.from_bytes(head[9:41], "little") if version >= 4 else int(version == 3)
        return FileHeader(version, FileFeatureFlags(flags))

    @property
    def _file_flags(self) -> FileFeatureFlags:
        return self._file_header.feature_flags

    def _index(self) -> tuple[bytes, bytes]:
        """The head, and the index behind it."""
        head = self._head()
        return head, self._source.read(HEAD_SIZE, int.from_bytes(head[-8:], "little"))

    def _wanted(self, filter_func: FilterFuncType | None) -> Lines:
        head, index = self._index()
        try:
            lines = Lines(head, index)
        except ValueError as error:
            raise DataError(f"index {self._source.path}: {error}") from None
        return lines if filter_func is None else lines.only(filter_func)

    @property
    def total_tensor_bytes(self) -> int:
        """Bytes of the tensors that are wanted; after an eager load, of what stood in the file."""
        return sum(line.size if self._eager else line.nbytes for line in self._lines.values())

    @property
    def total_file_bytes(self) -> int:
        """Bytes of all the file's tensors, as its head says."""
        return int.from_bytes(self._head()[0x29:0x31], "little")

    @property
    def total_bytes_read(self) -> int:
        """Bytes that were read so far."""
        fetched = self._source.bytes_read
        if fetched is not None:
            return fetched
        return sum(self._lines[path].size for path in self._tensors)

    read_bytes = 0
    total_compressed_tensor_bytes = 0

    @property
    def cache_status(self) -> str | None:
        """What an HTTP server said about its cache."""
        headers = getattr(self._file, "response_headers", None)
        return None if headers is None else headers.get("x-cache-status")

    def _load(self, paths: Iterable[Path], *, verify: bool | None = None) -> None:
        with self._lock:
            missing = [path for path in paths if path not in self._tensors]
            for _ in self._arriving(missing, verify):
                pass

    @functools.cached_property
    def _names(self) -> list[str]:
        """What the engine calls the tensors, in the order of the file's lines."""
        return list(self._checkpoint or ())

    def _arriving(self, paths: list[Path], verify: bool | None) -> Iterator[Path]:
        """Each of these when its tensor is here, in their order."""
        if not paths:
            return
        if self._checkpoint is None:
            raise ValueError("I/O operation on closed file.")
        checked = self._verify if verify is None else verify
        options: Any = {"verify": "full" if checked else "none"}
        try:
            by_place = sorted(paths, key=lambda path: self._lines[path].header)
            with self._source.holding(self._lines[path] for path in by_place) as place:
                if self._source.stable:
                    checkpoint = self._checkpoint
                    names = {self._names[self._lines.number(path)]: path for path in paths}
                else:
                    checkpoint = self._opened(place, verify=verify)
                    known = dict(zip(by_place, checkpoint, strict=True))
                    names = {known[path]: path for path in paths}
                for name, tensor in checkpoint.tensors(order=list(names), **options):
                    path = names[name]
                    self._tensors[path] = self._parameter(tensor, self._lines[path])
                    yield path
        except (DataError, UsageError) as error:
            raise _translated(error) from error

    def _parameter(self, tensor: Any, line: Line) -> torch.nn.Parameter:
        kind = type_of(line.dtype)
        if tensor.nbytes == 0:
            value = torch.empty(line.shape, dtype=kind)
        else:
            value = from_dlpack(tensor.as_bytes().reshape([tensor.nbytes]))
            value = value.view(kind).reshape(line.shape)
        if self._dtype is not None and value.is_floating_point():
            value = value.to(self._dtype)
        value = value.to(settled_device(self._device))
        wants_gradient = value.is_floating_point() or value.is_complex()
        return torch.nn.Parameter(value, requires_grad=wants_gradient)

    def tree(
        self,
        prefix: Sequence[str | int] | None = None,
        *,
        default: Any = None,
        filter_func: FilterFuncType | None = None,
    ) -> Any:
        """The structure below a place, as nested dictionaries and lists.

        Parameters
        ----------
        prefix : sequence of str and int, optional
            The place; by default the whole.
        default : object
            What is returned where there is nothing.
        filter_func : callable, optional
            Of a whole path: whether it is wanted. The others are not read.

        Raises
        ------
        TypeError
            If `prefix` is no sequence of parts.
        """
        if isinstance(prefix, (str, int)):
            raise TypeError(f"prefix: expected a sequence of parts, got {type(prefix).__name__}")
        way = tuple(prefix or ())
        paths = [
            path
            for path in self._lines
            if way_of(path)[: len(way)] == way and _wants(filter_func, path)
        ]
        if not paths:
            return default
        self._load(paths)
        below: Any = nest({path: self._tensors[path] for path in paths})
        for part in way:
            below = below[part]
        return plain(below)

    def __getitem__(self, name: Any) -> Any:
        try:
            paths = self._lines.below(name)
        except (KeyError, TypeError):
            raise KeyError(f"Tensor {name} not found") from None
        self._load(paths)
        return frozen(nest({path: self._tensors[path] for path in paths})[name])

    def __iter__(self) -> Iterator[Any]:
        return iter(self._lines.layers)

    def __len__(self) -> int:
        return len(self._lines.layers)

    def __contains__(self, key: object) -> bool:
        return key in self._lines.layers

    def keys(self) -> KeysView[Any]:
        """The names of the first layer, in the file's order."""
        return self._lines.layers.keys()

    def load_into_module(
        self,
        m: torch.nn.Module,
        filter_func: FilterFuncType | None = None,
        verify_hash: bool | None = None,
    ) -> int:
        """Put the tensors into a module, and close the file; how many they were.

        Raises
        ------
        NotImplementedError
            The file holds a state dict.
        KeyError
            The module lacks one of those that were written.
        """
        paths = [path for path in self._lines if _wants(filter_func, path)]
        for path in paths:
            if self._lines[path].kind == TensorType.STATE_DICT or not isinstance(path, str):
                raise NotImplementedError(
                    "a state dict cannot be loaded into a module: use it as one"
                )
        self._load(paths, verify=verify_hash)
        modules = dict(m.named_modules())
        for path in paths:
            owner, _, name = str(path).rpartition(".")
            module = modules[owner]
            tensor = self._tensors[path]
            if self._lines[path].kind == TensorType.PARAM:
                module.register_parameter(name, tensor)
            else:
                transient = name in module._non_persistent_buffers_set
                module.register_buffer(name, tensor.detach(), persistent=not transient)
        self._file.close()
        return len(paths)

    def verify_module(self, m: torch.nn.Module) -> tuple[bool, list[tuple[Any, bool]]]:
        """Whether a module's tensors are those that the file's checksums were made of.

        Returns
        -------
        bool
            All of them are, and none is missing.
        list of (str, bool)
            Each tensor.

        Raises
        ------
        RuntimeError
            The tensors were not loaded yet, or the file is closed.
        """
        known: dict[Any, torch.Tensor] = {**dict(m.named_parameters()), **dict(m.named_buffers())}
        known.update(m.state_dict())
        results: list[tuple[Any, bool]] = []
        for path, line in self._lines.items():
            # The root's tensors stand in files with a dot in front.
            tensor = known.get(path.removeprefix(".") if isinstance(path, str) else path)
            if tensor is not None and (path not in self._tensors or self._checkpoint is None):
                raise RuntimeError("verify_module: load the tensors first, and close the file last")
            results.append((path, tensor is not None and self._has_checksums(tensor, line)))
        return all(right for _, right in results), results

    def _has_checksums(self, tensor: torch.Tensor, line: Line) -> bool:
        if code_of(tensor.dtype) != line.dtype or tuple(tensor.shape) != tuple(line.shape):
            return False
        encrypted = self._key is not None
        record = parse_record(self._source.header(line), wide=line.wide, encrypted=encrypted)
        return record.matches(bytes_of(tensor) if line.size else memoryview(b""))

    def _selected(
        self, filter_func: FilterFuncType | None, num_tensors: int, verify: bool | None
    ) -> Iterator[tuple[int, int, Path]]:
        """Go on behind what an earlier call gave, in the file's order."""
        paths = [(i, path) for i, path in enumerate(self._lines) if i >= self._next]
        wanted = [(i, path) for i, path in paths if _wants(filter_func, path)]
        if num_tensors >= 0:
            wanted = wanted[:num_tensors]
        missing = [path for _, path in wanted if path not in self._tensors]
        # One load of all that is to come; of what has to be copied first, a few MiB at a time.
        stable = self._source.stable
        arriving = self._arriving(missing, verify) if stable else iter(())
        groups = in_groups([] if stable else missing, self._lines)
        lines = [self._lines[path] for _, path in wanted]
        headers = self._source.headers(lines)
        for (i, path), line, header in zip(wanted, lines, headers, strict=True):
            while path not in self._tensors and next(arriving, None) is not None:
                pass
            while path not in self._tensors:
                self._load(next(groups, [path]), verify=verify)
            self._next = i + 1
            yield int.from_bytes(header[8:10], "little"), TensorType(line.kind), path
        if num_tensors < 0 or len(wanted) < num_tensors:
            self._next = len(self._lines)

    def read_tensors(
        self,
        filter_func: FilterFuncType | None = None,
        num_tensors: int = -1,
        verify_hash: bool | None = None,
    ) -> Iterator[tuple[int, int, Any, torch.Tensor]]:
        """Yield (number of the module, type, name, tensor) in the file's order.

        A further call goes on where the one before ended.
        """
        for module, kind, path in self._selected(filter_func, num_tensors, verify_hash):
            yield module, kind, path, self._tensors[path]

    def read_numpy_arrays(
        self,
        filter_func: FilterFuncType | None = None,
        num_tensors: int = -1,
        allow_raw_data: bool = False,
        verify_hash: bool | None = None,
    ) -> Iterator[tuple[int, int, Any, Any, bool, str | None]]:
        """Yield (number of the module, type, name, array, whether it is raw, torch's dtype).

        Parameters
        ----------
        allow_raw_data : bool
            Give tensors of a dtype that numpy lacks as integers of its width, and torch's name
            of it.

        Raises
        ------
        RuntimeError
            The tensors go to another device than the CPU.
        ValueError
            numpy lacks a dtype, and raw data are not allowed.
        """
        if self._device.type != "cpu":
            raise RuntimeError("read_numpy_arrays: only possible on the CPU")
        whole = self if self._dtype is None else copy.copy(self)
        if whole is not self:  # arrays are the file's own, whatever tensors are cast to
            whole._dtype, whole._tensors = None, {}
        for module, kind, path in whole._selected(filter_func, num_tensors, verify_hash):
            self._next = whole._next
            tensor = whole._tensors[path].detach()
            if whole is not self:
                del whole._tensors[path]
            width, _, name = self._lines[path].dtype.partition("\0")
            if name and not allow_raw_data:
                raise ValueError(
                    f"{path!r} has an opaque datatype, {name}: allow_raw_data=True gives its bytes"
                )
            if name:
                integer = width.replace("V", "i")
                yield module, kind, path, raw_array(tensor, integer), True, name
            else:
                yield module, kind, path, tensor.numpy(), False, None
        self._next = whole._next

    def to_redis(self, redis_client: Any, key_prefix: str, force: bool = False) -> None:
        """Write the file into a Redis server, from where ``redis://HOST/PREFIX`` reads it.

        Parameters
        ----------
        redis_client : redis.Redis
        key_prefix : str
        force : bool
            Write tensors anew that are there already.
        """
        redis_client.set(f"{key_prefix}:header:0", b"".join(self._index()))
        write_tensors(redis_client, key_prefix, self._lines.values(), self._source, force=force)

    def close(self) -> None:
        """Close the file, the caller's too; what was loaded stays."""
        self._checkpoint = None
        self._closing.close()

    def __enter__(self) -> TensorDeserializer:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _wants(filter_func: FilterFuncType | None, path: Path) -> bool:
    return filter_func is None or bool(filter_func(path))


def _translated(error: DataError | UsageError) -> Exception:
    text = str(error)
    if text.startswith("verify "):
        return HashMismatchError(text)
    if text.startswith("decrypt "):
        return CryptographyError(text)
    return error
