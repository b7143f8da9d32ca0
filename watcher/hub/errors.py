"""Translates the Hub's errors to ours. Sends no request."""

import errno
import json
import re

import httpx2
from huggingface_hub.errors import HfHubHTTPError

from watcher.errors import Outage, Refused, Rejected, Transient, WatcherError
from watcher.hub.library import parse_ratelimit_headers
from watcher.hub.rate_limit import LONGEST_WINDOW
from watcher.process.host import outage_of
from watcher.process.text import quoted

# The Hub's words for the account: "Private repository storage limit reached", "Your storage patterns tripped …". A name may
# have one of them as its part.
_ACCOUNT = re.compile(r"storage (limit|patterns)|(?<![\w./-])quotas?(?![\w/-]|\.\w)", re.IGNORECASE)


class NameTaken(Exception):
    """The Hub has a repo of that name already; `Hub.look` shows whose it is. Does not end the attempt."""


class Conflict(Exception):
    """This commit or another one may have been made: look before a retry. Does not end the attempt."""


def translate(error: Exception) -> Exception:
    """Return our error for one of huggingface_hub's; often only its `__cause__` has the reason."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, WatcherError | NameTaken | Conflict):
            return cause
        if isinstance(cause, HfHubHTTPError):
            return _by_status(cause)
        if (outage := outage_of(_origin(cause))) is not None:
            return outage
        if isinstance(cause, httpx2.HTTPError | httpx2.StreamError | json.JSONDecodeError):
            return Transient(
                f"The Hub could not be reached: {quoted(str(cause), otherwise=type(cause).__name__)}"
            )
        if isinstance(cause, OSError) and cause.errno in {errno.ENOSPC, errno.EDQUOT}:
            return Outage(f"No space left on this host: {cause.strerror}. Free some space.")
        cause = cause.__cause__
    if isinstance(error, ValueError) and "Invalid metadata in README.md" in str(error):
        return _rejected(f"the model card: {error}")
    if isinstance(error, ValueError | RuntimeError | OSError):
        return Transient(f"The upload failed: {quoted(str(error), otherwise=type(error).__name__)}")
    return error


def _origin(error: BaseException) -> BaseException:
    """Return the system's error, which httpx2 keeps as context, if a request could not be sent; else `error` itself."""
    if isinstance(error, httpx2.TransportError):
        while error.__context__ is not None:
            error = error.__context__
    return error


def _by_status(error: HfHubHTTPError) -> WatcherError:
    status, reason = error.response.status_code, reason_of(error)
    if status == httpx2.codes.UNAUTHORIZED:
        everybody = f"The Hub refused the token: {reason}. Set HF_TOKEN to a valid token with write access."
        return _refused(error.response, reason, everybody, now=True)
    if status in {httpx2.codes.PAYMENT_REQUIRED, httpx2.codes.FORBIDDEN}:
        everybody = (
            f"The Hub refused to store data for this token: {reason}. Check the token's rights and the account's "
            "storage."
        )
        # A repo of one row can be disabled or blocked; storage is the account's.
        if _ACCOUNT.search(reason):
            return Outage(everybody, of_kind=True)
        return _refused(error.response, reason, everybody)
    if "LFS pointer pointed to a file that does not exist" in reason:
        return Transient(f"The Hub has lost an uploaded image: {reason}")
    if status in {
        httpx2.codes.BAD_REQUEST,
        httpx2.codes.CONTENT_TOO_LARGE,
        httpx2.codes.UNPROCESSABLE_CONTENT,
    }:
        return _rejected(f"what was sent: {reason}")
    return Transient(f"The Hub returned an error: {reason}", retry_after=retry_after(error.response))


def _refused(response: httpx2.Response, reason: str, everybody: str, *, now: bool = False) -> Refused:
    sentence = f"The Hub refused access to this identity's repo: {reason}."
    own_words = quoted(response.headers.get("X-Error-Message", ""), otherwise="") or _message(response)
    if not own_words:
        everybody = (
            f"Something in front of the Hub, such as a proxy, refused the request: {reason}. Check this host's network "
            "and HF_ENDPOINT."
        )
    lasting = bool(own_words) and response.status_code != httpx2.codes.PAYMENT_REQUIRED
    return Refused(sentence, everybody=everybody, service="hub", now=now, lasting=lasting)


def _rejected(what: str) -> Rejected:
    everybody = (
        f"The Hub has refused three identities and accepted none: {what}. It may have changed its rules: upgrade "
        "Watcher, or report this."
    )
    return Rejected("hub_refused", f"The Hub refused {what}", everybody=everybody)


def reason_of(error: HfHubHTTPError) -> str:
    """Return the Hub's error message and the HTTP status."""
    response = error.response
    said = quoted(error.server_message or "", otherwise="") or body_of(response)
    return f"{said} (HTTP {response.status_code})"


def body_of(response: httpx2.Response) -> str:
    """Return the message in a response's body as `quoted` returns it; for a page, the status in words."""
    return quoted(_message(response) or response.text, otherwise=response.reason_phrase)


def _message(response: httpx2.Response) -> str | None:
    """Return the Hub's own message in a response's body; None if there is none."""
    try:
        return str(response.json()["error"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def retry_after(response: httpx2.Response) -> float | None:
    """Return the seconds to wait: if the rate limit is used up, until its window ends, else by Retry-After.

    None if the response has neither; a date in Retry-After is ignored.
    """
    rate_limit = parse_ratelimit_headers(response.headers)
    if rate_limit is not None and rate_limit.remaining == 0:
        return float(min(rate_limit.reset_in_seconds, LONGEST_WINDOW))
    try:
        return float(response.headers.get("Retry-After", ""))
    except ValueError:
        return None
