"""The HTTP client under huggingface_hub, and what its errors mean for us.

The library is written for scripts: it sleeps, tries again and sorts errors by itself. Here is what a daemon needs otherwise.
"""

import asyncio
import contextvars
import errno
import json
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, TypeVar

import httpx2
from httpx2._content import IteratorByteStream
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils._http import hf_request_event_hook, parse_ratelimit_headers

from watcher.errors import Conflict, NameTaken, Outage, Permanent, Transient, WatcherError
from watcher.log import redact
from watcher.metrics import BYTES

T = TypeVar("T")

# The Hub itself ends a request after 60 to 120 s.
_TIMEOUT = httpx2.Timeout(connect=10, read=130, write=60, pool=130)

# httpx2 2.16.2 reads 64 KiB of a file at a time, and for each goes through all of its layers. There is no public way to
# set it.
IteratorByteStream.CHUNK_SIZE = 2**18

_SCARCE = 0.1
"""The share of a window's requests that is left when we begin to spread them over the window."""
_LONGEST_PAUSE = 10.0
"""Seconds; a window is five minutes, and a request that is late is better than one that is refused."""


class Left(NamedTuple):
    """Requests that may still be made in a window, of how many."""

    remaining: int
    limit: int


class Budget:
    """What is left of the requests that the Hub allows, to all that use one token, in one window of time."""

    def __init__(self) -> None:
        self.remaining: int | None = None
        """Requests left as of the last answer; None while the Hub has not said."""
        self._limit = 0
        self._resets_at = 0.0
        self._lock = threading.Lock()

    def learn(self, headers: Mapping[str, str]) -> None:
        """Read the headers of an answer; the Hub counts pages, downloads and the API apart, and ours are the API's."""
        told = parse_ratelimit_headers(headers)
        if told is None or told.resource_type != "api":
            return
        with self._lock:
            self.remaining, self._limit = told.remaining, told.limit or 0
            self._resets_at = time.monotonic() + told.reset_in_seconds

    @property
    def left(self) -> Left | None:
        """What is left in the present window; None where the Hub has not said so yet."""
        with self._lock:
            if self.remaining is None or time.monotonic() > self._resets_at:
                return None
            return Left(self.remaining, self._limit)

    def pause(self) -> float:
        """Seconds to wait before the next request: none while there is plenty, else its share of the time left."""
        with self._lock:
            if self.remaining is None or self.remaining > self._limit * _SCARCE:
                return 0.0
            seconds = max(0.0, self._resets_at - time.monotonic())
            return min(seconds / (self.remaining + 1), _LONGEST_PAUSE)


class Client(httpx2.Client):
    """The client that huggingface_hub 2.4.0 shares between all its threads, with five of its habits kept from it.

    Its http_backoff closes the shared client on a ConnectError, under every other thread: `close` does nothing.
    It sleeps through a 429, five times up to five minutes and deaf to cancelling: that answer is raised at once.
    Its create_repo asks again without a pause while another creation is under way: likewise.
    It tries again after a 5xx, up to 23 s for each of our own tries: likewise.
    Its repo_info asks for no time-out, where it is given none: ours holds for every request.
    """

    def __init__(self, endpoint: str) -> None:
        super().__init__(
            event_hooks={"request": [hf_request_event_hook]}, follow_redirects=True, timeout=_TIMEOUT
        )
        self._hub = httpx2.URL(endpoint).host
        self.budget = Budget()

    def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """Send at the pace of the budget; raises Transient for the answers that the library would sit through."""
        at_hub = request.url.host == self._hub
        if at_hub and (pause := self.budget.pause()):
            time.sleep(pause)
        request.extensions["timeout"] = self.timeout.as_dict()
        response = super().send(request, **options)
        if at_hub:
            self.budget.learn(response.headers)
        if request.method == "PUT":
            # Nothing but images is sent like this, to wherever the Hub keeps them.
            BYTES.labels("uploaded").inc(int(request.headers.get("Content-Length", 0)))
        if response.is_error and not at_hub:
            # The store behind the Hub: a link that grew old or an upload that stalled, whatever the status.
            response.read()
            raise Transient(f"The Hub's store could not do it just now: HTTP {response.status_code}")
        if response.status_code == httpx2.codes.TOO_MANY_REQUESTS:
            response.read()
            raise Transient(
                f"The Hub asks for patience: {_body(response)}", retry_after=_retry_after(response)
            )
        if response.status_code == httpx2.codes.CONFLICT:
            response.read()
            if "conflicting operation" in response.text:
                raise Transient("The Hub is creating another repo for this user.")
        if response.is_server_error:
            response.read()
            raise Transient(
                f"The Hub could not do it just now: {_body(response)} (HTTP {response.status_code})",
                retry_after=_retry_after(response),
            )
        return response

    def close(self) -> None:
        """Do nothing; see `close_for_good`."""

    def close_for_good(self) -> None:
        """Close the connections, also those that a thread still waits on."""
        super().close()


async def in_thread(operation: Callable[[], T]) -> T:
    """Run what blocks in a thread of its own, with the Hub's errors translated.

    If the caller is cancelled, the thread goes on and nobody waits for it, at exit neither.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(set_result: Callable[[Any], None], value: object) -> None:
        if not done.done():
            set_result(value)

    def run() -> None:
        try:
            outcome = partial(settle, done.set_result, operation())
        except BaseException as error:  # noqa: BLE001  (it is raised again where it is awaited)
            outcome = partial(settle, done.set_exception, error)
        try:
            loop.call_soon_threadsafe(outcome)
        except RuntimeError:
            return  # the loop is closed: the program is ending

    # With the row's fields, for what the library logs.
    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(run,), name="hub", daemon=True).start()
    try:
        return await done
    except Exception as error:
        translated = _translate(error)
        if translated is error:
            raise
        raise translated from None  # it may be a cause of what huggingface_hub made of it


def _translate(error: Exception) -> Exception:
    """Sort what huggingface_hub raises; the reason is often only in the cause of what it raises."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, WatcherError | NameTaken | Conflict):
            return cause
        if isinstance(cause, HfHubHTTPError):
            return _sorted(cause)
        if isinstance(cause, httpx2.HTTPError | httpx2.StreamError | json.JSONDecodeError):
            return Transient(f"The Hub could not be reached: {str(cause) or type(cause).__name__}")
        if isinstance(cause, OSError) and cause.errno in {errno.ENOSPC, errno.EDQUOT}:
            return Outage(f"This host has no room: {cause.strerror}.")
        cause = cause.__cause__
    if isinstance(error, ValueError) and "Invalid metadata in README.md" in str(error):
        return Permanent("hub_refused", f"The Hub refuses the model card: {error}")
    if isinstance(error, ValueError | RuntimeError | OSError):
        return Transient(f"The upload failed: {error}")
    return error


def _sorted(error: HfHubHTTPError) -> WatcherError:
    status, reason = error.response.status_code, said(error)
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
    return Transient(f"The Hub could not do it just now: {reason}", retry_after=_retry_after(error.response))


def said(error: HfHubHTTPError) -> str:
    """What the Hub gave as the reason, in its own words."""
    return f"{error.server_message or _body(error.response)} (HTTP {error.response.status_code})"


def _body(response: httpx2.Response) -> str:
    try:
        text = str(response.json()["error"])
    except (ValueError, KeyError, TypeError):
        text = response.text.strip()
    return redact(text or response.reason_phrase)[:300]  # in this order: half a secret would not be found


def _retry_after(response: httpx2.Response) -> float | None:
    """Seconds; the budget's reset where that is what ran out, else the header as a number (a date is not read)."""
    budget = parse_ratelimit_headers(response.headers)
    if budget is not None and budget.remaining == 0:
        return float(budget.reset_in_seconds)
    try:
        return float(response.headers.get("Retry-After", ""))
    except ValueError:
        return None
