"""The HTTP client under huggingface_hub.

The library is made for scripts: it sleeps and retries by itself. This client turns that off for a daemon.
"""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import httpx2

from watcher.errors import Transient
from watcher.hub.errors import body_of, retry_after
from watcher.hub.library import hf_request_event_hook, read_large_blocks
from watcher.hub.rate_limit import LONGEST_PAUSE, RateLimit
from watcher.hub.threads import caller_gone
from watcher.process.metrics import BYTES

# The Hub itself ends a request after 60 to 120 s.
_TIMEOUT = httpx2.Timeout(connect=10, read=130, write=60, pool=None)
# Less than a minute in all, and no pause for the rate limit before: a job is looked for that this request may have made.
_RUN_JOB = httpx2.Timeout(connect=10, read=30, write=10, pool=None)
# A log does not end while its job runs: it is read until nothing comes.
_LOG = httpx2.Timeout(connect=10, read=5, write=10, pool=None)
_JOBS = re.compile(r"/api/jobs/[^/]+(?P<log>/[^/]+/logs)?")
# A request that waits for a connection, for which httpx2 has a limit of 100, is sent long after its lease was checked.
# Uploads are limited by the settings: at most 32 slots, and as many batches of which 10 images are sent together.
_UNLIMITED = httpx2.Limits(max_connections=None, max_keepalive_connections=None)

read_large_blocks()

_waits: ContextVar[bool] = ContextVar("waits", default=True)


@contextmanager
def at_once() -> Iterator[None]:
    """Send the body's requests without a pause, since the lease was checked a moment ago; the caller has waited before."""
    token = _waits.set(False)
    try:
        yield
    finally:
        _waits.reset(token)


class Client(httpx2.Client):
    """The client that huggingface_hub 2.4.0 shares between all its threads, without five behaviours of the library.

    - http_backoff closes the shared client on a ConnectError, while other threads use it: `close` does nothing.
    - It sleeps after a 429, five times for up to five minutes, and cannot be cancelled: a 429 is raised at once.
    - create_repo retries without a pause while another creation is in progress: that response is raised at once.
    - It retries after a 5xx, for up to 23 s in each of our own tries: a 5xx is raised at once.
    - repo_info turns the time-out off unless it is given one: every request has the time-out of its kind.
    """

    def __init__(self, endpoint: str) -> None:
        super().__init__(
            event_hooks={"request": [hf_request_event_hook]},
            follow_redirects=True,
            timeout=_TIMEOUT,
            limits=_UNLIMITED,
        )
        self._hub = httpx2.URL(endpoint).host
        self.rate_limit = RateLimit()

    def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """Send a request, delayed if the rate limit is nearly used up; raises Transient for responses worth a retry."""
        at_hub = request.url.host == self._hub
        request.extensions["timeout"] = (_timeout_of_jobs(request) or self.timeout).as_dict()
        if at_hub:
            self.wait_for_turn()
            with self.rate_limit.in_flight():
                response = super().send(request, **options)
                self.rate_limit.update(response.headers)
        else:
            response = super().send(request, **options)
        if request.method == "PUT":
            # Only images are sent with PUT, to the Hub's storage.
            BYTES.labels("uploaded").inc(int(request.headers.get("Content-Length", 0)))
        if response.is_error:
            response.read()
            _raise_if_transient(response, at_hub=at_hub)
        return response

    def wait_for_turn(self) -> None:
        """Wait as the rate limit asks; raises Transient if nobody waits for the response any more."""
        until = time.monotonic() + LONGEST_PAUSE
        pause = 0.0
        while not caller_gone(pause):
            if not _waits.get() or time.monotonic() >= until:
                return
            if not (pause := self.rate_limit.pause()):
                return
        raise Transient("The attempt ended before this request to the Hub was sent.")

    def close(self) -> None:
        """Do nothing; see `close_for_good`."""

    def close_for_good(self) -> None:
        """Close all connections, also those that a thread waits on."""
        super().close()


def _timeout_of_jobs(request: httpx2.Request) -> httpx2.Timeout | None:
    """Return the time-out of a request to run a job, or for its log; None for any other."""
    path = _JOBS.fullmatch(request.url.path)
    if path is None:
        return None
    return _LOG if path["log"] else _RUN_JOB if request.method == "POST" else None


def _raise_if_transient(response: httpx2.Response, *, at_hub: bool) -> None:
    status = response.status_code
    if not at_hub:
        # The Hub's storage: an upload URL has expired or an upload has stalled, whatever the status.
        raise Transient(f"The Hub's storage returned HTTP {status}.")
    if status == httpx2.codes.TOO_MANY_REQUESTS:
        raise Transient(f"Rate limited by the Hub: {body_of(response)}", retry_after=retry_after(response))
    if status == httpx2.codes.CONFLICT and "conflicting operation" in response.text:
        raise Transient("The Hub is creating another repo for this user.")
    if response.is_server_error:
        raise Transient(
            f"The Hub returned an error: {body_of(response)} (HTTP {status})",
            retry_after=retry_after(response),
        )
