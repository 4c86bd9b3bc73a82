"""Where a conversion goes: a folder of this machine until it is whole, or a remote place."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil

from inrush import _core
from inrush._errors import DataError, Error, SourceError, UsageError
from inrush._storage import storage_for, without_secrets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from concurrent.futures import Future, ThreadPoolExecutor
    from types import TracebackType
    from typing import Any

    from inrush._layouts import Layout
    from inrush._options import OptionWords

    Bytes = bytes | bytearray | memoryview

_SUFFIX = ".inrush-partial"
_LEDGER = ".ledger"
_STEP = 8 << 20  # bytes that a remote writer is handed at once
_SMALL = 64 << 10  # bytes of a piece that is put together with others
_ZEROS = bytes(_SMALL)


def _write(writer: _core.Writer, offset: int, data: Bytes) -> None:
    if len(data):
        writer.write(offset, _core.buffer_address(data), len(data))


class Folder:
    """The folder in which everything lies until it is whole, and its name is given to it.

    Attributes
    ----------
    place : str
        What `inrush.open` opens before it is published.
    words : dict
        What it is opened with.
    in_order : bool
        Whether the bytes of a file must come one behind the other.
    """

    in_order = False

    def __init__(self, target: str, single: str | None, *, resume: bool) -> None:
        if os.path.lexists(target):
            raise UsageError(f"convert: {target} is there already")
        self._target = target
        self._parent = os.path.dirname(target)
        self.path = os.path.join(self._parent, f".{os.path.basename(target)}{_SUFFIX}")
        self.place = self.path if single is None else os.path.join(self.path, single)
        self.words: OptionWords = {}
        self._resume = resume
        self._files: dict[str, _core.Writer] = {}
        self._lock = -1
        self._made: list[str] = []  # folders above it, the deepest first
        self._keep = False
        self._fresh = False
        self._disk: ThreadPoolExecutor | None = None  # one thread, that waits for it
        self._kept: Future[None] | None = None

    def check_sources(self, files: Iterable[str]) -> None:
        """Raise UsageError where one lies in the folder, which is emptied.

        Parameters
        ----------
        files : iterable of str
            As a checkpoint names them: paths where they are of this machine.
        """
        folder = os.path.realpath(self.path) + os.sep
        for file in files:
            if os.path.realpath(file).startswith(folder):
                raise UsageError(
                    f"convert: {file} lies where {self._target} is put together: move it first"
                )

    def __enter__(self) -> Folder:
        import fcntl

        above = self._parent
        while not os.path.lexists(above):
            self._made.append(above)
            above = os.path.dirname(above)
        try:
            os.makedirs(self.path, exist_ok=True)
            self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise self._failed(error) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise UsageError(f"convert: another conversion to {self._target} is going on") from None
        try:
            if not self._resume:
                self._clear()
        except OSError as error:
            os.close(self._lock)
            raise self._failed(error) from None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        interrupted = self._leave_disk()
        for writer in self._files.values():
            writer.abort()
        # What was interrupted can go on; what cannot be right must not be left, nor what nothing
        # can go on with: a disk without room for it, nonces that are never used again.
        # A call that could not begin leaves nothing of its own, and all that it was to resume.
        refused = isinstance(error, UsageError) and not self._resume
        useless = self._fresh or not os.path.exists(os.path.join(self.path, _LEDGER))
        wrong = isinstance(error, DataError) or refused or useless
        if error is None or (wrong and not self._keep):
            shutil.rmtree(self.path, ignore_errors=True)
            for folder in self._made if error is not None else ():
                with contextlib.suppress(OSError):  # others use it meanwhile
                    os.rmdir(folder)
        os.close(self._lock)
        if interrupted and error is None:
            raise KeyboardInterrupt

    def _leave_disk(self) -> bool:
        """Wait for its thread, which has our files in its hands; whether we were interrupted."""
        interrupted = False
        while self._disk is not None:
            try:
                self._disk.shutdown()
                self._disk = None
            except KeyboardInterrupt:
                interrupted = True
        return interrupted

    def _failed(self, error: OSError) -> SourceError:
        if isinstance(error, SourceError):
            return error
        return SourceError(f"convert: write {error.filename or self.path}: {error.strerror}")

    def _clear(self) -> None:
        for name in os.listdir(self.path):
            path = os.path.join(self.path, name)
            if os.path.isdir(path):
                shutil.rmtree(path)
            else:
                os.unlink(path)

    def ledger(self, source: _core.Checkpoint, layout: Layout, *, fresh: bool) -> _core.Ledger:
        """What an earlier call recorded, if it had this source and this layout.

        With `fresh` nothing is gone on with, now or later.
        """
        self._fresh = fresh
        ledger = _core.Ledger()
        path = os.path.join(self.path, _LEDGER)
        if self._resume and not fresh and os.path.exists(path):
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                ledger = _core.Ledger.parse(file.read())
        elif self._resume:
            self._clear()
        fixed = hashlib.sha256(repr(layout.fixed).encode()).digest()
        try:
            ledger.add_sources(source)
            # A file that is none: its size tells one layout from another.
            ledger.add_output(".layout", int.from_bytes(fixed[:7], "little"))
            for name, size in layout.sizes.items():
                ledger.add_output(name, size)
        except DataError as error:
            self._keep = True
            raise DataError(
                f"convert: what is to be resumed in {self.path} was another work, or its source "
                f"changed since: {error}"
            ) from None
        return ledger

    def allocate(self, layout: Layout) -> None:
        """Make every file, at its size, with what is known of it."""
        try:
            for name, size in layout.sizes.items():
                path = os.path.join(self.path, name)
                os.makedirs(os.path.dirname(path), exist_ok=True)
                self._files[name] = _core.Writer.open(os.fsencode(path), kept=True)
                self._files[name].create(size)
        except OSError as error:
            raise self._failed(error) from None
        for name, offset, data in layout.fixed:
            self.write(name, offset, data)

    def write(self, name: str, offset: int, data: Bytes) -> None:
        """Write these bytes of a file."""
        _write(self._files[name], offset, data)

    def keep(self, ledger: _core.Ledger) -> None:
        """Begin to bring to the disk what was written, and then the ledger that says so."""
        from concurrent.futures import ThreadPoolExecutor

        self._wait()
        if self._disk is None:
            self._disk = ThreadPoolExecutor(1, "inrush-keep")
        self._kept = self._disk.submit(self._bring, ledger.serialise())

    def _bring(self, recorded: str) -> None:
        path = os.path.join(self.path, _LEDGER)
        try:
            for writer in self._files.values():
                writer.finish()
            with open(path + ".next", "w", encoding="utf-8", errors="surrogateescape") as file:
                file.write(recorded)
                file.flush()
                os.fsync(file.fileno())
            os.rename(path + ".next", path)
        except OSError as error:
            raise self._failed(error) from None

    def _wait(self) -> None:
        """Until the last `keep` is done; raises what it met."""
        if self._kept is not None:
            self._kept.result()

    @contextlib.contextmanager
    def settling(self, ledger: _core.Ledger) -> Iterator[None]:
        """Bring all of it to the disk; it can be opened and read meanwhile."""
        self.keep(ledger)
        try:
            yield
        except DataError:
            self._wait()  # a disk that failed is why it is wrong
            raise

    def publish(self) -> None:
        """Give it its name, when it is on the disk."""
        self._wait()
        try:
            if os.path.lexists(self._target):
                self._keep = True  # all of it is right
                raise UsageError(
                    f"convert: {self._target} is there already; what was converted is in "
                    f"{self.path}"
                )
            ledger = os.path.join(self.path, _LEDGER)
            if os.path.exists(ledger):
                os.unlink(ledger)
            os.rename(self.place, self._target)
            parent = os.open(self._parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(parent)
            finally:
                os.close(parent)
        except OSError as error:
            raise self._failed(error) from None


class Remote:
    """Objects or keys of a remote place, each written from front to back.

    They are there when `settling` has begun, those that name others last.
    """

    in_order = True

    def __init__(
        self, target: str, single: str | None, options: Mapping[str, Any] | None, *, resume: bool
    ) -> None:
        if resume:
            shown = without_secrets(target)
            raise UsageError(f"convert: {shown}: what goes to a remote place cannot be resumed")
        self.place = target if single is not None or target.endswith("/") else target + "/"
        self._single = single
        self._options = options
        self.words: OptionWords = {"storage_options": options}
        self._files: dict[str, _Object] = {}

    def check_sources(self, files: Iterable[str]) -> None:
        """Nothing: none is emptied, and what is there is refused."""

    def __enter__(self) -> Remote:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for file in self._files.values():
            file.writer.abort()

    def ledger(self, source: _core.Checkpoint, layout: Layout, *, fresh: bool) -> _core.Ledger:
        """An empty one: nothing is gone on with."""
        del source, fresh
        ledger = _core.Ledger()
        for name, size in layout.sizes.items():
            ledger.add_output(name, size)
        return ledger

    def keep(self, ledger: _core.Ledger) -> None:
        """Nothing: see `ledger`."""

    def allocate(self, layout: Layout) -> None:
        """Begin every file; an error if one of them is there."""
        storage = storage_for([os.fsencode(self.place)], self._options)
        if self._single is None and _has_checkpoint(os.fsencode(self.place), storage):
            shown = without_secrets(self.place)
            raise UsageError(f"convert: {shown}: a checkpoint is there already")
        for name, size in layout.sizes.items():
            place = os.fsencode(self.place if self._single is not None else self.place + name)
            shown = without_secrets(os.fsdecode(place))
            if _is_there(place, storage):
                raise UsageError(f"convert: {shown} is there already")
            writer = _core.Writer.open(place, storage)
            sealed = layout.seals.get(name)
            fixed = [(offset, data) for file, offset, data in layout.fixed if file == name]
            start = 0 if sealed is None else sealed.data_start
            file = self._files[name] = _Object(writer, size, fixed, start)
            writer.create(size)
            if sealed is not None and not writer.random:
                raise UsageError(
                    f"convert: {shown}: the header of a sealed file is known last, "
                    "and comes first: convert to a file of this machine"
                )
            file.sealed = sealed is not None

    def write(self, name: str, offset: int, data: Bytes) -> None:
        """Write these bytes of a file, which are behind those before."""
        self._files[name].write(offset, data)

    @contextlib.contextmanager
    def settling(self, ledger: _core.Ledger) -> Iterator[None]:
        """Finish every file, those that name others last; then it can be opened."""
        del ledger
        for name in sorted(self._files, key=lambda name: name.endswith(".json")):
            self._files[name].finish()
        yield

    def publish(self) -> None:
        """Nothing: they have their names."""


def _is_there(place: bytes, storage: _core.StorageOptions) -> bool:
    try:
        _core.File.open(place, storage)
    except Error:  # what cannot be reached cannot be written either, which says why
        return False
    return True


def _has_checkpoint(place: bytes, storage: _core.StorageOptions) -> bool:
    """Whether what is written there would be hidden by another, or taken for a part of it."""
    try:
        _core.Checkpoint.open(place, storage)
    except Error:
        return False
    return True


class _Object:
    """One file, put together in its order: what is fixed, tensors, and zeros between."""

    def __init__(
        self, writer: _core.Writer, size: int, fixed: list[tuple[int, bytes]], start: int
    ) -> None:
        self.writer = writer
        self.sealed = False
        self._size = size
        self._fixed = sorted(fixed)
        self._at = start  # what is before it was taken
        self._small = bytearray()  # the end of that, not handed over yet

    def write(self, offset: int, data: Bytes) -> None:
        if self.sealed and offset == 0:
            self._flush()
            _write(self.writer, 0, data)
            return
        self._fill(offset)
        self._put(data)

    def _fill(self, until: int) -> None:
        """What is fixed before `until`, and zeros."""
        while self._fixed and self._fixed[0][0] < until:
            offset, data = self._fixed.pop(0)
            self._fill(offset)
            self._put(data)
        while self._at < until:
            self._put(_ZEROS[: until - self._at])

    def _put(self, data: Bytes) -> None:
        self._at += len(data)
        if len(data) < _SMALL:
            self._small += data
            if len(self._small) >= _STEP:
                self._flush()
            return
        begin = self._at - len(data)
        self._flush(begin)
        view = memoryview(data)
        for at in range(0, len(view), _STEP):
            _write(self.writer, begin + at, view[at : at + _STEP])

    def _flush(self, end: int | None = None) -> None:
        small, self._small = self._small, bytearray()
        _write(self.writer, (self._at if end is None else end) - len(small), small)

    def finish(self) -> None:
        self._fill(self._size)
        self._flush()
        self.writer.finish()
