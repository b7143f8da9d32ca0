"""What the Hub still allows of requests, and how to spread them over what is left of the window."""

import threading
import time
from collections.abc import Mapping

from watcher.hub.library import parse_ratelimit_headers

_SCARCE = 0.1
"""The share of a window's requests that is left when we begin to spread them over the window."""
_LONGEST_PAUSE = 10.0
"""Seconds; a window is five minutes, and a request that is late is better than one that is refused."""


class RateLimit:
    """The requests that the Hub allows, to all that use one token, in one window of time."""

    def __init__(self) -> None:
        self.remaining: int | None = None
        """Requests left as of the last answer; None while the Hub has not said."""
        self._limit = 0
        self._resets_at = 0.0
        self._lock = threading.Lock()

    def update(self, headers: Mapping[str, str]) -> None:
        """Read the headers of an answer; the Hub counts pages, downloads and the API apart, and ours are the API's."""
        parsed = parse_ratelimit_headers(headers)
        if parsed is None or parsed.resource_type != "api":
            return
        with self._lock:
            self.remaining, self._limit = parsed.remaining, parsed.limit or 0
            self._resets_at = time.monotonic() + parsed.reset_in_seconds

    @property
    def requests(self) -> dict[str, int]:
        """Requests `remaining` in the present window, and their `limit`; empty where the Hub has not said so yet."""
        with self._lock:
            if self.remaining is None or time.monotonic() > self._resets_at:
                return {}
            return {"remaining": self.remaining, "limit": self._limit}

    def pause(self) -> float:
        """Seconds to wait before the next request: none while there is plenty, else its share of the time left."""
        with self._lock:
            if self.remaining is None or self.remaining > self._limit * _SCARCE:
                return 0.0
            seconds = max(0.0, self._resets_at - time.monotonic())
            return min(seconds / (self.remaining + 1), _LONGEST_PAUSE)
