"""The Hub's rate limit, and how to spread the remaining requests over its window. Sends no request and does not wait."""

import threading
import time
from collections.abc import Mapping

from watcher.hub.library import parse_ratelimit_headers

_SCARCE = 0.1
"""Requests are spread over the window once no more than this share of its limit remains."""
_LONGEST_PAUSE = 10.0
"""Seconds. A window lasts five minutes; a late request is better than a refused one."""
LONGEST_WINDOW = 3600
"""Seconds. A response that names more is not believed, nor one that names more than _MOST_REQUESTS."""
_MOST_REQUESTS = 10**9


class RateLimit:
    """The Hub's limit of requests in one window of time, for all users of one token."""

    def __init__(self) -> None:
        self.remaining: int | None = None
        """Remaining requests as of the last response; None while unknown."""
        self._limit = 0
        self._resets_at = 0.0
        self._lock = threading.Lock()

    def update(self, headers: Mapping[str, str]) -> None:
        """Read the headers of a response. The Hub has separate limits for pages, downloads and its API; API only here."""
        parsed = parse_ratelimit_headers(headers)
        if parsed is None or parsed.resource_type != "api":
            return
        with self._lock:
            self.remaining = min(parsed.remaining, _MOST_REQUESTS)
            self._limit = min(parsed.limit or 0, _MOST_REQUESTS)
            self._resets_at = time.monotonic() + min(parsed.reset_in_seconds, LONGEST_WINDOW)

    @property
    def requests(self) -> dict[str, int]:
        """The `remaining` requests of the current window and its `limit`; empty while unknown."""
        with self._lock:
            if self.remaining is None or time.monotonic() > self._resets_at:
                return {}
            return {"remaining": self.remaining, "limit": self._limit}

    def pause(self) -> float:
        """Return the seconds to wait before the next request: 0 while many remain, else its share of the time left."""
        with self._lock:
            if self.remaining is None or self.remaining > self._limit * _SCARCE:
                return 0.0
            seconds = max(0.0, self._resets_at - time.monotonic())
            return min(seconds / (self.remaining + 1), _LONGEST_PAUSE)
