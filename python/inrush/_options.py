"""Options of a load: their words, their defaults, and the environment that presets them.

The only file of the package that reads environment variables. What a caller says wins over
``INRUSH_<WORD>``, which wins over the default.
"""

from __future__ import annotations

import enum
import os
import re

from inrush._errors import UsageError
from inrush._sizes import parse_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any, TypedDict

    from inrush._core import Manifest
    from inrush._keys import Encryption, Key

    Pattern = str | re.Pattern[str] | Callable[[str], bool]
    Device = str | int | Any | None

    class OptionWords(TypedDict, total=False):
        """The keyword arguments that every way of loading takes; see `inrush.open`."""

        framework: str | None
        device: Device | Mapping[str, Device]
        backend: str | Backend | BackendPolicy | Iterable[str | Backend | BackendPolicy] | None
        strict: bool
        budget: int | str | Mapping[str, int | str] | None
        page_cache: str
        mapping: str
        copy: bool | None
        buffer_size: int | str | None
        order: str | Iterable[str]
        include: Pattern | Iterable[Pattern] | None
        exclude: Pattern | Iterable[Pattern] | None
        slices: Mapping[str, Any] | str | None
        out: Mapping[str, Any] | None
        verify: str
        manifest: str | os.PathLike[str] | Manifest | None
        encryption: Encryption | Key | None
        mirrors: str | Iterable[str] | None
        cache_dir: str | os.PathLike[str] | None
        cache_size: int | str | None
        progress: Callable[..., object] | None
        trace: bool
        storage_options: Mapping[str, Any] | None


class Backend(str, enum.Enum):
    """Ways to read. Those without ``BUFFERED`` bypass the page cache, except ``MMAP``."""

    URING = "uring"
    URING_BUFFERED = "uring_buffered"
    AIO = "aio"
    AIO_BUFFERED = "aio_buffered"
    PREAD = "pread"
    PREAD_BUFFERED = "pread_buffered"
    MMAP = "mmap"
    CUFILE = "cufile"
    CUFILE_COMPATIBLE = "cufile_compatible"


class BackendPolicy(str, enum.Enum):
    """Sets of backends that are tried in order."""

    BUFFERED = "buffered"


# Words that the environment and the command line share with Python.
WORDS = (
    "device",
    "backend",
    "budget",
    "page_cache",
    "mapping",
    "order",
    "include",
    "exclude",
    "slices",
    "out",
    "verify",
    "cache_dir",
    "cache_size",
    "storage_options",
)

_DEFAULTS: dict[str, Any] = {
    "framework": None,
    "device": "cpu",
    "backend": None,
    "strict": False,
    "budget": None,
    "page_cache": "auto",
    "mapping": "auto",
    "copy": None,
    "buffer_size": None,
    "order": "file",
    "include": None,
    "exclude": None,
    "slices": None,
    "out": None,
    "verify": "none",
    "manifest": None,
    "encryption": None,
    "mirrors": None,
    "cache_dir": None,
    "cache_size": None,
    "progress": None,
    "trace": False,
    "storage_options": None,
}


def parse_budget(budget: Any, memory: str = "host") -> int:
    """Bytes of staging in one kind of memory; 0 for automatic.

    Parameters
    ----------
    budget
        A size, or a mapping of sizes for ``host``, ``pinned`` and ``device``; as text
        ``'host=8MiB,pinned=1GiB'``. A load to the CPU stages in host memory only, one to a GPU in
        pinned memory, and with the backend ``CUFILE`` in the device's.
    memory : str
    """
    if budget is None or budget == "auto":
        return 0
    if isinstance(budget, str) and "=" in budget:
        budget = _sizes_by_memory(budget)
    if isinstance(budget, (int, str)) or not hasattr(budget, "items"):
        return parse_size(budget)
    unknown = set(budget) - {"host", "pinned", "device"}
    if unknown:
        raise UsageError(f"budget: no memory is called {sorted(unknown)[0]!r} (host pinned device)")
    sizes = {kind: parse_size(size) for kind, size in budget.items()}
    return sizes.get(memory, 0)


def _sizes_by_memory(text: str) -> dict[str, str]:
    sizes = {}
    for part in text.split(","):
        kind, equals, size = part.partition("=")
        if not equals:
            raise UsageError(f"budget {part!r}: expected MEMORY=SIZE,...")
        sizes[kind.strip()] = size
    return sizes


def parse_backend(backend: Any) -> list[str]:
    """Names of backends and policies in order of preference; empty for automatic."""
    if backend is None or backend == "auto":
        return []
    if isinstance(backend, (str, enum.Enum)):
        backend = str(getattr(backend, "value", backend)).split(",")
    known = {member.value for member in (*Backend, *BackendPolicy)}
    given = _listed("backend", backend, "names of backends")
    names = [str(getattr(name, "value", name)).strip().lower() for name in given]
    for name in names:
        if name not in known:
            raise UsageError(f"backend {name!r}: expected some of {', '.join(sorted(known))}")
    if not names:
        raise UsageError("backend: an empty list allows none; None chooses by itself")
    return names


def parse_order(text: str) -> str | list[str]:
    """An order from text: ``"file"``, ``"ready"``, or names and patterns: ``"embed*,head"``."""
    return text if text in ("file", "ready") else [part for part in text.split(",") if part]


def parse_slices(text: str) -> dict[str, str]:
    """Slices from text: ``"NAME=0:512,:;OTHER=:,8:16"``."""
    slices = {}
    for part in filter(None, (part.strip() for part in text.split(";"))):
        name, equals, spec = part.rpartition("=")
        if not equals or not name:
            raise UsageError(f"slices {part!r}: expected NAME=START:STOP,...")
        slices[name] = spec
    return slices


def parse_storage_options(text: str) -> dict[str, str]:
    """Storage options from text: ``"NAME=VALUE;OTHER=VALUE"``."""
    options = {}
    for part in filter(None, (part.strip() for part in text.split(";"))):
        name, equals, value = part.partition("=")
        if not equals or not name.strip():
            # The part may be what should not be seen.
            raise UsageError("storage_options: expected NAME=VALUE;NAME=VALUE;...")
        options[name.strip()] = value.strip()
    return options


def preset_storage_options() -> dict[str, str]:
    """Those of INRUSH_STORAGE_OPTIONS."""
    return dict(_preset("storage_options") or {})


def environment(word: str) -> str | None:
    """The value of ``INRUSH_<WORD>``, or None where it is unset or empty."""
    return os.environ.get("INRUSH_" + word.upper()) or None


def aws_environment(word: str) -> str | None:
    """The value of ``AWS_<WORD>``, which AWS's own tools read; None where it is unset or empty."""
    return os.environ.get("AWS_" + word) or None


def instanttensor_backend() -> str | None:
    """The value of ``INSTANTTENSOR_BACKEND``, such as ``"URING,AIO"``; None where it is unset.

    Raises
    ------
    UsageError
        If it is empty.
    """
    text = os.environ.get("INSTANTTENSOR_BACKEND")
    if text is not None and not text.replace(",", " ").strip():
        raise UsageError("INSTANTTENSOR_BACKEND is empty: expected names such as URING,AIO")
    return text


def hub_environment() -> dict[str, str]:
    """What huggingface_hub reads of the environment when it is imported, as it is now."""
    words = ["HF_ENDPOINT", "HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"]
    words += ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"]
    return {word: os.environ.get(word, "") for word in words}


def has_aws_keys() -> bool:
    """Whether the environment has an access key of AWS, and no profile that would win over it."""
    return bool(os.environ.get("AWS_ACCESS_KEY_ID")) and not os.environ.get("AWS_PROFILE")


def has_google_token() -> bool:
    """Whether the environment has a bearer token for Google's storage."""
    return bool(os.environ.get("GOOGLE_OAUTH_ACCESS_TOKEN"))


def is_traced() -> bool:
    """Whether ``INRUSH_DEBUG`` asks the command line for tracebacks."""
    return environment("debug") is not None


def _preset(word: str) -> Any:
    text = environment(word)
    if text is None or word not in WORDS or word == "out":
        return _DEFAULTS[word]
    if word in ("include", "exclude"):
        return [part for part in text.split(",") if part]
    if word == "slices":
        return parse_slices(text)
    if word == "storage_options":
        return parse_storage_options(text)
    if word == "order":
        return parse_order(text)
    return text


def _presets() -> dict[str, Any]:
    return {word: _preset(word) for word in _DEFAULTS}


def _of_environment(error: UsageError, words: Mapping[str, Any]) -> UsageError:
    """The error, with the name of the variable in place of the word that came from it."""
    named = re.match(r"\w+", str(error))
    word = named[0] if named else ""
    if word not in WORDS or word in words or environment(word) is None:
        return error
    return UsageError(f"INRUSH_{word.upper()}{str(error)[len(word) :]}")


class Options:
    """The options of one load, checked. Attributes are the words of `inrush.open`."""

    _values: dict[str, Any]

    def __init__(self, words: Mapping[str, Any], base: Options | None = None) -> None:
        for word in words:
            if word not in _DEFAULTS:
                raise TypeError(f"unexpected option {word!r}; there are: {', '.join(_DEFAULTS)}")
        try:
            values: dict[str, Any] = dict(base._values) if base else _presets()
            values.update(words)
            self._take(values, base)
        except UsageError as error:
            raise (error if base else _of_environment(error, words)) from None

    def _take(self, values: dict[str, Any], base: Options | None) -> None:
        self._values = values
        self.framework: str | None = values["framework"]
        self.backend = parse_backend(values["backend"])
        self.strict = bool(values["strict"])
        self.budget = parse_budget(values["budget"])
        self.pinned_budget = parse_budget(values["budget"], "pinned")
        self.device_budget = parse_budget(values["budget"], "device")
        self.page_cache = _one_of("page_cache", values["page_cache"], ("auto", "keep", "drop"))
        self.mapping = _one_of("mapping", values["mapping"], ("auto", "never"))
        self.copy = _copy(values["copy"])
        if self.copy is not None:
            self.mapping = "never"
        self.buffer_size = 0
        if values["buffer_size"] is not None:
            self.buffer_size = parse_size(values["buffer_size"], "buffer_size")
        self.order: str | list[str] = _order(values["order"])
        self.include: list[Pattern] = _patterns("include", values["include"])
        self.exclude: list[Pattern] = _patterns("exclude", values["exclude"])
        slices = values["slices"]
        slices = parse_slices(slices) if isinstance(slices, str) else slices
        self.slices = _mapping("slices", slices)
        self.out = _mapping("out", values["out"])
        self.verify = _one_of("verify", values["verify"], ("none", "crc", "full"))
        if self.verify != "none" and self.slices:
            raise UsageError("verify: only whole tensors can be checked, and slices are asked for")
        # Resolved once: a command may cost something, and a pipe is read once.
        self.key: Key | None = _key(values["encryption"])
        values["encryption"] = self.key
        self.manifest: Manifest | None = None
        if values["manifest"] is not None:
            from inrush._manifest import manifest_of  # few need it, and importing it takes time

            storage = _storage_words(values["storage_options"])
            self.manifest = values["manifest"] = manifest_of(values["manifest"], storage)
        # What is derived from keys at some cost, for all options that are made from these.
        self.derived: dict[Any, Any] = base.derived if base else {}
        self.mirrors: list[bytes] = _places(values["mirrors"])
        self.cache_dir = _folder("cache_dir", values["cache_dir"])
        self.cache_size = 0
        if values["cache_size"] is not None:
            self.cache_size = parse_size(values["cache_size"], "cache_size")
        self.progress: Callable[..., object] | None = _callback(values["progress"])
        self.trace = bool(values["trace"])
        self.storage_options = _storage_words(values["storage_options"])
        # Where torch moves what was loaded; None leaves it in host memory.
        self.moved_to: Any = base.moved_to if base else None
        # Where tensors go: None is host memory.
        self.device: Any = _devices(values["device"])

    def moving_to(self, device: Any) -> Options:
        """These options, for tensors that torch moves to `device` as they come; None: nowhere."""
        self.moved_to = device
        return self


def _key(encryption: Encryption | Key | None) -> Key | None:
    if encryption is None:
        return None
    from inrush._keys import key_of  # few need it, and importing it takes time

    return key_of(encryption)


_ACCELERATORS = ("cuda", "hip", "mps", "npu", "xpu", "xla", "mlu", "musa", "hpu")


def parse_device(device: Any) -> Any:
    """None for the host; else what torch's ``.to`` takes.

    Parameters
    ----------
    device : str, int, torch.device or None
        As safetensors takes it: ``'cpu'``, ``'cuda'``, ``'cuda:1'``; a number is that device of
        whatever accelerator torch has; None is the host.

    Raises
    ------
    UsageError
        If no device is called that.
    """
    if device is None:
        return None
    if isinstance(device, int) and not isinstance(device, bool) and device >= 0:
        return device
    kind = getattr(device, "type", None)
    if isinstance(kind, str):
        return None if kind == "cpu" else device
    if isinstance(device, str) and device.isascii() and device.isdigit():
        return int(device)
    if device == "cpu":
        return None
    name, colon, index = device.partition(":") if isinstance(device, str) else ("", "", "")
    known = name in _ACCELERATORS and (not colon or (index.isascii() and index.isdigit()))
    if not known or (name == "mps" and int(index or 0) > 0):
        raise UsageError(f"device {device} is invalid")
    return device


def _devices(device: Any) -> Any:
    if hasattr(device, "items"):
        return {str(key): parse_device(value) for key, value in device.items()}
    return parse_device(device)


def _copy(copy: Any) -> bool | None:
    if copy is not None and not isinstance(copy, bool):
        raise UsageError(f"copy {copy!r}: expected True, False or None")
    return copy


def _places(mirrors: Any) -> list[bytes]:
    if mirrors is None:
        return []
    if isinstance(mirrors, (str, os.PathLike)):
        return [os.fsencode(mirrors)]
    try:
        return [os.fsencode(place) for place in _listed("mirrors", mirrors, "places")]
    except TypeError:
        raise UsageError(f"mirrors {mirrors!r}: expected places") from None


def _folder(word: str, path: Any) -> bytes:
    if path is None:
        return b""
    try:
        return os.fsencode(os.path.expanduser(path))
    except TypeError:
        raise UsageError(f"{word} {path!r}: expected a path") from None


def _storage_words(options: Any) -> Mapping[str, Any] | None:
    if isinstance(options, str):
        return parse_storage_options(options)
    if options is not None and not hasattr(options, "items"):
        # Never the value itself: there may be a secret in it.
        raise UsageError(f"storage_options: expected a mapping, not {type(options).__name__}")
    if not all(isinstance(word, str) for word in options or ()):
        raise UsageError("storage_options: expected the names of options to be text")
    words: Mapping[str, Any] | None = options
    return words


def _one_of(word: str, value: Any, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise UsageError(f"{word} {value!r}: expected one of {', '.join(allowed)}")
    return str(value)


def _order(order: str | Iterable[str]) -> str | list[str]:
    if isinstance(order, str):
        return _one_of("order", order, ("file", "ready"))
    names = _listed("order", order, "'file', 'ready', or names")
    if not all(isinstance(name, str) for name in names):
        raise UsageError(f"order {order!r}: expected 'file', 'ready', or names")
    if not names:
        raise UsageError("order: an empty list orders nothing")
    return names


def _patterns(word: str, patterns: Any) -> list[Pattern]:
    if patterns is None:
        return []
    if isinstance(patterns, (str, re.Pattern)) or callable(patterns):
        patterns = [patterns]
    return [_pattern(word, one) for one in _listed(word, patterns, _PATTERNS)]


_PATTERNS = "names, patterns or predicates"


def _pattern(word: str, pattern: Any) -> Pattern:
    # As with 're:', some part of the name must match.
    if isinstance(pattern, re.Pattern) and isinstance(pattern.pattern, str):
        return lambda name: pattern.search(name) is not None
    if isinstance(pattern, str) or callable(pattern):
        return pattern  # type: ignore[no-any-return]
    raise UsageError(f"{word} {pattern!r}: expected {_PATTERNS}")


def _listed(word: str, values: Any, expected: str) -> list[Any]:
    if isinstance(values, (bytes, bytearray)) or not hasattr(values, "__iter__"):
        raise UsageError(f"{word} {values!r}: expected {expected}")
    return list(values)


def _mapping(word: str, values: Any) -> Mapping[str, Any]:
    if values is None:
        return {}
    if not hasattr(values, "items") or not all(isinstance(name, str) for name in values):
        raise UsageError(f"{word} {values!r}: expected a mapping from names")
    mapping: Mapping[str, Any] = values
    return mapping


def _callback(progress: Any) -> Any:
    if progress is not None and not callable(progress):
        raise UsageError(f"progress {progress!r}: expected a callable")
    return progress


def child_environment(**values: str) -> dict[str, str]:
    """The environment of a child process: this one's, with these values."""
    return {**os.environ, **values}
