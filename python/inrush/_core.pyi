"""
The engine of Inrush. Use the package inrush; this module is its C++ half.
"""

from collections.abc import Mapping, Sequence, Set
import enum


class Tensor:
    """
    A tensor, readable through DLPack and, in host memory, the buffer protocol.

    It keeps its own bytes alive and nothing else. Dtypes that the buffer
    protocol cannot name (BF16, F8_*, F4, F6_*) show there as unsigned integers.
    """

    @property
    def name(self) -> str:
        """Name in the checkpoint."""

    @property
    def dtype(self) -> str:
        """Element type as safetensors names it, such as 'BF16'."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents in elements, of the slice where one was asked for."""

    @property
    def nbytes(self) -> int:
        """Size in bytes."""

    @property
    def data_ptr(self) -> int:
        """Address of the first byte."""

    @property
    def device(self) -> str:
        """Where it lies: 'cpu', 'cuda:0', 'hip:1'."""

    @property
    def mapped(self) -> bool:
        """Whether the bytes are the file's own pages."""

    def as_bytes(self) -> Tensor:
        """The same memory as a U8 tensor; the last dimension is in bytes."""

    def reshape(self, shape: Sequence[int]) -> Tensor:
        """The same memory under another shape of as many elements."""

    def copy(self) -> Tensor:
        """A copy in memory of its own."""

    def __dlpack__(self, *, stream: object | None = None, max_version: tuple[int, int] | None = None, dl_device: tuple[int, int] | None = None, copy: bool | None = None) -> object:
        """
        A DLPack capsule over the tensor's memory.

        Raises
        ------
        BufferError
            For elements of less than a byte, and for other devices.
        """

    def __dlpack_device__(self) -> tuple[int, int]:
        """
        The DLPack device: (1, 0) is host memory, (2, n) CUDA's, (10, n) ROCm's.
        """

    def __repr__(self) -> str: ...

def buffer_address(buffer: object) -> int:
    """Address of a C-contiguous buffer; the caller keeps it."""

class TensorInfo:
    """What a checkpoint says of one tensor."""

    @property
    def name(self) -> str: ...

    @property
    def dtype(self) -> str:
        """Element type as safetensors names it, such as 'BF16'."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents in elements."""

    @property
    def nbytes(self) -> int:
        """Size in bytes, as it is delivered."""

    @property
    def file(self) -> str:
        """The file (or object) that holds it."""

    @property
    def offset(self) -> int:
        """Of its first byte in the file."""

    @property
    def encoding(self) -> str:
        """How its bytes are coded; '' for raw bytes."""

    def __eq__(self, arg: object, /) -> bool: ...

    def __hash__(self) -> int: ...

    def __repr__(self) -> str: ...

class HubFile:
    """A file of a repository of the Hub."""

    def __init__(self) -> None: ...

    @property
    def name(self) -> str: ...

    @name.setter
    def name(self, arg: str, /) -> None: ...

    @property
    def size(self) -> int: ...

    @size.setter
    def size(self, arg: int, /) -> None: ...

    @property
    def etag(self) -> str: ...

    @etag.setter
    def etag(self, arg: str, /) -> None: ...

    @property
    def url(self) -> str: ...

    @url.setter
    def url(self, arg: str, /) -> None: ...

    @property
    def path(self) -> str: ...

    @path.setter
    def path(self, arg: str, /) -> None: ...

class HubSnapshot:
    """A commit of a repository of the Hub."""

    def __init__(self) -> None: ...

    @property
    def shown(self) -> str: ...

    @shown.setter
    def shown(self, arg: str, /) -> None: ...

    @property
    def commit(self) -> str: ...

    @commit.setter
    def commit(self, arg: str, /) -> None: ...

    @property
    def revision(self) -> str: ...

    @revision.setter
    def revision(self, arg: str, /) -> None: ...

    @property
    def folder(self) -> str: ...

    @folder.setter
    def folder(self, arg: str, /) -> None: ...

    @property
    def locks(self) -> str: ...

    @locks.setter
    def locks(self, arg: str, /) -> None: ...

    @property
    def links(self) -> bool: ...

    @links.setter
    def links(self, arg: bool, /) -> None: ...

    @property
    def prefix(self) -> str: ...

    @prefix.setter
    def prefix(self, arg: str, /) -> None: ...

    @property
    def entry(self) -> str: ...

    @entry.setter
    def entry(self, arg: str, /) -> None: ...

    @property
    def offline(self) -> str: ...

    @offline.setter
    def offline(self, arg: str, /) -> None: ...

    @property
    def files(self) -> list[HubFile]: ...

    @files.setter
    def files(self, arg: Sequence[HubFile], /) -> None: ...

    def take_credentials(self, source: CredentialSource) -> None: ...

class CredentialSource:
    """Renews the credentials of loads."""

    def __init__(self) -> None: ...

    def put(self, key: str, secret: str, token: str, expires: int = 0) -> bool:
        """
        From now on these; expires in seconds since 1970, 0: never. False: nobody wants them.
        """

    def wanted(self) -> bool:
        """Whether anybody still signs with them."""

class StorageOptions:
    """What is said of a remote place."""

    def __init__(self) -> None: ...

    @property
    def words(self) -> dict[str, str]: ...

    @words.setter
    def words(self, arg: Mapping[str, str], /) -> None: ...

    def keep_in(self, folder: bytes, size: int) -> None:
        """Keep remote files there, up to so many bytes."""

    def put_hub(self, place: bytes, snapshot: HubSnapshot) -> None:
        """What a place on the Hub stands for."""

    def hub_refusals(self, place: bytes) -> set[str]:
        """The files of it that a server gave no parts of."""

    def hub_commit(self, place: bytes) -> str: ...

    def take_credentials(self, scheme: str, source: CredentialSource) -> None:
        """What the places of this scheme are asked with."""

class Checkpoint:
    """An opened checkpoint: its index is read."""

    @staticmethod
    def open(uri: bytes, storage: StorageOptions = ..., mirrors: Sequence[bytes] = []) -> Checkpoint:
        """Open a directory, a file or a URI, and other places of the same."""

    @staticmethod
    def open_files(paths: Sequence[bytes], storage: StorageOptions = ...) -> Checkpoint:
        """Open files as one checkpoint."""

    @property
    def uri(self) -> str: ...

    @property
    def format(self) -> str:
        """Name of the format, such as 'safetensors'."""

    @property
    def files(self) -> list[tuple[str, int]]:
        """(name, size in bytes) of each file, sorted by name."""

    @property
    def metadata(self) -> list[dict[str, str] | None]:
        """The metadata of each file, None where it has none."""

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""

    @property
    def encrypted(self) -> bool:
        """Whether a tensor of it takes a key."""

    def names(self, sorted: bool = False) -> list[str]:
        """All names in file order, or sorted by name."""

    def find(self, name: str) -> TensorInfo | None:
        """The tensor of that name, or None."""

    def confirm(self, timeout: float | None = None) -> bool:
        """
        Whether what loads brought was compared with the place's digests before the timeout.
        """

    def __len__(self) -> int: ...

class Selection:
    """What one consumer wants, in its order."""

    def __len__(self) -> int: ...

    def sizes(self, checkpoint: Checkpoint) -> dict[str, int]:
        """Bytes of what is delivered, by name."""

    def shapes(self, checkpoint: Checkpoint) -> dict[str, tuple[int, ...]]:
        """Extents of what is delivered, by name."""

def select(checkpoint: Checkpoint, *, include: Sequence[str], exclude: Sequence[str], slices: Sequence[tuple[str, str]], names: Sequence[str]) -> Selection:
    """
    A selection by patterns; `names` says the order, and leaves out what it lacks.
    """

class PageCache(enum.Enum):
    auto = 0

    keep = 1

    drop = 2

class MappingRule(enum.Enum):
    auto = 0

    never = 1

class Order(enum.Enum):
    file = 0

    ready = 1

    given = 2

class LoadOptions:
    """What a Load is asked for."""

    def __init__(self) -> None: ...

    def deliver_to(self, devices: Sequence[str], places: Mapping[str, int] = {}, allocate: object | None = None, stream: object | None = None) -> None:
        """
        Let tensors land on devices: 'cuda:0', 'hip:1', or 'cpu'.

        `places` says which of them by tensor name; without it it is the first.
        `allocate` takes a list of (name, dtype, shape, nbytes, file offset) and returns
        one (address, device or -1, owner) for each, on the thread that asks for tensors;
        without it the driver gives the memory. `stream` returns the handle of the stream
        that this thread works on, by device.
        """

    @property
    def backend(self) -> list[str]: ...

    @backend.setter
    def backend(self, arg: Sequence[str], /) -> None: ...

    @property
    def strict(self) -> bool: ...

    @strict.setter
    def strict(self, arg: bool, /) -> None: ...

    @property
    def page_cache(self) -> PageCache: ...

    @page_cache.setter
    def page_cache(self, arg: PageCache, /) -> None: ...

    @property
    def once(self) -> bool: ...

    @once.setter
    def once(self, arg: bool, /) -> None: ...

    @property
    def mapping(self) -> MappingRule: ...

    @mapping.setter
    def mapping(self, arg: MappingRule, /) -> None: ...

    @property
    def order(self) -> Order: ...

    @order.setter
    def order(self, arg: Order, /) -> None: ...

    @property
    def budget(self) -> int:
        """Bytes of staging; 0: automatic."""

    @budget.setter
    def budget(self, arg: int, /) -> None: ...

    @property
    def device_budget(self) -> int:
        """
        Bytes of device memory that storage is read into, with CUFILE; 0: automatic.
        """

    @device_budget.setter
    def device_budget(self, arg: int, /) -> None: ...

    @property
    def pool(self) -> int:
        """Bytes of memory that tensors share; 0: none."""

    @pool.setter
    def pool(self, arg: int, /) -> None: ...

    @property
    def collect(self) -> bool:
        """Keep every tensor until it is asked for."""

    @collect.setter
    def collect(self, arg: bool, /) -> None: ...

    @property
    def trace(self) -> bool: ...

    @trace.setter
    def trace(self, arg: bool, /) -> None: ...

    @property
    def selections(self) -> list[Selection]: ...

    @selections.setter
    def selections(self, arg: Sequence[Selection], /) -> None: ...

    def add_out(self, name: str, address: int, nbytes: int, owner: object, device: int = -1) -> None:
        """
        Place this tensor at an address that the owner keeps valid; device -1 is the host.
        """

class SourceStats:
    """What one place of a load has given."""

    @property
    def uri(self) -> str: ...

    @property
    def bytes(self) -> int: ...

    @property
    def reads(self) -> int: ...

    @property
    def retries(self) -> int: ...

    @property
    def hedges(self) -> int: ...

    @property
    def given_up(self) -> bool: ...

class LoadStats:
    """What a load has done so far."""

    @property
    def choice(self) -> str: ...

    @property
    def why(self) -> str: ...

    @property
    def bytes(self) -> int: ...

    @property
    def bytes_read(self) -> int: ...

    @property
    def bytes_mapped(self) -> int: ...

    @property
    def bytes_copied(self) -> int: ...

    @property
    def reads(self) -> int: ...

    @property
    def retries(self) -> int: ...

    @property
    def hedges(self) -> int: ...

    @property
    def tensors(self) -> int: ...

    @property
    def seconds(self) -> float: ...

    @property
    def seconds_to_first(self) -> float: ...

    @property
    def consumer_wait(self) -> float: ...

    @property
    def budget_wait(self) -> float: ...

    @property
    def peak_staging(self) -> int: ...

    @property
    def peak_device_staging(self) -> int: ...

    @property
    def budget(self) -> int: ...

    @property
    def orphaned(self) -> int: ...

    @property
    def lanes(self) -> int: ...

    @property
    def depth(self) -> int: ...

    @property
    def fallbacks(self) -> list[str]: ...

    @property
    def sources(self) -> list[SourceStats]: ...

class TraceEvent:
    """One thing a lane did."""

    @property
    def lane(self) -> str: ...

    @property
    def blob(self) -> str: ...

    @property
    def offset(self) -> int: ...

    @property
    def size(self) -> int: ...

    @property
    def start(self) -> float:
        """Seconds since the load began."""

    @property
    def end(self) -> float: ...

    @property
    def kind(self) -> str:
        """read, map, copy, decode or wait."""

    @property
    def source(self) -> int:
        """Which of the load's places it was, from 0."""

    @property
    def retries(self) -> int:
        """Requests that were repeated for it."""

    @property
    def hedges(self) -> int:
        """Second requests, beside a silent one."""

class Load:
    """A load that has begun; it ends when dropped."""

    def __init__(self, checkpoint: Checkpoint, options: LoadOptions) -> None: ...

    def next(self, timeout: float | None = None) -> Tensor | None:
        """The next tensor, or None after the last. Raises TimeoutError."""

    def __iter__(self) -> object: ...

    def __next__(self) -> Tensor: ...

    def wait(self, timeout: float | None = None) -> bool:
        """Whether every byte is in place before the timeout (in seconds)."""

    def cancel(self) -> None: ...

    def stats(self) -> LoadStats: ...

    def trace(self) -> list[TraceEvent]: ...

    def digests(self) -> dict[str, str]: ...

    def facts_json(self) -> str: ...

    def choice_json(self) -> str: ...

    @property
    def count(self) -> int:
        """How many tensors it delivers."""

    @property
    def nbytes(self) -> int:
        """How many bytes it delivers."""

    @property
    def plan_digest(self) -> str: ...

class File:
    """One file of any place, read by ranges."""

    @staticmethod
    def open(uri: bytes, storage: StorageOptions = ...) -> File:
        """Open a path, or a URI of one file."""

    @property
    def name(self) -> str:
        """As errors show it: without what is secret in a URI."""

    @property
    def size(self) -> int: ...

    @property
    def headers(self) -> dict[str, str]:
        """What an HTTP server said when it was opened, names in lower case."""

    def fileno(self) -> int:
        """Of a file that is on this machine, or was brought here; else -1."""

    def read(self, offset: int, address: int, nbytes: int) -> None:
        """Read exactly so many bytes to an address."""

class SaveTensor:
    """A tensor to be written; its memory is borrowed."""

    @staticmethod
    def make(name: str, dtype: str, shape: Sequence[int], address: int, nbytes: int) -> SaveTensor: ...

class SealOptions:
    """How to encrypt what is saved."""

    @staticmethod
    def make(key: bytearray | None = None, passphrase: bytearray | None = None) -> SealOptions:
        """A key has 32 bytes."""

class SaveOptions:
    """How save_file writes."""

    def __init__(self) -> None: ...

    @property
    def metadata(self) -> dict[str, str] | None: ...

    @metadata.setter
    def metadata(self, arg: Mapping[str, str] | None, /) -> None: ...

    @property
    def sync(self) -> bool: ...

    @sync.setter
    def sync(self, arg: bool, /) -> None: ...

    @property
    def storage(self) -> StorageOptions: ...

    @storage.setter
    def storage(self, arg: StorageOptions, /) -> None: ...

    @property
    def seal(self) -> SealOptions | None: ...

    @seal.setter
    def seal(self, arg: SealOptions | None, /) -> None: ...

def local_path(place: bytes) -> bytes:
    """The path that a file:// URI names; any other place as it is."""

def save_file(path: bytes, tensors: Sequence[SaveTensor], options: SaveOptions = ...) -> None:
    """
    Write a safetensors file through a temporary beside it, or a remote object.
    """

class ShardOptions:
    """How save_sharded cuts and names files."""

    def __init__(self) -> None: ...

    @property
    def filename_pattern(self) -> str: ...

    @filename_pattern.setter
    def filename_pattern(self, arg: str, /) -> None: ...

    @property
    def max_shard_size(self) -> int: ...

    @max_shard_size.setter
    def max_shard_size(self, arg: int, /) -> None: ...

    @property
    def metadata(self) -> dict[str, str] | None: ...

    @metadata.setter
    def metadata(self, arg: Mapping[str, str] | None, /) -> None: ...

    @property
    def file_metadata(self) -> dict[str, str] | None: ...

    @file_metadata.setter
    def file_metadata(self, arg: Mapping[str, str] | None, /) -> None: ...

    @property
    def sync(self) -> bool: ...

    @sync.setter
    def sync(self, arg: bool, /) -> None: ...

    @property
    def storage(self) -> StorageOptions: ...

    @storage.setter
    def storage(self, arg: StorageOptions, /) -> None: ...

    @property
    def seal(self) -> SealOptions | None: ...

    @seal.setter
    def seal(self, arg: SealOptions | None, /) -> None: ...

def save_sharded(folder: bytes, tensors: Sequence[SaveTensor], options: ShardOptions) -> list[str]:
    """
    Write a checkpoint of files of a given size, with an index; the names of the files.
    """

def best_cached_write() -> int:
    """Bytes that are best written to a file of this machine at once."""

class Writer:
    """
    A file that is being written; one thread, and another for what is kept to finish.
    """

    @staticmethod
    def open(place: bytes, storage: StorageOptions = ..., kept: bool = False) -> Writer:
        """
        A file of this machine or a remote one, there when it is finished. `kept`: one that is gone on with, under its own name from the start.
        """

    def create(self, nbytes: int) -> None:
        """Say how long the whole will be."""

    def write(self, offset: int, address: int, nbytes: int) -> None: ...

    def finish(self) -> None:
        """Make it durable, and visible under its name."""

    def abort(self) -> None:
        """Leave nothing behind, but of what is kept."""

    @property
    def random(self) -> bool:
        """Whether it can be written at any offset; else from front to back."""

class SealedPart:
    """A sealed file whose tensors come one by one."""

    @property
    def data_start(self) -> int:
        """Where the first tensor begins."""

    def encrypt(self, tensor: int, address: int, nbytes: int) -> None:
        """
        Encrypt a tensor in place; they are counted in the order of their offsets.
        """

    def header(self) -> bytes:
        """All before the data, when every tensor was encrypted."""

class Sealer:
    """What the sealed files of one checkpoint share."""

    def __init__(self, options: SealOptions, files: int) -> None: ...

    def begin(self, json: bytes, sizes: Sequence[int]) -> SealedPart:
        """
        The next file: the JSON of its safetensors header, and bytes of each tensor.
        """

def safetensors_header(tensors: Sequence[SaveTensor], metadata: Mapping[str, str] | None = None) -> tuple[bytes, list[str]]:
    """
    What a file of these begins with, and their names in its order. Needs no memory of theirs: the addresses may be 0.
    """

def save_bytes(tensors: Sequence[SaveTensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """A safetensors file as bytes."""

class View:
    """Random access through private mappings of the files."""

    def __init__(self, checkpoint: Checkpoint) -> None: ...

    def tensor(self, info: TensorInfo) -> Tensor | None:
        """The tensor, or None where its file may not be mapped: load it instead."""

class Leaves:
    """Where a load leaves what it digested."""

    def __init__(self) -> None: ...

class Rereading:
    """Digests of what is written and read again, a tenth of SHA-256's work."""

    def __init__(self) -> None: ...

    def add(self, options: LoadOptions) -> None:
        """
        Have a load digest every tensor; what it digests otherwise stays its digest.
        """

    def add_again(self, options: LoadOptions, names: Set[str]) -> None:
        """
        Have a load digest tensors of these names so, and others as manifests do.
        """

    def digest(self, address: int, nbytes: int) -> str:
        """Of memory."""

    def digests(self) -> dict[str, str]:
        """What the load of `add` has digested, by name."""

def tree_digest(address: int, nbytes: int) -> str:
    """The digest that manifests have, of memory."""

def add_digests(options: LoadOptions, leaves: Leaves) -> None:
    """Have a load digest every tensor."""

class Differs(enum.Enum):
    """How a checkpoint differs from its manifest."""

    missing = 0

    extra = 1

    dtype = 2

    shape = 3

    digest = 4

    file = 5

class Difference:
    """One thing that differs from a manifest."""

    @property
    def what(self) -> Differs: ...

    @property
    def name(self) -> str:
        """Of the tensor or the file."""

    @property
    def text(self) -> str:
        """What is there and what was expected."""

    def __repr__(self) -> str: ...

class Manifest:
    """Digests of a checkpoint's tensors."""

    @staticmethod
    def make(checkpoint: Checkpoint, digests: Mapping[str, str], leaves: Leaves) -> Manifest: ...

    @staticmethod
    def parse(json: str, source: str) -> Manifest:
        """From its JSON; `source` is what errors call it."""

    def to_json(self) -> str: ...

    def __len__(self) -> int: ...

class Expectation:
    """What a manifest expects of a checkpoint."""

    def __init__(self, checkpoint: Checkpoint, manifest: Manifest) -> None: ...

    def add_to(self, options: LoadOptions) -> None:
        """
        Have a load compare every tensor; compares at once what its slices lie in.
        """

def compare(expected: Manifest, actual: Manifest) -> list[Difference]:
    """What differs between two manifests; nothing if they agree."""

def encrypt(address: int, nbytes: int, key: bytearray, nonce: bytes, chunk_size: int) -> bytes:
    """
    Encrypt memory in place by libsodium's secretbox; its codes, 16 bytes a chunk.
    """

def checksums(before: bytes, address: int, nbytes: int, crc32: bool, sha256: bool) -> tuple[int | None, bytes | None]:
    """
    CRC-32 and SHA-256 of bytes and then of memory; None for what is not wanted.
    """

class TensorsLines:
    """The index of a .tensors file that was read before."""

    def __init__(self, index: bytes, count: int, tagged: bool) -> None: ...

    @property
    def paths(self) -> list[str | bytes]:
        """In order; those that are structures as bytes."""

    @property
    def flat(self) -> bool:
        """Whether no path is a structure."""

    def place(self, i: int) -> tuple[int, int]:
        """Where a line begins and ends."""

def derive_key(passphrase: bytearray, salt: bytes, operations: int, memory: int) -> bytearray:
    """32 bytes by Argon2id."""

class Verify(enum.Enum):
    none = 0

    crc = 1

    full = 2

def has_checksums(checkpoint: Checkpoint) -> bool:
    """Whether the checkpoint's files have checksums of their own."""

def check_unused(checkpoint: Checkpoint) -> None:
    """Read what has a checksum and no tensor is made of, and compare it."""

class Checks:
    """Checksums and keys of one checkpoint's tensors."""

    @staticmethod
    def make(checkpoint: Checkpoint, verify: Verify, key: bytearray | None = None, passphrase: bytearray | None = None, limits: tuple[int | None, int | None] = (None, None)) -> Checks:
        """
        A key has 32 bytes. `limits`: operations and bytes that a file may ask for to derive one.
        """

    def add_to(self, options: LoadOptions) -> None:
        """Have a load check and decrypt before anything else sees the bytes."""

class Ledger:
    """Which bytes of which files are done, and their digests."""

    def __init__(self) -> None: ...

    @staticmethod
    def parse(text: str) -> Ledger: ...

    def serialise(self) -> str: ...

    def add_sources(self, checkpoint: Checkpoint) -> None: ...

    def add_output(self, name: str, size: int) -> None: ...

    def record(self, name: str, offset: int, size: int, digest: str) -> None: ...

    def digest(self, name: str, offset: int, size: int) -> str:
        """Of exactly these bytes; '' where they are not done."""

class DeviceDescription:
    """One GPU."""

    @property
    def name(self) -> str: ...

    @property
    def bus(self) -> str: ...

    @property
    def numa_node(self) -> int: ...

    @property
    def integrated(self) -> bool: ...

    @property
    def numa(self) -> str:
        """What of that node a load may use, in words; '' where it is not known."""

class DriverDescription:
    """What is here of a vendor's."""

    @property
    def vendor(self) -> str: ...

    @property
    def library(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def reason(self) -> str:
        """Why it cannot be used; '' where it can."""

    @property
    def devices(self) -> list[DeviceDescription]: ...

def drivers() -> list[DriverDescription]:
    """The drivers of GPUs; no context is made."""

class Facts:
    """What was found about this machine and these files."""

    @staticmethod
    def gather(checkpoint: Checkpoint) -> Facts: ...

    def to_json(self) -> str: ...

    @property
    def wanted_bytes(self) -> int: ...

    @property
    def warm_bytes(self) -> int:
        """In the page cache for certain."""

    @property
    def mixed_bytes(self) -> int: ...

    @property
    def speckled_bytes(self) -> int: ...

    @property
    def unknown_bytes(self) -> int:
        """That no probe here can tell about."""

class LimitKind(enum.Enum):
    """Around the page cache, or out of it."""

    cold = 0

    warm = 1

class LimitResult:
    """What raw loops that only move bytes reached."""

    @property
    def bytes_per_second(self) -> float:
        """0: not measured, and method says why."""

    @property
    def bytes(self) -> int: ...

    @property
    def seconds(self) -> float: ...

    @property
    def method(self) -> str: ...

def measure_limit(checkpoint: Checkpoint, kind: LimitKind, seconds: float) -> LimitResult:
    """Move bytes of the checkpoint's files for at most so many seconds."""

def machine_json() -> str:
    """Facts of this machine."""

def find_tls_roots() -> str:
    """
    The file of TLS roots, as the environment or the distribution has it; '' for none.
    """

def read_s3cfg(path: bytes | None = None) -> dict[str, str]:
    """
    What a file of s3cmd's says, or the one in the home folder; {} where it cannot be read.
    """

def describe_curl() -> tuple[str, str]:
    """(version of libcurl and its TLS library, why there is none or '')."""

def engines() -> list[tuple[str, str, str]]:
    """(name, summary, why it cannot be used or '') of each engine."""

def advice(facts: Facts | None = None) -> list[tuple[str, str]]:
    """(what to change here, why it helps) of each, the most useful first."""

def fallbacks(facts: Facts | None = None, checkpoint: Checkpoint | None = None) -> list[tuple[str, str, str]]:
    """(what is not to be had here, why, what is done instead) of each."""

def backends(facts: Facts | None = None) -> list[tuple[str, str]]:
    """(name, why it cannot be used here or '') of each backend."""
