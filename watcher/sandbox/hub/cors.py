"""Lets pages of other origins use the Hub's API with a token, as the Hub does, but not read the pages for a browser.

Those need no token here, so any website that somebody has open could otherwise read private repos.
"""

import re

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

_API = re.compile(r"^/api/|^/_lfs/|\.git/info/lfs/|^/[^/]+/[^/]+(?:/[^/]+)?/resolve/")
_EXPOSED = [
    *("X-Repo-Commit", "X-Request-Id", "X-Error-Code", "X-Error-Message", "X-Total-Count", "ETag", "Link"),
    *("Accept-Ranges", "Content-Range", "X-Linked-Size", "X-Linked-ETag", "X-Xet-Hash"),
]


class Cors:
    """Answers preflights, and adds the headers to answers of the API."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._open = CORSMiddleware(
            app,
            allow_origins=["*"],
            allow_methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"],
            allow_headers=["*"],
            expose_headers=_EXPOSED,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        opened = scope["type"] == "http" and _API.search(scope["path"])
        await (self._open if opened else self._app)(scope, receive, send)
