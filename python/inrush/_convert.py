"""A checkpoint written as another format: streamed, resumable, and read again at the end."""

from __future__ import annotations

import os
import re
import time

from inrush import _core
from inrush._arguments import WHOLE
from inrush._casting import Cast
from inrush._checkpoint import Checkpoint, place_of
from inrush._destination import Folder, Remote
from inrush._errors import DataError, UsageError
from inrush._job import Job
from inrush._kept import check_together, kept_of
from inrush._keys import key_of
from inrush._layouts import (
    Item,
    Layout,
    Place,
    safetensors_layout,
    tensorizer_layout,
)
from inrush._options import Options
from inrush._partitions import DIALECTS, in_ranks, serverless_layout
from inrush._selection import passing, wanted_names
from inrush._sizes import parse_size
from inrush._storage import without_secrets
from inrush._tensors_file import Cipher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from inrush._keys import Encryption, Key
    from inrush._options import Pattern

FORMATS = ("safetensors", "serverlessllm", "tensorizer")

_MOST_RANKS = 4096

# Metadata of GGUF that says how that file is made, and how what was too long to keep is shown.
_OF_THE_GGUF_FILE = (
    "general.alignment", "general.file_type", "general.quantization_version", "split.",
)  # fmt: skip
_TOO_LONG = re.compile(r"\[\d+ (values|bytes)\]")
_RECORD_EVERY = 5.0  # seconds between entries of the ledger: what an interruption costs at most


def convert(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    *,
    to: str,
    include: Pattern | Iterable[Pattern] | None = None,
    exclude: Pattern | Iterable[Pattern] | None = None,
    shard_size: int | str | None = None,
    verify: str | None = None,
    encryption: Encryption | Key | None = None,
    encrypt: Encryption | Key | None = None,
    budget: int | str | None = None,
    dtype: str | None = None,
    ranks: int | None = None,
    dialect: str | None = None,
    resume: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    progress: Callable[..., object] | None = None,
) -> dict[str, str]:
    """Write a checkpoint as another format.

    Tensors are streamed: beside the budget, memory for two of the largest is in use. What is
    written lies in a folder beside the destination until all of it is there, was brought to the
    disk, and was read again and compared by the digest of every tensor; then it takes the
    destination's name.
    In a remote place files are there when all of them are whole, indexes last, and are compared
    then.

    Parameters
    ----------
    source : str or os.PathLike
        What `inrush.open` opens.
    destination : str or os.PathLike
        A file where the name ends with ``.safetensors`` or ``.tensors``, else a folder; here, or
        ``s3://``, ``gs://``, ``az://`` or ``redis://``. Nothing may be there.
    to : {'safetensors', 'serverlessllm', 'tensorizer'}
    include, exclude : str, callable or list of them, optional
        As for `inrush.open`.
    shard_size : int or str, optional
        Most bytes of tensors in a file, such as ``'5GB'``. Default: one file; for ServerlessLLM
        10 GiB; for tensorizer always one, which may not be larger.
    verify : {'none', 'crc', 'full'}, optional
        Check the source's own checksums. Default: INRUSH_VERIFY, else none.
    encryption, encrypt : Key, bytes or str, optional
        The key of the source, and the one that the destination is encrypted with: 32 bytes, or
        where to find them, as for `inrush.open`. Encrypted safetensors are sealed files.
    budget : int or str, optional
        As for `inrush.open`.
    dtype : str, optional
        Cast tensors of floating point to this: safetensors' or torch's name (``'BF16'``,
        ``'float16'``). It takes numpy, and ml_dtypes for types that numpy lacks. Numbers beyond
        the type become what torch makes of them: the largest in float8_e4m3fn.
    ranks : int, optional
        For ServerlessLLM: that many folders ``rank_0``, ``rank_1``, ..., each with whole tensors of
        about as many bytes, so that as many processes load at once. Tensors are not sliced.
    dialect : {'original', 'tensora'}, optional
        For ServerlessLLM: what its own ``sllm_store`` reads, the default, or what Tensora reads.
    resume : bool
        Go on with what an interrupted call with the same arguments left, on this machine.
    storage_options : mapping, optional
        Of remote places, as for `inrush.open`.
    progress : callable, optional
        Called with (bytes done, bytes in all, seconds).

    Returns
    -------
    dict of str to str
        The digest of every tensor by its name in the destination, as manifests have them.

    Raises
    ------
    UsageError
        Something is at the destination already, or a tensor cannot be said in that format.
    DataError
        The source is damaged, changed since the call that is resumed, or was written wrongly.
    SourceError
        It cannot be written there.
    """
    if to not in FORMATS:
        raise UsageError(f"convert: to={to!r}: expected one of {', '.join(FORMATS)}")
    target = os.fsdecode(_core.local_path(os.fsencode(destination)))
    if "\0" in target:
        raise UsageError(f"convert: {target!r}: a NUL byte in a path")
    remote = "://" in target
    target = target if remote else os.path.abspath(target)
    name = target.rpartition("/")[2]
    safetensors = to == "safetensors" and name.endswith(".safetensors")
    single = name if to == "tensorizer" or safetensors else None
    partial: Folder | Remote
    if remote:
        partial = Remote(target, single, storage_options, resume=resume)
    else:
        partial = Folder(target, single, resume=resume)
    if ranks is not None and (to != "serverlessllm" or not 1 <= ranks <= _MOST_RANKS):
        raise UsageError(
            f"convert: ranks={ranks!r}: expected 1 to {_MOST_RANKS}, and to='serverlessllm'"
        )
    if dialect is not None and (to != "serverlessllm" or dialect not in DIALECTS):
        raise UsageError(
            f"convert: dialect={dialect!r}: expected one of {', '.join(DIALECTS)}, and "
            "to='serverlessllm'"
        )
    key = key_of(encrypt)
    if key is not None and to == "serverlessllm":
        raise UsageError("convert: ServerlessLLM cannot be encrypted; the others can")
    # Which tensors are meant, and where they go, is said here alone.
    words = {**WHOLE, "include": include, "exclude": exclude, "progress": progress}
    given: dict[str, Any] = {"verify": verify, "encryption": encryption, "budget": budget}
    if isinstance(source, (str, bytes, os.PathLike)) and b"://" in place_of(source):
        given["storage_options"] = storage_options
    words |= {word: value for word, value in given.items() if value is not None}
    with Checkpoint(source, **words) as checkpoint:
        partial.check_sources(name for name, _ in checkpoint.files)
        work = _Work(checkpoint, source, single, to, key)
        work.cast = None if dtype is None else Cast(dtype)
        work.dialect = dialect or DIALECTS[0]
        size = 0 if shard_size is None else parse_size(shard_size, "shard_size")
        work.settle(size, 0 if ranks is None else ranks)
        with partial:
            with partial.settling(work.run(partial)):
                work.compare(partial)
            partial.publish()
    return work.digests


def tree_digest(data: memoryview) -> str:
    """The digest that manifests have, of bytes."""
    return _core.tree_digest(_core.buffer_address(data), len(data))


def _metadata_of(checkpoint: Checkpoint) -> dict[str, str]:
    """What becomes the __metadata__ of safetensors."""
    if checkpoint.format in ("safetensors", "sealed"):
        return checkpoint.metadata
    if checkpoint.format != "gguf":
        return {}
    kept = {
        key: value
        for key, value in checkpoint.metadata.items()
        if not key.startswith(_OF_THE_GGUF_FILE) and not _TOO_LONG.fullmatch(value)
    }
    # Without it transformers 4 refuses files that have metadata.
    return {"format": "pt", **kept}


class _Work:
    def __init__(
        self,
        checkpoint: Checkpoint,
        source: object,
        single: str | None,
        to: str,
        key: Key | None,
    ) -> None:
        self.digests: dict[str, str] = {}
        self._again = _core.Rereading()
        self._written: dict[str, str] = {}  # what `_again` says of what this call wrote
        self._checkpoint = checkpoint
        self._core = checkpoint._opened()
        self._options = checkpoint._options  # its own: the source's key is asked for once
        self._source = source
        self._to = to
        self._key = key
        self.single = single
        self._layout = Layout()
        self._zeros: set[str] = set()  # tensors without bytes in the source
        self._renamed: dict[str, str] = {}  # the source's names to the destination's
        self.cast: Cast | None = None
        self.dialect = DIALECTS[0]

    def settle(self, shard_size: int, ranks: int) -> None:
        """Decide where everything goes; raises before anything is written."""
        infos = [self._checkpoint[name] for name in wanted_names(self._core, self._options)]
        self._zeros = {info.name for info in infos if info.encoding == "zeros"}
        items = [
            Item(info.name, info.dtype, info.shape, info.nbytes, info.encoding) for info in infos
        ]
        if self._checkpoint.format == "tensorizer":
            self._keep(items, infos)
        if self.cast is not None:
            items = [self.cast.item(item) for item in items]
        if ranks:
            items = in_ranks(items, ranks)
        self._renamed = dict(
            zip((info.name for info in infos), (i.name for i in items), strict=True)
        )
        if self._to == "safetensors":
            self._layout = safetensors_layout(
                items,
                shard_size=shard_size,
                metadata=_metadata_of(self._checkpoint),
                file=self.single,
                key=self._key,
            )
        elif self._to == "serverlessllm":
            self._layout = serverless_layout(items, shard_size=shard_size, dialect=self.dialect)
        else:
            total = sum(item.nbytes for item in items)
            if 0 < shard_size < total:
                raise UsageError(
                    f"convert: tensorizer's is one file, and shard_size {shard_size} is less than "
                    f"the {total} bytes of its tensors"
                )
            cipher = None if self._key is None else Cipher(self._key)
            self._layout = tensorizer_layout(items, file=self.single or "", cipher=cipher)

    def _keep(self, items: list[Item], infos: list[_core.TensorInfo]) -> None:
        """Tell of tensors of `.tensors` files how they stand there, where it is of use."""
        again = self._to == "tensorizer"
        if not again and not any(item.dtype == "U8" and item.encoding for item in items):
            return
        options = self._options.storage_options
        kept = kept_of(self._core, self._source, options, modules=again)
        for item in items:
            one = kept[item.name]
            # What is encrypted or has no bytes is said to be that, whatever its type is.
            if item.dtype == "U8" and item.encoding and one.torch_name:
                item.encoding = one.torch_name
            if again:
                item.kept = one
        if again and len({info.file for info in infos}) > 1:
            check_together(kept[item.name] for item in items)

    def run(self, partial: Folder | Remote) -> _core.Ledger:
        """Write what is not written yet; the ledger of all that was."""
        layout = self._layout
        ledger = partial.ledger(self._core, layout, fresh=self._key is not None)
        partial.allocate(layout)
        left = []
        for source, name in self._renamed.items():
            place = layout.places[name]
            # What is encrypted anew has other nonces than what an earlier call wrote.
            digest = ledger.digest(place.file, place.offset, place.size) if place.size else ""
            if digest:
                self.digests[name] = digest
            else:
                left.append(source)
        if not left:
            return ledger
        if partial.in_order:
            places = {source: layout.places[self._renamed[source]] for source in left}
            left.sort(key=lambda source: (places[source].file, places[source].offset))
        words = passing(self._core, self._options.budget)
        if partial.in_order or len(left) < len(layout.places):
            words |= {"include": None, "exclude": None, "order": left}
        options = Options(words, self._options)

        def digesting(asked: _core.LoadOptions) -> None:
            _core.add_digests(asked, _core.Leaves())
            self._again.add(asked)
            asked.once = True

        with Job(self._core, options, collect=False, digesting=digesting) as job:
            job.confirms = True
            self._write(job, partial, ledger)
        for file, sealed in layout.seals.items():
            partial.write(file, 0, sealed.header())
        return ledger

    def _write(self, job: Job, partial: Folder | Remote, ledger: _core.Ledger) -> None:
        fresh: list[tuple[str, Place]] = []
        recorded = time.monotonic()
        for source, tensor in job:
            fresh.append((source, self._put(partial, source, tensor)))
            del tensor  # its memory is of use to the next ones
            if time.monotonic() - recorded > _RECORD_EVERY:
                self._record(job, ledger, fresh)
                partial.keep(ledger)
                recorded = time.monotonic()
        self._record(job, ledger, fresh)

    def _put(self, partial: Folder | Remote, source: str, tensor: Any) -> Place:
        """Write one, and where it is."""
        name = self._renamed[source]
        place = self._layout.places[name]
        # A view of no bytes cannot be cast.
        none = tensor.nbytes == 0 or place.is_empty
        data = memoryview(b"") if none else memoryview(tensor.as_bytes()).cast("B")
        changed = self.cast is not None and self.cast.changes(tensor.dtype)
        if self.cast is not None and changed:
            data = self.cast.data(data, tensor.dtype)
        for offset, piece in place.pieces(data):
            partial.write(place.file, offset, piece)
        if source in self._zeros or changed:
            self.digests[name] = tree_digest(data)
            self._written[name] = self._again.digest(_core.buffer_address(data), len(data))
        return place

    def _record(self, job: Job, ledger: _core.Ledger, fresh: list[tuple[str, Place]]) -> None:
        digests, again = job.digests(), self._again.digests()
        for source, place in fresh:
            digest = self.digests.setdefault(self._renamed[source], digests[source])
            self._written.setdefault(self._renamed[source], again[source])
            if place.size:
                ledger.record(place.file, place.offset, place.size, digest)
        fresh.clear()

    def compare(self, partial: Folder | Remote) -> None:
        """Read all of it again: every tensor has the digest of what it was made from."""
        path = partial.place
        words = {
            **WHOLE, "order": "ready", "encryption": self._key, "verify": "none",
            "budget": self._options.budget or None,
        }  # fmt: skip
        with Checkpoint(path, **partial.words) as written:
            path = without_secrets(path)
            core = written._opened()
            self._check_files(path, core)
            words |= passing(core, self._options.budget)
            self._name_as(core)

            def digesting(asked: _core.LoadOptions) -> None:
                self._again.add_again(asked, set(self._written))

            with Job(core, Options(words), collect=False, digesting=digesting) as job:
                for one in job:
                    del one  # its memory is of use to the next ones
                found = job.digests()
        for name, digest in (self.digests | self._written).items():
            if found.get(name) != digest:
                raise DataError(f"convert: tensor {name!r} in {path} is not what was written there")
        if len(found) != len(self.digests):
            raise DataError(f"convert: {path} has {len(found)} tensors, not {len(self.digests)}")

    def _check_files(self, path: str, written: _core.Checkpoint) -> None:
        """What is read again must be what was written, not what else is there."""
        if self.single is not None:
            return
        mine = sorted(name for name in self._layout.sizes if not name.endswith(".json"))
        found = [name for name, _ in written.files]
        if len(mine) != len(found) or not all(map(str.endswith, found, mine)):
            raise DataError(
                f"convert: {path} is opened as other files than were written: {found[:3]}"
            )

    def _name_as(self, written: _core.Checkpoint) -> None:
        """Call tensors of a `.tensors` file as it is opened, which its paths decide together."""
        if self._to != "tensorizer" or len(written) != len(self._layout.places):
            return
        places = self._layout.places  # in the order of their records, as those of any such file
        names = dict(zip(places, written.names(), strict=True))
        self.digests = {names[name]: digest for name, digest in self.digests.items()}
        self._written = {names[name]: digest for name, digest in self._written.items()}
