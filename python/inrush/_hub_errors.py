"""Why the Hub did not give what it was asked for, in one line without anything secret."""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

OFFLINE = "the Hub may not be asked (HF_HUB_OFFLINE)"
_LONGEST_PAUSE = 10.0  # seconds


class Unavailable(Exception):
    """Why the Hub did not give what it was asked for.

    Attributes
    ----------
    may_pass : bool
        Whether to ask again, after `pause` seconds.
    certain : bool
        What the cache has instead would be wrong.
    """

    def __init__(
        self, why: str, *, may_pass: bool = False, certain: bool = False, pause: float = 0.0
    ) -> None:
        super().__init__(why)
        self.may_pass = may_pass
        self.certain = certain
        self.pause = pause


def explained(error: Exception, token: str | None, page: str) -> Unavailable:
    """What an exception of huggingface_hub means, in one line without anything secret.

    Parameters
    ----------
    page : str
        The repository's, which is where access is asked for.
    """
    from huggingface_hub import errors

    response = getattr(error, "response", None)
    if not isinstance(error, errors.HfHubHTTPError) or response is None:
        return _unreachable(error, token)
    status = response.status_code
    request = response.headers.get("x-request-id") or response.headers.get("x-amz-cf-id")
    number = f" (request id {_printable(request)})" if request else ""
    shown = "a token was sent" if token else "no token was sent: HF_TOKEN, or `hf auth login`"
    said = _printable(_without(token, response.headers.get("x-error-message") or ""))
    if isinstance(error, errors.RevisionNotFoundError):
        why = f"{status}: the repository has no such revision"
    elif isinstance(error, errors.GatedRepoError):
        why = f"{status}: access must be asked for at {page} ({shown})"
    elif isinstance(error, errors.RepositoryNotFoundError):
        why = f"{status}: no such repository, or a private one ({shown})"
    elif status in (401, 403):
        why = f"{status}: {said or 'access denied'} ({shown})"
    else:
        why = f"{status}: {said}" if said else f"{status} {response.reason_phrase}"
    later = status in (408, 429) or status >= 500
    certain = isinstance(error, errors.RevisionNotFoundError)
    return Unavailable(why + number, may_pass=later, certain=certain, pause=_pause(response))


def _unreachable(error: Exception, token: str | None) -> Unavailable:
    if type(error).__name__ == "OfflineModeIsEnabled":
        return Unavailable(OFFLINE)
    # One line; of a URL in it nothing but where it leads, for the rest may be a signature.
    text = re.sub(r"(\w+://[^\s?'\"]*)\?[^\s'\"]*", r"\1?...", str(error)).partition("\n")[0]
    text = _without(token, text)
    local = isinstance(error, (ValueError, TypeError)) and not isinstance(error, OSError)
    return Unavailable(f"{type(error).__name__}: {_printable(text)}", may_pass=not local)


def _pause(response: Any) -> float:
    """Seconds that the Hub asks to be left alone, as far as that is waited for."""
    try:
        return min(float(response.headers.get("retry-after", 0)), _LONGEST_PAUSE)
    except ValueError:
        return 0.0


def _without(token: str | None, text: str) -> str:
    return text.replace(token, "...") if token else text


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text)[:300].strip()
