"""The Hub's own faults; safe from any thread.

The faults of any service (answer 503, hang, lose an answer) are in `watcher.sandbox.faults`.
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
    """Settings for the Hub's own faults; at first there are none."""

    image_mode: Literal["lfs", "regular"]
    offers_verify: bool
    storage_limit: int | None
    request_quota: tuple[int, float] | None

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """End all faults."""
        with self._lock:
            self._left: Counter[str] = Counter()
            self._hidden: Counter[str] = Counter()
            self.image_mode = "lfs"
            self.offers_verify = False
            self.storage_limit = None
            self.request_quota = None

    def images_as(self, mode: Literal["lfs", "regular"]) -> None:
        """Set the mode that preupload answers for a small binary file without an LFS pattern."""
        if mode not in {"lfs", "regular"}:
            raise ValueError(f"mode must be lfs or regular, not {mode!r}")
        self.image_mode = mode

    def offer_verify(self, *, offered: bool = True) -> None:
        """Set whether LFS uploads have to be verified."""
        self.offers_verify = offered

    def limit_storage(self, limit: int | None) -> None:
        """Refuse uploads with which a namespace's private repos exceed so many bytes; None is no limit."""
        self.storage_limit = limit

    def limit_requests(self, quota: int | None, window: float = 300.0) -> None:
        """Limit the API requests per token in so many seconds, with RateLimit headers; None is no limit."""
        self.request_quota = None if quota is None else (quota, window)

    def conflict(self, times: int = 1) -> None:
        """Refuse to create repos: "another conflicting operation is in progress"."""
        self._add("conflict", times)

    def omit_url(self, times: int = 1) -> None:
        """Leave the URL out of the 409 for a repo that exists."""
        self._add("omit_url", times)

    def edit_attributes(self, times: int = 1) -> None:
        """Add each LFS file of a commit to .gitattributes, even if a pattern matches it already."""
        self._add("edit_attributes", times)

    def exceed(self, action: Literal["create", "commit", "job"], times: int = 1) -> None:
        """Refuse an action because of its hourly quota: a 429 without RateLimit headers."""
        if action not in {"create", "commit", "job"}:
            raise ValueError(f"action must be create, commit or job, not {action!r}")
        self._add(action, times)

    def hide_new_repo(self, reads: int = 1) -> None:
        """Answer 404 to the first reads of the repo that is created next."""
        self._add("hide", reads)

    def take(self, knob: str) -> bool:
        """Return whether a fault applies to this request, and count it."""
        with self._lock:
            if not self._left[knob]:
                return False
            self._left[knob] -= 1
            return True

    def take_action(self, action: str) -> None:
        """Refuse the action if its quota is exceeded."""
        if self.take(action):
            quota = f"You have exceeded our hourly quotas for action: {action}. We invite you to retry later."
            raise HubError(429, quota)

    def created(self, repo: str) -> None:
        """Hide a new repo, if that was asked."""
        with self._lock:
            self._hidden[repo] = self._left.pop("hide", 0)

    def hidden(self, repo: str) -> bool:
        """Return whether the repo is hidden from this read, and count it."""
        with self._lock:
            if not self._hidden[repo]:
                return False
            self._hidden[repo] -= 1
            return True

    def _add(self, knob: str, times: int) -> None:
        with self._lock:
            self._left[knob] += times


class RequestLimit:
    """Limits API requests per token in fixed windows, if there is a quota."""

    def __init__(self, app: ASGIApp, knobs: Knobs) -> None:
        self._app = app
        self._knobs = knobs
        self._limit: tuple[int, float] | None = None
        self._used: Counter[str] = Counter()
        self._ends = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with headers, or answer 429."""
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
            message = (
                f"We had to rate limit you, you hit the quota of {quota} api requests per "
                f"{math.ceil(window / 60)} minutes period."
            )
            response = JSONResponse({"error": message}, 429, {**headers, "X-Error-Message": message})
            await response(scope, receive, send)
            return

        async def limited_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(raw=message["headers"]).update(headers)
            await send(message)

        await self._app(scope, receive, limited_send)
