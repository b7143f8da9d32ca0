"""The Hub's errors, translated into ours."""

import errno
import json

import httpx2
from huggingface_hub.errors import HfHubHTTPError

from watcher.errors import Outage, Permanent, Transient, WatcherError
from watcher.hub.library import parse_ratelimit_headers
from watcher.process.log import redact


class NameTaken(Exception):
    """The Hub has a repo of that name already; whose it is, a look will tell. No verdict on the row."""


class Conflict(Exception):
    """The commit may have landed, or another one did: look before trying again. No verdict on the row."""


def translate(error: Exception) -> Exception:
    """Return our error for what huggingface_hub raised; the reason is often only in the cause of what it raises."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, WatcherError | NameTaken | Conflict):
            return cause
        if isinstance(cause, HfHubHTTPError):
            return _by_status(cause)
        if isinstance(cause, httpx2.HTTPError | httpx2.StreamError | json.JSONDecodeError):
            return Transient(f"The Hub could not be reached: {str(cause) or type(cause).__name__}")
        if isinstance(cause, OSError) and cause.errno in {errno.ENOSPC, errno.EDQUOT}:
            return Outage(f"No space left on this host: {cause.strerror}.")
        cause = cause.__cause__
    if isinstance(error, ValueError) and "Invalid metadata in README.md" in str(error):
        return Permanent("hub_refused", f"The Hub refuses the model card: {error}")
    if isinstance(error, ValueError | RuntimeError | OSError):
        return Transient(f"The upload failed: {error}")
    return error


def _by_status(error: HfHubHTTPError) -> WatcherError:
    status, reason = error.response.status_code, reason_of(error)
    if status == httpx2.codes.UNAUTHORIZED:
        return Outage(
            f"The Hub refused the token: {reason}. Set HF_TOKEN to one that is valid and may write."
        )
    if status in {httpx2.codes.PAYMENT_REQUIRED, httpx2.codes.FORBIDDEN}:
        return Outage(f"The Hub refuses to store anything for this token: {reason}")
    if "LFS pointer pointed to a file that does not exist" in reason:
        return Transient(f"The Hub has lost an uploaded image: {reason}")
    if status in {
        httpx2.codes.BAD_REQUEST,
        httpx2.codes.CONTENT_TOO_LARGE,
        httpx2.codes.UNPROCESSABLE_CONTENT,
    }:
        return Permanent("hub_refused", f"The Hub refuses what was sent: {reason}")
    return Transient(f"The Hub could not do it just now: {reason}", retry_after=retry_after(error.response))


def reason_of(error: HfHubHTTPError) -> str:
    """Return the Hub's reason in its own words, and the status."""
    return f"{error.server_message or body_of(error.response)} (HTTP {error.response.status_code})"


def body_of(response: httpx2.Response) -> str:
    """Return what an answer says in its body: at most 300 characters, without secrets."""
    try:
        text = str(response.json()["error"])
    except (ValueError, KeyError, TypeError):
        text = response.text.strip()
    return redact(text or response.reason_phrase)[:300]  # in this order: half a secret would not be found


def retry_after(response: httpx2.Response) -> float | None:
    """Return the seconds that an answer names: until the rate limit's window ends where that is used up, else the header.

    None where it names none; a date is not read.
    """
    rate_limit = parse_ratelimit_headers(response.headers)
    if rate_limit is not None and rate_limit.remaining == 0:
        return float(rate_limit.reset_in_seconds)
    try:
        return float(response.headers.get("Retry-After", ""))
    except ValueError:
        return None
