"""What the Hub has at paths that the sandbox does not serve: refused in one sentence, with the Hub's own envelope.

Its routes come last. Repos without a namespace (`gpt2`), of which there are none here, are refused as unknown repos.
"""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from watcher.sandbox.hub.errors import repo_not_found
from watcher.sandbox.hub.features import not_served
from watcher.sandbox.hub.paths import VERB
from watcher.sandbox.hub.state import state

_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
_BARE = f"/{{name}}/{VERB}"


async def _missing(request: Request) -> Response:
    raise not_served(request)


async def _no_such_repo(request: Request) -> Response:
    user = state(request).access.user(request)
    raise repo_not_found(anonymous=user is None)


# Before the pages, which take any two names for a repo's.
API_ROUTES = [
    *(
        Route(path, _no_such_repo, methods=_METHODS)
        for kind in ("models", "datasets")
        for path in (f"/api/{kind}/{{name}}", f"/api/{kind}{_BARE}", f"/api/{kind}{_BARE}/{{rest:path}}")
    ),
    Route("/api/{path:path}", _missing, methods=_METHODS),
]
ROUTES = [
    *(
        Route(f"{prefix}/{{name}}/resolve/{{rest:path}}", _no_such_repo, methods=_METHODS)
        for prefix in ("/models", "/datasets", "")
    ),
    Route("/{path:path}", _missing, methods=_METHODS),
]
