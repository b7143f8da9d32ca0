"""How the Hub can misbehave in ways of its own, for as long or as often as asked; safe from any thread.

What any service can do (answer 503, hang, lose an answer) is asked of the faults in front of it.
"""

import asyncio
import math
import threading
from collections import Counter
from typing import Literal

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from watcher.sandbox.hub.errors import HubError


class Knobs:
    """At first all at rest: the Hub as it is on a good day."""

    image_mode: Literal["lfs", "regular"]
    offers_verify: bool
    storage_limit: int | None
    request_quota: tuple[int, float] | None

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """All at rest again."""
        with self._lock:
            self._left: Counter[str] = Counter()
            self._hidden: Counter[str] = Counter()
            self.image_mode = "lfs"
            self.offers_verify = False
            self.storage_limit = None
            self.request_quota = None

    def images_as(self, mode: Literal["lfs", "regular"]) -> None:
        """What preupload answers for a small binary file that no LFS pattern names."""
        if mode not in {"lfs", "regular"}:
            raise ValueError(f"mode must be lfs or regular, not {mode!r}")
        self.image_mode = mode

    def offer_verify(self, *, offered: bool = True) -> None:
        """Whether LFS uploads are to be verified."""
        self.offers_verify = offered

    def limit_storage(self, limit: int | None) -> None:
        """Refuse uploads by which a namespace's private repos exceed so many bytes; None is no limit."""
        self.storage_limit = limit

    def limit_requests(self, quota: int | None, window: float = 300.0) -> None:
        """So many API requests per token in so many seconds, said in RateLimit headers; None is no limit."""
        self.request_quota = None if quota is None else (quota, window)

    def conflict(self, times: int = 1) -> None:
        """Refuse creations with "another conflicting operation is in progress"."""
        self._add("conflict", times)

    def omit_url(self, times: int = 1) -> None:
        """Leave the url out when a repo that exists is created."""
        self._add("omit_url", times)

    def edit_attributes(self, times: int = 1) -> None:
        """Name each LFS file of a commit in .gitattributes, also where a pattern names it already."""
        self._add("edit_attributes", times)

    def exceed(self, action: Literal["create", "commit"], times: int = 1) -> None:
        """Refuse an action for the hour's quota: a 429 without RateLimit headers."""
        if action not in {"create", "commit"}:
            raise ValueError(f"action must be create or commit, not {action!r}")
        self._add(action, times)

    def hide_new_repo(self, reads: int = 1) -> None:
        """Answer 404 to so many reads of the repo that is created next."""
        self._add("hide", reads)

    def take(self, knob: str) -> bool:
        """Whether the knob is turned, for this once."""
        with self._lock:
            if not self._left[knob]:
                return False
            self._left[knob] -= 1
            return True

    def take_action(self, action: str) -> None:
        """Refuse the action if it exceeds its quota."""
        if self.take(action):
            quota = f"You have exceeded our hourly quotas for action: {action}. We invite you to retry later."
            raise HubError(429, quota)

    def created(self, repo: str) -> None:
        """A repo is new: hide it if asked."""
        with self._lock:
            self._hidden[repo] = self._left.pop("hide", 0)

    def hidden(self, repo: str) -> bool:
        """Whether this read of the repo must miss it."""
        with self._lock:
            if not self._hidden[repo]:
                return False
            self._hidden[repo] -= 1
            return True

    def _add(self, knob: str, times: int) -> None:
        with self._lock:
            self._left[knob] += times


class RequestLimit:
    """Counts API requests per token in fixed windows, once a quota is set."""

    def __init__(self, app: ASGIApp, knobs: Knobs) -> None:
        self._app = app
        self._knobs = knobs
        self._limit: tuple[int, float] | None = None
        self._used: Counter[str] = Counter()
        self._ends = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 429."""
        limit = self._knobs.request_quota
        path = scope.get("path", "")
        if limit is None or not (path.startswith("/api/") or "/info/lfs/" in path):
            await self._app(scope, receive, send)
            return
        quota, window = limit
        now = asyncio.get_running_loop().time()
        if now >= self._ends or limit is not self._limit:
            self._limit = limit
            self._ends = now + window
            self._used.clear()
        token = Headers(scope=scope).get("authorization", "")
        self._used[token] += 1
        headers = {
            "RateLimit": f'"api";r={max(0, quota - self._used[token])};t={math.ceil(self._ends - now)}',
            "RateLimit-Policy": f'"fixed window";"api";q={quota};w={math.ceil(window)}',
        }
        if self._used[token] > quota:
            sentence = (
                f"We had to rate limit you, you hit the quota of {quota} api requests per "
                f"{math.ceil(window / 60)} minutes period."
            )
            response = JSONResponse({"error": sentence}, 429, {**headers, "X-Error-Message": sentence})
            await response(scope, receive, send)
            return

        async def limited_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(raw=message["headers"]).update(headers)
            await send(message)

        await self._app(scope, receive, limited_send)
