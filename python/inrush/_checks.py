"""The checksums and keys that a load of one checkpoint needs."""

from __future__ import annotations

from inrush import _core
from inrush._errors import UsageError
from inrush._keys import key_at
from inrush._options import environment
from inrush._sizes import parse_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from inrush._keys import Key
    from inrush._options import Options

_VERIFY = {"none": _core.Verify.none, "crc": _core.Verify.crc, "full": _core.Verify.full}


def checks_of(checkpoint: _core.Checkpoint, options: Options) -> _core.Checks:
    """What to check and to decrypt by: the same for loads with options made from the same ones.

    Raises
    ------
    UsageError
        If the format has no checksums, or the key is missing or not needed.
    """
    if options.key is None and not checkpoint.encrypted:
        return _core.Checks.make(checkpoint, _VERIFY[options.verify], None, None)
    # By its identity: the checks keep it alive.
    which = (id(checkpoint), options.verify, options.key)
    known = options.derived.get(which)
    if known is None:
        known = options.derived[which] = (_decrypting(checkpoint, options), checkpoint)
    checks: _core.Checks = known[0]
    return checks


def expectation_of(checkpoint: _core.Checkpoint, options: Options) -> _core.Expectation:
    """What the manifest of the options expects: the same for loads with options made from these.

    Raises
    ------
    DataError
        If tensors of it are missing.
    """
    assert options.manifest is not None
    which = (id(checkpoint), id(options.manifest))
    known = options.derived.get(which)
    if known is None:
        made = _core.Expectation(checkpoint, options.manifest)
        known = options.derived[which] = (made, checkpoint, options.manifest)
    expectation: _core.Expectation = known[0]
    return expectation


def _decrypting(checkpoint: _core.Checkpoint, options: Options) -> _core.Checks:
    key = options.key
    if key is None:
        path = environment("key_file")
        key = None if path is None else key_at(path)
    if key is not None and checkpoint.format == "tensorizer":
        _warn()
    if key is None:
        return _core.Checks.make(checkpoint, _VERIFY[options.verify])
    return _core.Checks.make(
        checkpoint, _VERIFY[options.verify], key.key, key.passphrase, _limits(key)
    )


def _limits(key: Key) -> tuple[int | None, int | None]:
    """Operations and bytes that a file may ask for, where somebody said so."""
    operations, memory = key.most_operations, key.most_memory
    if operations is None and (text := environment("key_operations")) is not None:
        if not text.isdecimal():
            raise UsageError(f"INRUSH_KEY_OPERATIONS {text!r}: expected a whole number")
        operations = int(text)
    if memory is None and (text := environment("key_memory")) is not None:
        memory = parse_size(text, "INRUSH_KEY_MEMORY")
    return operations, memory


def _warn() -> None:
    import warnings

    warnings.warn(
        "tensorizer's encryption does not cover names, shapes, order and which tensors there are: "
        "whoever can write the file can change those",
        stacklevel=3,
    )
