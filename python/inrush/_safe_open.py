"""`safe_open` with the manners of safetensors: names, arguments, errors; over any checkpoint."""

from __future__ import annotations

from inrush import _core
from inrush._arguments import WHOLE, collects, device_for, existing, hinted
from inrush._checkpoint import TensorStream, one_tensor, open_source
from inrush._errors import SafetensorError, WrongTypeError
from inrush._frameworks import converter, described, framework_of
from inrush._job import Job
from inrush._options import Options
from inrush._slicing import basic_index, checked_index

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType
    from typing import Any

    from inrush._arguments import Source
    from inrush._keys import Encryption, Key
    from inrush._slicing import BasicIndex


class safe_open:
    """Open a checkpoint lazily and return tensors as asked.

    Opening reads headers only. Single tensors of local files are views of privately mapped pages,
    read ahead in the background where the file is cold; where a file may not be mapped, or with
    `copy`, each is read when asked for. No thread is started before that. A handle may be used by
    several threads, in a forked process, and without ``with``.

    As with safetensors, every array of numpy has memory that no other has, while torch's views of
    one mapping share its pages.

    Parameters
    ----------
    filename : str, os.PathLike or iterable of them
        A file; several files that make one checkpoint; a directory (its index file decides which
        files belong to it) or a URI.
    framework : str or None
        What tensors are returned as: ``'pt'``, ``'np'``, ``'jax'``, ``'tf'``, ``'mlx'``,
        ``'paddle'``, or safetensors' other names for them. None returns `inrush.Tensor`.
    device : str, int, torch.device or None
        ``'cpu'`` or None: host memory. A GPU, for torch: loads of several tensors go straight
        into its memory, single tensors are mapped and moved by torch, as are all of them to any
        other accelerator.
    backend : str, optional
        A hint, as safetensors has it: ``'mmap'``: as above; ``'pread'``: never map. A name of a
        backend of Inrush, such as ``'uring'``, reads with that one.
    copy : bool or None
        None: tensors may be the file's own pages. True: they own their memory. False: `tensors`
        yields views of a buffer whose memory is used again once a view has died; the tensors of
        all other methods own theirs.
    buffer_size : int or str, optional
        Bytes of that buffer; at least what the largest tensors need, by default 256 MiB.
    storage_options : mapping, optional
        Of a remote place, as for `inrush.open`.
    encryption : Key, bytes or str, optional
        The key of an encrypted checkpoint, as for `inrush.open`; tensors are then read whole.

    Raises
    ------
    FileNotFoundError
        If a file does not exist.
    SafetensorError
        If it is malformed, or an argument is invalid.
    """

    def __init__(
        self,
        filename: Source,
        framework: str | None,
        device: Any = "cpu",
        *,
        backend: Any = "mmap",
        copy: bool | None = None,
        buffer_size: int | str | None = None,
        storage_options: Mapping[str, Any] | None = None,
        encryption: Encryption | Key | None = None,
    ) -> None:
        source = existing(filename)
        words = {
            **WHOLE,
            "framework": framework,
            "copy": copy,
            "buffer_size": buffer_size,
            "storage_options": storage_options,
            "encryption": encryption,
        }
        self._framework = framework_of(framework)
        self._options = Options({**words, **hinted(backend)}).moving_to(
            device_for(framework, device)
        )
        self._convert = converter(framework, self._options.moved_to)
        self._core: _core.Checkpoint | None = open_source(source, options=self._options)
        maps = self._options.mapping == "auto" and not self._options.backend
        self._view = _core.View(self._core) if maps else None
        # Where each array is its caller's alone, a tensor's pages are given away once; after that
        # it is copied from a mapping that nobody has written to.
        self._given: dict[str, object] = {}
        alone = maps and self._framework == "np"
        self._unwritten = _core.View(self._core) if alone else None

    def _mapped(self, info: _core.TensorInfo) -> _core.Tensor | None:
        """The tensor without a load, or None where its file may not be mapped."""
        if self._view is None:
            return None
        if self._unwritten is not None:
            mine = object()
            if self._given.setdefault(info.name, mine) is not mine:
                mapped = self._unwritten.tensor(info)
                return None if mapped is None else mapped.copy()
        return self._view.tensor(info)

    def _opened(self) -> _core.Checkpoint:
        if self._core is None:
            raise SafetensorError("File is closed")
        return self._core

    def _info(self, name: str) -> _core.TensorInfo:
        if not isinstance(name, str):
            raise WrongTypeError(f"tensor {name!r}: expected its name, a str")
        info = self._opened().find(name)
        if info is None:
            raise SafetensorError(f"File does not contain tensor {name}")
        return info

    def keys(self) -> list[str]:
        """The names of the tensors of all files, sorted."""
        return self._opened().names(sorted=True)

    def offset_keys(self) -> list[str]:
        """The names of the tensors by file name, then offset."""
        return self._opened().names()

    def metadata(self) -> dict[str, str] | None:
        """The metadata of all files' headers, None where none has any.

        Where two files have the same key, it is the first one's.
        """
        merged: dict[str, str] | None = None
        for one in self._opened().metadata:
            if one is not None:
                merged = {**one, **(merged or {})}
        return merged

    @property
    def total_tensor_size(self) -> int:
        """Bytes of all tensors."""
        return self._opened().nbytes

    def get_tensor_metadata(self, name: str) -> tuple[Any, Any]:
        """The dtype and the shape of a tensor, without reading it.

        Returns
        -------
        tuple
            As the framework has them: ``(torch.dtype, torch.Size)``, ``(numpy.dtype, tuple)``;
            else safetensors' name of the dtype, and a tuple of elements.

        Raises
        ------
        SafetensorError
            If there is none of that name, or the file is closed.
        """
        info = self._info(name)
        return described(info.dtype, info.shape, self._framework)

    def get_tensor(self, name: str) -> Any:
        """The tensor of that name.

        Raises
        ------
        SafetensorError
            If there is none of that name, or the file is closed.
        """
        info = self._info(name)
        tensor = self._mapped(info)
        if tensor is None:
            tensor = read_part(self._opened(), self._options, name)
        return tensor if self._convert is None else self._convert(tensor)

    def get_tensors(self) -> dict[str, Any]:
        """All tensors by name, loaded together."""
        collect = collects(self._options.moved_to)
        with Job(self._opened(), self._options, collect=collect, keep=True) as job:
            return dict(iter(job))

    def tensors(self) -> TensorStream:
        """All tensors by file name, then offset, streamed while they are read.

        Returns
        -------
        TensorStream
            Yields (name, tensor). Every iteration reads anew; one that is left early stops.
        """
        return TensorStream(self._opened(), self._options)

    def get_slice(self, name: str) -> TensorSlice:
        """An object to index instead of the tensor, which reads only what the index asks for."""
        return TensorSlice(self, self._info(name))

    def __enter__(self) -> safe_open:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._options.derived.clear()
        self._core = None
        self._view = None
        self._unwritten = None
        self._given = {}


class _safe_open_handle(safe_open):
    """`safe_open` of a file object that has a name and a descriptor, as fsspec's local files do."""

    def __init__(
        self, f: Any, framework: str | None, device: Any = "cpu", *, backend: Any = "mmap"
    ) -> None:
        if not hasattr(f, "fileno"):
            raise AttributeError(f"a {type(f).__name__} has no descriptor of a file")
        super().__init__(f.name, framework, device, backend=backend)


class TensorSlice:
    """A tensor that is read by indexing it. Made by `safe_open.get_slice`, which it outlives."""

    def __init__(self, opened: safe_open, info: _core.TensorInfo) -> None:
        self._info = info
        self._core = opened._opened()
        self._options = opened._options
        self._framework = opened._framework
        self._convert = opened._convert
        # A mapped tensor costs nothing until it is touched.
        view = opened._unwritten or opened._view
        self._mapped = None if view is None else view.tensor(info)

    def get_shape(self) -> list[int]:
        """Extents in elements."""
        return list(self._info.shape)

    def get_dtype(self) -> str:
        """Element type as safetensors names it."""
        return self._info.dtype

    def __getitem__(self, index: Any) -> Any:
        """The part of the tensor that `index` selects.

        torch indexes as it does; for the others an index is made of integers, and of slices that
        end inside the tensor, as with safetensors. With framework None, whose tensors take no
        index, it is made of integers and slices.

        Raises
        ------
        IndexError, ValueError
            Where torch would.
        SafetensorError
            If the index is no such one.
        """
        shape = self._info.shape
        if self._framework not in (None, "pt"):
            # The ellipsis keeps what has no dimension left an array.
            index = (*checked_index(index, shape), Ellipsis)
        # The others' arrays may be copies, and the whole tensor is more than was asked for.
        viewed = self._framework in ("pt", "np") and self._options.moved_to is None
        if viewed and self._mapped is not None and self._convert is not None:
            part = self._convert(self._mapped)[index]
            return part.copy() if self._framework == "np" else part
        basic = basic_index(index, shape)
        if basic is None:
            if self._convert is None:
                raise SafetensorError(f"index {index!r}: expected slices and integers")
            return self._convert(read_part(self._core, self._options, self._info.name))[index]
        part = read_part(self._core, self._options, self._info.name, basic)
        return part if self._convert is None else self._convert(part)


def read_part(
    core: _core.Checkpoint, options: Options, name: str, part: BasicIndex | None = None
) -> _core.Tensor:
    """One tensor, or a part of it, read now into memory of its own."""
    words = one_tensor(name, None if part is None else part.slices)
    with Job(core, Options(words, options).moving_to(None), collect=True) as job:
        tensor: _core.Tensor = next(iter(job))[1]
    return tensor if part is None else tensor.reshape(part.shape)
