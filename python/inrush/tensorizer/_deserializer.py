"""Reading `.tensors` files as tensorizer's class does."""

from __future__ import annotations

import os
import struct
import warnings
from collections.abc import Mapping

import torch
from torch.utils.dlpack import from_dlpack

from inrush._checkpoint import Checkpoint
from inrush._errors import DataError
from inrush._tensors_file import Line, read_lines
from inrush.tensorizer._crypto import CryptographyError, DecryptionParams
from inrush.tensorizer._paths import check_paths, decode_path, nest
from inrush.tensorizer._types import HashMismatchError, TensorType, type_of
from inrush.tensorizer.stream_io import open_stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Any, BinaryIO

    from inrush.tensorizer._paths import Path
    from inrush.tensorizer._types import FilterFuncType


class TensorDeserializer(Mapping):  # type: ignore[type-arg]
    """The tensors of a `.tensors` file, as a mapping of its first layer.

    Parameters
    ----------
    file_obj : str, os.PathLike or binary file
    device : torch.device, str or int, optional
        Default: cuda where there is one, else the CPU.
    filter_func : callable, optional
        Of a name (or a tuple, in nested structures): whether it is wanted. The others are not read.
    dtype : torch.dtype, optional
        What floating-point tensors are cast to.
    lazy_load : bool
        Read a tensor when it is asked for.
    plaid_mode, plaid_mode_buffers
        Accepted and without effect, as in tensorizer.
    num_readers : int, optional
        Accepted; Inrush reads with as much in flight as helps.
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
        if encryption is not None and not isinstance(encryption, DecryptionParams):
            raise TypeError("encryption: expected DecryptionParams")
        if num_readers is not None and (not isinstance(num_readers, int) or num_readers is True):
            raise TypeError("num_readers: expected an int")
        if num_readers is not None and num_readers < 1:
            raise ValueError("num_readers: at least 1")
        self._device = _device(device)
        self._dtype = dtype
        self._verify = verify_hash
        self._memory = -1
        self._own = None if hasattr(file_obj, "read") else open_stream(file_obj, "rb")
        self._file: BinaryIO = self._own or file_obj
        self._checkpoint = self._open(encryption)
        self._lines = self._wanted(filter_func)
        self._tensors: dict[Path, torch.nn.Parameter] = {}
        if not lazy_load:
            self._load(list(self._lines))

    def _open(self, encryption: DecryptionParams | None) -> Checkpoint:
        words = {"encryption": encryption, "verify": "full" if self._verify else "none"}
        checkpoint = Checkpoint(self._path(), **words)  # type: ignore[arg-type]
        encrypted = checkpoint._opened().encrypted
        if checkpoint.format != "tensorizer":
            raise ValueError("Not a tensorizer file")
        if encrypted and encryption is None:
            raise CryptographyError("Tensor is encrypted, but decryption was not requested")
        if not encrypted and encryption is not None:
            raise CryptographyError("decryption was requested, but the file is not encrypted")
        return checkpoint

    def _path(self) -> str:
        """A path to the file's bytes; those of a file in memory are put where they have one."""
        name = getattr(self._file, "name", None)
        try:
            descriptor = self._file.fileno()
        except (OSError, AttributeError):
            self._memory = os.memfd_create("inrush")
            rest = memoryview(self._file.read())
            while rest:
                rest = rest[os.write(self._memory, rest) :]
            self._file = os.fdopen(os.dup(self._memory), "rb")
            return f"/proc/self/fd/{self._memory}"
        same = isinstance(name, str) and os.path.exists(name)
        if same and os.path.samestat(os.stat(str(name)), os.fstat(descriptor)):
            return str(name)
        return f"/proc/self/fd/{descriptor}"

    def _wanted(self, filter_func: FilterFuncType | None) -> dict[Path, Line]:
        lines = {decode_path(line.path): line for line in read_lines(self._file)}
        check_paths(lines)
        if filter_func is None:
            return lines
        return {path: line for path, line in lines.items() if filter_func(path)}

    @property
    def total_tensor_bytes(self) -> int:
        """Bytes of the tensors that are wanted, as they stand in the file."""
        return sum(line.size for line in self._lines.values())

    total_bytes_read = total_tensor_bytes

    def _load(self, paths: list[Path], *, verify: bool | None = None) -> None:
        missing = [path for path in paths if path not in self._tensors]
        if not missing:
            return
        names = {_dotted(path): path for path in missing}
        checked = self._verify if verify is None else verify
        options = {"order": list(names), "verify": "full" if checked else "none"}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # said once, when it was opened
            try:
                for name, tensor in self._checkpoint.tensors(**options):  # type: ignore[arg-type]
                    path = names[name]
                    self._tensors[path] = self._parameter(tensor, self._lines[path])
            except DataError as error:
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
        value = value.to(self._device)
        wants_gradient = value.is_floating_point() or value.is_complex()
        return torch.nn.Parameter(value, requires_grad=wants_gradient)

    def tree(self) -> dict[Any, Any]:
        """The whole structure, as nested mappings."""
        self._load(list(self._lines))
        return nest({path: self._tensors[path] for path in self._lines})

    def _layer(self, key: Any) -> list[Path]:
        return [path for path in self._lines if (path if isinstance(path, str) else path[0]) == key]

    def __getitem__(self, key: Any) -> Any:
        paths = self._layer(key)
        if not paths:
            raise KeyError(key)
        self._load(paths)
        return nest({path: self._tensors[path] for path in paths})[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(dict.fromkeys(p if isinstance(p, str) else p[0] for p in self._lines))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, key: object) -> bool:
        return bool(self._layer(key))

    def load_into_module(
        self,
        m: torch.nn.Module,
        filter_func: FilterFuncType | None = None,
        verify_hash: bool | None = None,
    ) -> int:
        """Put the tensors into a module; how many they were.

        Raises
        ------
        NotImplementedError
            The file holds a state dict.
        """
        paths = [path for path in self._lines if filter_func is None or filter_func(path)]
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
        return len(paths)

    def read_tensors(
        self,
        filter_func: FilterFuncType | None = None,
        num_tensors: int = -1,
        verify_hash: bool | None = None,
    ) -> Iterator[tuple[int, int, Any, torch.Tensor]]:
        """Yield (number of the module, type, name, tensor) in the file's order."""
        paths = [path for path in self._lines if filter_func is None or filter_func(path)]
        for path in paths if num_tensors < 0 else paths[:num_tensors]:
            self._load([path], verify=verify_hash)
            line = self._lines[path]
            self._file.seek(line.header + 8)
            module = struct.unpack("<H", self._file.read(2))[0]
            yield module, line.kind, path, self._tensors[path].data

    def close(self) -> None:
        """Close the file; what was loaded stays."""
        self._checkpoint.close()
        if self._own is not None:
            self._own.close()
        if self._memory >= 0:
            os.close(self._memory)
            self._memory = -1

    def __enter__(self) -> TensorDeserializer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _dotted(path: Path) -> str:
    return path if isinstance(path, str) else ".".join(map(str, path))


def _device(device: torch.device | str | int | None) -> torch.device:
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    chosen = torch.device(device)
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise RuntimeError("Cannot deserialize to CUDA device: CUDA is not available")
    return chosen


def _translated(error: DataError) -> Exception:
    text = str(error)
    if text.startswith("verify "):
        return HashMismatchError(text)
    if text.startswith("decrypt "):
        return CryptographyError(text)
    return error
