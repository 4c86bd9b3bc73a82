"""`safe_open` with the manners of safetensors: names, arguments, errors."""

from __future__ import annotations

import os

from inrush import _core
from inrush._checkpoint import one_tensor, open_source
from inrush._errors import Error
from inrush._frameworks import converter
from inrush._job import Job
from inrush._options import Options
from inrush._slicing import basic_index

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Any

# Code written for safetensors catches one class for whatever is wrong.
SafetensorError = Error


class safe_open:
    """Open a checkpoint lazily and return tensors as asked.

    Tensors of local files are views of privately mapped pages, read ahead in the background
    where the file is cold. Where a file may not be mapped, each tensor is read when asked for.

    Parameters
    ----------
    filename : str or os.PathLike
        A file; a directory or a URI works too.
    framework : {'pt', 'torch', 'np', 'numpy', None}
        What tensors are returned as; None returns `inrush.Tensor`.
    device : str
        ``'cpu'``.
    backend : str, optional
        ``'mmap'`` or None: as above. Any other backend reads without mapping.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    SafetensorError
        If it is malformed, or an argument is invalid.
    """

    def __init__(
        self,
        filename: str | os.PathLike[str],
        framework: str | None,
        device: Any = "cpu",
        *,
        backend: Any = None,
    ) -> None:
        path = os.fspath(filename)
        if "://" not in path and not os.path.exists(path):
            raise FileNotFoundError(f"No such file or directory: {path}")
        mapped = backend is None or str(backend).lower() == "mmap"
        words = {"framework": framework, "device": device}
        self._options = Options(words if mapped else {**words, "backend": backend})
        self._convert = converter(framework)
        self._core: _core.Checkpoint | None = open_source(path)
        self._view = _core.View(self._core) if mapped and self._options.mapping == "auto" else None

    def _opened(self) -> _core.Checkpoint:
        if self._core is None:
            raise SafetensorError("File is closed")
        return self._core

    def _info(self, name: str) -> _core.TensorInfo:
        info = self._opened().find(name)
        if info is None:
            raise SafetensorError(f"File does not contain tensor {name}")
        return info

    def keys(self) -> list[str]:
        """The names of the tensors, sorted."""
        return self._opened().names(sorted=True)

    def offset_keys(self) -> list[str]:
        """The names of the tensors in file order."""
        return self._opened().names()

    def metadata(self) -> dict[str, str] | None:
        """The metadata of the header, None where it has none."""
        merged: dict[str, str] | None = None
        for one in self._opened().metadata:
            if one is not None:
                merged = {**one, **(merged or {})}
        return merged

    def get_tensor(self, name: str) -> Any:
        """The tensor of that name.

        Raises
        ------
        SafetensorError
            If there is none of that name, or the file is closed.
        """
        info = self._info(name)
        tensor = None if self._view is None else self._view.tensor(info)
        if tensor is None:
            return self._read(name)
        return tensor if self._convert is None else self._convert(tensor)

    def get_tensors(self) -> dict[str, Any]:
        """All tensors by name, loaded together."""
        with Job(self._opened(), self._options, collect=True) as job:
            return dict(iter(job))

    def get_slice(self, name: str) -> TensorSlice:
        """An object to index instead of the tensor, which reads only what the index asks for."""
        return TensorSlice(self, self._info(name))

    def _read(self, name: str, slices: Any = None, shape: Sequence[int] | None = None) -> Any:
        options = Options(one_tensor(name, slices), self._options)
        with Job(self._opened(), options, collect=True) as job:
            tensor = next(iter(job))[1]
        if shape is not None:
            tensor = tensor.reshape(shape)
        return tensor if self._convert is None else self._convert(tensor)

    def __enter__(self) -> safe_open:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._core = None
        self._view = None


class TensorSlice:
    """A tensor that is read by indexing it. Made by `safe_open.get_slice`."""

    def __init__(self, opened: safe_open, info: _core.TensorInfo) -> None:
        self._opened = opened
        self._info = info
        # A mapped tensor costs nothing until it is touched, and outlives the closing of the file.
        self._mapped = opened.get_tensor(info.name) if opened._view is not None else None

    def get_shape(self) -> list[int]:
        """Extents in elements."""
        return list(self._info.shape)

    def get_dtype(self) -> str:
        """Element type as safetensors names it."""
        return self._info.dtype

    def __getitem__(self, index: Any) -> Any:
        """The part of the tensor that `index` selects, as the framework would index it."""
        if self._mapped is not None and self._opened._convert is not None:
            return self._mapped[index]
        basic = basic_index(index, self.get_shape())
        if basic is None:
            return self._opened.get_tensor(self._info.name)[index]
        return self._opened._read(self._info.name, basic.slices, basic.shape)
