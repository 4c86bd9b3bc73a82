"""What a caller says of a remote place, and credentials that only Python packages can get."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import threading
import time

from inrush import _core
from inrush._errors import SourceError, UsageError
from inrush._options import has_aws_keys, preset_storage_options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

# Seconds between two looks at credentials that may have been renewed.
_RENEWAL = 30.0


def storage_for(places: Sequence[bytes], options: Mapping[str, Any] | None) -> _core.StorageOptions:
    """Options for these places; with botocore or google-auth installed, credentials from them.

    Raises
    ------
    UsageError
        For an option that is no text, number or truth value.
    SourceError
        botocore or google-auth has credentials, and cannot get at them; a place on the Hub cannot
        be resolved.
    """
    storage = _core.StorageOptions()
    schemes = _schemes(places)
    if not schemes - {b"file"} and (not options or dict(options) == preset_storage_options()):
        return storage
    if options is None:
        options = preset_storage_options()
    words = {name: _text(name, value) for name, value in (options or {}).items()}
    hub_words = _taken_for_hub(words, schemes)
    if schemes & {b"https", b"s3", b"gs", b"az", b"hf"} and not words.get("ca_file"):
        words |= _certifi()
    storage.words = words
    if b"hf" in schemes:
        _resolve(storage, places, hub_words)
    own = words.get("key") or words.get("token") or words.get("anon") == "true"
    if not own and b"s3" in schemes:
        _botocore(words, storage)
    elif not own and b"gs" in schemes:
        _google(storage)
    return storage


def fetch_refused(
    storage: _core.StorageOptions,
    places: Sequence[bytes],
    options: Mapping[str, Any] | None,
    done: set[tuple[bytes, str]],
) -> bool:
    """Have huggingface_hub download what a server of the Hub gave no parts of.

    Parameters
    ----------
    done
        What was downloaded so already, which is added to.

    Returns
    -------
    bool
        Whether there was any.
    """
    refused = {(place, name) for place in places for name in storage.hub_refusals(place)} - done
    if not refused:
        return False
    from inrush import _hub  # few need it, and importing it takes time

    given = preset_storage_options() if options is None else options
    words = {name: _text(name, value) for name, value in (given or {}).items()}
    hub = _hub.Hub(_taken_for_hub(words, _schemes(places)))
    for place, name in sorted(refused):
        hub.download(_hub.parse_place(os.fsdecode(place)), storage.hub_commit(place), name)
    done |= refused
    return True


def _schemes(places: Sequence[bytes]) -> set[bytes]:
    return {place.partition(b"://")[0].lower() for place in places if b"://" in place}


def _taken_for_hub(words: dict[str, str], schemes: set[bytes]) -> dict[str, str]:
    """The words that mean the Hub, taken out; beside other remote places only what none has."""
    if b"hf" not in schemes:
        return {}
    from inrush._hub import WORDS

    mine = WORDS if schemes <= {b"hf", b"file"} else ("cache",)
    return {name: words.pop(name) for name in mine if name in words}


def _resolve(
    storage: _core.StorageOptions, places: Sequence[bytes], words: Mapping[str, str]
) -> None:
    """What the places on the Hub stand for, and the token, renewed as huggingface_hub renews it."""
    from inrush import _hub

    for place in places:
        if not place.lower().startswith(b"hf://"):
            continue
        uri = os.fsdecode(place)
        parts = _hub.parse_place(uri)
        if not _hub.is_installed():
            raise _hub.needs_hub(uri)
        hub = _hub.Hub(words)
        snapshot = hub.resolve(parts)

        def now(hub: Any = hub) -> tuple[str, str, str]:
            return "", "", hub.token() or ""

        _supply(snapshot, now, renewed=hub.renews)
        storage.put_hub(place, snapshot)


def _text(name: str, value: Any) -> str:
    if name == "headers" and not isinstance(value, str):
        lines = [f"{key}: {one}" for key, one in value.items()]
        if any("\n" in line or "\r" in line for line in lines):
            raise UsageError("storage option headers: a line break would begin another header")
        return "\n".join(lines)
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, (str, int, float)):
        raise UsageError(f"storage option {name}: expected text, a number, True or False")
    return str(value)


def _certifi() -> dict[str, str]:
    """The roots of certifi, for machines that have none."""
    if _core.find_tls_roots() or importlib.util.find_spec("certifi") is None:
        return {}
    import certifi

    return {"ca_fallback": certifi.where()}


def _botocore(words: Mapping[str, str], storage: _core.StorageOptions) -> None:
    """What botocore's chain finds: profiles, SSO, web identity, assumed roles, instance metadata.

    Keys in the environment are found without it.
    """
    profile = words.get("profile")
    if (has_aws_keys() and not profile) or importlib.util.find_spec("botocore") is None:
        return
    import botocore.exceptions
    import botocore.session

    try:
        found = botocore.session.Session(profile=profile).get_credentials()
        if found is None:
            return
        found.get_frozen_credentials()
    except botocore.exceptions.BotoCoreError as error:
        raise SourceError(f"credentials of AWS: {error}") from None

    def now() -> tuple[str, str, str]:
        frozen = found.get_frozen_credentials()
        return frozen.access_key, frozen.secret_key, frozen.token or ""

    _supply(storage, now, renewed=hasattr(found, "refresh_needed"))


def _google(storage: _core.StorageOptions) -> None:
    """What google-auth finds, if it is installed."""
    try:
        import google.auth
        import google.auth.exceptions
        import google.auth.transport.requests
    except ImportError:
        return
    request = google.auth.transport.requests.Request()
    try:
        found, _ = google.auth.default(["https://www.googleapis.com/auth/devstorage.read_write"])
        found.refresh(request)
    except google.auth.exceptions.GoogleAuthError:
        return

    def now() -> tuple[str, str, str]:
        if not found.valid:
            found.refresh(request)
        return "", "", found.token

    _supply(storage, now, renewed=True)


def _supply(
    storage: _core.StorageOptions | _core.HubSnapshot,
    now: Callable[[], tuple[str, str, str]],
    *,
    renewed: bool,
) -> None:
    """Hands credentials over, and pushes new ones for as long as anybody signs with them."""
    source = _core.CredentialSource()
    source.put(*now())
    storage.take_credentials(source)
    if not renewed:
        return

    def run() -> None:
        wanted = True
        while wanted:
            time.sleep(_RENEWAL)
            # What cannot be renewed now is as it was before, and may do.
            with contextlib.suppress(Exception):
                wanted = source.put(*now())

    threading.Thread(target=run, name="inrush-credentials", daemon=True).start()
