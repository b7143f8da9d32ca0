"""The HTTP client under huggingface_hub.

The library is written for scripts: it sleeps, tries again and sorts errors by itself. Here is what a daemon needs instead.
"""

import time
from typing import Any

import httpx2

from watcher.errors import Transient
from watcher.hub.errors import body_of, retry_after
from watcher.hub.library import hf_request_event_hook, read_large_blocks
from watcher.hub.rate_limit import RateLimit
from watcher.process.metrics import BYTES

# The Hub itself ends a request after 60 to 120 s.
_TIMEOUT = httpx2.Timeout(connect=10, read=130, write=60, pool=130)

read_large_blocks()


class Client(httpx2.Client):
    """The client that huggingface_hub 2.4.0 shares between all its threads, with five of its habits kept from it.

    Its http_backoff closes the shared client on a ConnectError, under every other thread: `close` does nothing.
    It sleeps through a 429, five times up to five minutes, and cannot be cancelled: that answer is raised at once.
    Its create_repo asks again without a pause while another creation is under way: likewise.
    It tries again after a 5xx, up to 23 s for each of our own tries: likewise.
    Its repo_info asks for no time-out, where it is given none: ours holds for every request.
    """

    def __init__(self, endpoint: str) -> None:
        super().__init__(
            event_hooks={"request": [hf_request_event_hook]}, follow_redirects=True, timeout=_TIMEOUT
        )
        self._hub = httpx2.URL(endpoint).host
        self.rate_limit = RateLimit()

    def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """Send within the rate limit; raises Transient for the answers that the library would sit through."""
        at_hub = request.url.host == self._hub
        if at_hub and (pause := self.rate_limit.pause()):
            time.sleep(pause)
        request.extensions["timeout"] = self.timeout.as_dict()
        response = super().send(request, **options)
        if at_hub:
            self.rate_limit.update(response.headers)
        if request.method == "PUT":
            # Nothing but images is sent like this, to wherever the Hub keeps them.
            BYTES.labels("uploaded").inc(int(request.headers.get("Content-Length", 0)))
        if response.is_error:
            response.read()
            _raise_for_trouble(response, at_hub=at_hub)
        return response

    def close(self) -> None:
        """Do nothing; see `close_for_good`."""

    def close_for_good(self) -> None:
        """Close the connections, also those that a thread still waits on."""
        super().close()


def _raise_for_trouble(response: httpx2.Response, *, at_hub: bool) -> None:
    status = response.status_code
    if not at_hub:
        # The store behind the Hub: a link that grew old or an upload that stalled, whatever the status.
        raise Transient(f"The Hub's store could not do it just now: HTTP {status}")
    if status == httpx2.codes.TOO_MANY_REQUESTS:
        raise Transient(f"Rate limited by the Hub: {body_of(response)}", retry_after=retry_after(response))
    if status == httpx2.codes.CONFLICT and "conflicting operation" in response.text:
        raise Transient("The Hub is creating another repo for this user.")
    if response.is_server_error:
        raise Transient(
            f"The Hub could not do it just now: {body_of(response)} (HTTP {status})",
            retry_after=retry_after(response),
        )
