"""The Hub's rate limit, and how to spread the remaining requests over its window. Sends no request and does not wait.

Several daemons may share the limit. They know of each other only what the responses say is left, so each spreads the rest
over the time that is left: the lower it gets, the slower all of them are.
"""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from watcher.hub.library import parse_ratelimit_headers

_SCARCE = 0.1
"""Requests are spread over the window once no more than this share of its limit remains."""
_RESERVE = 0.01
"""The share of the limit that is left unused: others who share it may send at the same moment."""
_GRACE = 1.0
"""Seconds added to the end of a window, which responses name in whole seconds: who comes too early is refused."""
_SAME_WINDOW = 2.0
"""Seconds by which the ends of one window may seem to differ: responses name whole seconds, and take time to arrive."""
LONGEST_PAUSE = 310.0
"""Seconds. A window of the Hub lasts five minutes."""
LONGEST_WINDOW = 3600
"""Seconds. A response that names more is not believed, nor one that names more than _MOST_REQUESTS."""
_MOST_REQUESTS = 10**9


class RateLimit:
    """The Hub's limit of requests in one window of time, for all users of one token."""

    def __init__(self) -> None:
        self.remaining: int | None = None
        """Remaining requests in the last window of which a response told; None while unknown."""
        self._limit = 0
        self._resets_at = 0.0
        self._in_flight = 0
        self._next_at = 0.0
        self._lock = threading.Lock()

    def update(self, headers: Mapping[str, str]) -> None:
        """Read the headers of a response. The Hub has separate limits for pages, downloads and its API; API only here."""
        parsed = parse_ratelimit_headers(headers)
        if parsed is None or parsed.resource_type != "api":
            return
        remaining = min(parsed.remaining, _MOST_REQUESTS)
        resets_at = time.monotonic() + _GRACE + min(parsed.reset_in_seconds, LONGEST_WINDOW)
        with self._lock:
            if self.remaining is None or resets_at > self._resets_at + _SAME_WINDOW:
                self.remaining, self._resets_at, self._next_at = remaining, resets_at, 0.0
            elif resets_at > self._resets_at - _SAME_WINDOW:
                # Responses may overtake each other.
                self.remaining = min(self.remaining, remaining)
            self._limit = min(parsed.limit or 0, _MOST_REQUESTS)

    @property
    def requests(self) -> dict[str, int]:
        """The `remaining` requests of the current window and its `limit`; empty while unknown."""
        with self._lock:
            if self.remaining is None or not self._is_known:
                return {}
            return {"remaining": self.remaining, "limit": self._limit}

    @property
    def is_scarce(self) -> bool:
        """Whether so few requests remain in the current window that they are spread over it."""
        with self._lock:
            return self._is_known and self._left <= self._limit * _SCARCE

    @contextmanager
    def in_flight(self) -> Iterator[None]:
        """Count a request while it is sent, as one that the last response did not know of."""
        with self._lock:
            self._in_flight += 1
        try:
            yield
        finally:
            with self._lock:
                self._in_flight -= 1

    def pause(self) -> float:
        """Return the seconds to wait, then ask again; 0 for whoever may send now, which is one caller at a time.

        While many requests remain, everybody may. Once they are scarce, each has its share of the time left. When none is
        left but the reserve, it is the time until the window ends.
        """
        with self._lock:
            if not self._is_known or self._left > self._limit * _SCARCE:
                return 0.0
            now = time.monotonic()
            spendable = self._left - max(1, round(self._limit * _RESERVE))
            if spendable <= 0:
                return max(0.0, self._resets_at - now)
            if now < self._next_at:
                return self._next_at - now
            self._next_at = now + (self._resets_at - now) / (spendable + 1)
            return 0.0

    @property
    def _is_known(self) -> bool:
        return self.remaining is not None and time.monotonic() <= self._resets_at

    @property
    def _left(self) -> int:
        """What remains once the Hub has counted what is being sent."""
        return (self.remaining or 0) - self._in_flight
