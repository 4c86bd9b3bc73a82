"""What a caller says of a remote place, and credentials that only Python packages can get."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import threading
import time

from inrush import _core
from inrush._errors import SourceError, UsageError
from inrush._options import has_aws_keys, has_google_token, preset_storage_options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from inrush._hub import Hub

    _Now = Callable[[], tuple[str, str, str]]

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
    if not own and b"gs" in schemes:
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

    hub = hub_for(options, places)
    for place, name in sorted(refused):
        hub.download(_hub.parse_place(os.fsdecode(place)), storage.hub_commit(place), name)
    done |= refused
    return True


def hub_for(options: Mapping[str, Any] | None, places: Sequence[bytes]) -> Hub:
    """The Hub as these storage options have it for these places; None: the environment's."""
    from inrush import _hub  # few need it, and importing it takes time

    given = preset_storage_options() if options is None else options
    words = {name: _text(name, value) for name, value in given.items()}
    return _hub.Hub(_taken_for_hub(words, _schemes(places)))


def without_secrets(place: str) -> str:
    """A place as errors and lists name it: without a login, and without what its query says."""
    scheme, colon, rest = place.partition("://")
    if not colon:
        return place
    rest, question, _ = rest.partition("?")
    host, slash, path = rest.partition("/")
    query = "?..." if question else ""
    return scheme + colon + host.rpartition("@")[2] + slash + path + query


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

        snapshot.take_credentials(_source(now, renewed=hub.renews))
        storage.put_hub(place, snapshot)


def _text(name: str, value: Any) -> str:
    if name == "headers" and not isinstance(value, str):
        if not hasattr(value, "items"):
            raise UsageError("storage option headers: expected a mapping from names to values")
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
        session = botocore.session.Session(profile=profile)
        s3cfg = _core.read_s3cfg()
        # s3cmd's keys are more of a choice than what a machine is lent.
        if not profile and s3cfg.get("access_key") and s3cfg.get("secret_key"):
            for name in ("container-role", "iam-role"):
                session.get_component("credential_provider").remove(name)
        found = session.get_credentials()
        if found is None:
            return
        found.get_frozen_credentials()
    except botocore.exceptions.BotoCoreError as error:
        raise SourceError(f"credentials of AWS: {error}") from None

    def now() -> tuple[str, str, str]:
        frozen = found.get_frozen_credentials()
        return frozen.access_key, frozen.secret_key, frozen.token or ""

    storage.take_credentials("s3", _source(now, renewed=hasattr(found, "refresh_needed")))


def _google(storage: _core.StorageOptions) -> None:
    """What google-auth finds, if it is installed. A token in the environment needs it not."""
    if has_google_token():
        return
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
    except google.auth.exceptions.DefaultCredentialsError:
        return  # it has none
    except google.auth.exceptions.GoogleAuthError as error:
        raise SourceError(f"credentials of Google: {error}") from None

    def now() -> tuple[str, str, str]:
        if not found.valid:
            found.refresh(request)
        return "", "", found.token

    storage.take_credentials("gs", _source(now, renewed=True))


def _source(now: _Now, *, renewed: bool) -> _core.CredentialSource:
    """Credentials as they are now; new ones are pushed for as long as anybody signs with them."""
    source = _core.CredentialSource()
    source.put(*now())
    if renewed:
        _renewer.add(source, now)
    return source


class _Renewer:
    """One thread for all credentials that are renewed; there is none while there are none."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._renewed: list[tuple[_core.CredentialSource, _Now]] = []

    def add(self, source: _core.CredentialSource, now: _Now) -> None:
        with self._lock:
            self._renewed.append((source, now))
            if len(self._renewed) > 1:
                return
        threading.Thread(target=self._run, name="inrush-credentials", daemon=True).start()

    def _run(self) -> None:
        while True:
            time.sleep(_RENEWAL)
            with self._lock:
                self._renewed = [one for one in self._renewed if one[0].wanted()]
                renewed = list(self._renewed)
                if not renewed:
                    return
            for source, now in renewed:
                # What cannot be renewed now is as it was before, and may do.
                with contextlib.suppress(Exception):
                    source.put(*now())


def _after_fork() -> None:
    """The child has no thread of the parent's."""
    global _renewer
    renewed = _renewer._renewed
    _renewer = _Renewer()
    for source, now in renewed:
        _renewer.add(source, now)


_renewer = _Renewer()
os.register_at_fork(after_in_child=_after_fork)
