"""What the Hub has at paths that the sandbox does not serve: refused in one sentence, with the Hub's own envelope.

Its routes come last. Repos without a namespace (`gpt2`), of which there are none here, are refused as unknown repos.
"""

import re

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from watcher.sandbox.absent import STATUS, Absent, not_imitated
from watcher.sandbox.hub.errors import HubError, repo_not_found
from watcher.sandbox.hub.paths import VERB
from watcher.sandbox.hub.state import state

_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
_REPO = "/api/(?:models|datasets)/[^/]+/[^/]+"
_FEATURES = {
    f"{_REPO}/(?:branch|tag|super-squash)(?:/|$)": Absent.HUB_BRANCHES,
    f"{_REPO}/(?:discussions|pulls|compare)(?:/|$)": Absent.HUB_PULL_REQUESTS,
    f"{_REPO}/(?:xet-(?:read|write)-token)(?:/|$)": Absent.HUB_XET,
    f"{_REPO}/(?:user-access-request|user-access-report)(?:/|$)": Absent.HUB_GATED,
    f"{_REPO}/(?:settings|resource-group)(?:/|$)": Absent.HUB_SETTINGS,
    f"{_REPO}/(?:like|likers|duplicate)(?:/|$)": Absent.HUB_SOCIAL,
    "/api/(?:repos/move|repos/duplicate)$": Absent.HUB_MOVING,
    "/(?:api/)?(?:spaces|buckets|kernels)(?:/|$)": Absent.HUB_KINDS,
    "/v[12]/(?:chunks|xorbs|xorb-grants|shards|reconstructions)(?:/|$)": Absent.HUB_XET,
    "/api/(?:scheduled-)?jobs(?:/|$)": Absent.HUB_JOBS,
    "/api/(?:collections|papers|daily_papers|posts|trending)(?:/|$)": Absent.HUB_SOCIAL,
    "/api/(?:users|organizations|settings|notifications|resolve-cache)(?:/|$)": Absent.HUB_ACCOUNTS,
}
_BARE = f"/{{name}}/{VERB}"


async def _missing(request: Request) -> Response:
    path = request.url.path
    for pattern, feature in _FEATURES.items():
        if re.match(pattern, path):
            raise HubError(STATUS, feature.sentence)
    raise HubError(STATUS, not_imitated(f"{request.method} {path}"))


async def _no_such_repo(request: Request) -> Response:
    user = state(request).access.user(request)
    raise repo_not_found(anonymous=user is None)


ROUTES = [
    *(
        Route(path, _no_such_repo, methods=_METHODS)
        for kind in ("models", "datasets")
        for path in (
            f"/api/{kind}/{{name}}",
            f"/api/{kind}{_BARE}",
            f"/api/{kind}{_BARE}/{{rest:path}}",
            f"/{kind}/{{name}}/resolve/{{rest:path}}",
        )
    ),
    Route("/{name}/resolve/{rest:path}", _no_such_repo, methods=_METHODS),
    Route("/{path:path}", _missing, methods=_METHODS),
]
