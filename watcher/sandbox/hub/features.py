"""What the Hub has and the sandbox does not, by the path."""

import re

from starlette.requests import Request

from watcher.sandbox.absent import STATUS, Absent, not_imitated
from watcher.sandbox.hub.errors import HubError

_REPO = "/api/(?:models|datasets)/[^/]+/[^/]+"
_FEATURES = {
    f"{_REPO}/(?:branch|tag)(?:/|$)": Absent.HUB_BRANCHES,
    f"{_REPO}/(?:discussions|pulls|compare)(?:/|$)": Absent.HUB_PULL_REQUESTS,
    f"{_REPO}/(?:xet-(?:read|write)-token)(?:/|$)": Absent.HUB_XET,
    f"{_REPO}/(?:user-access-request|user-access-report)(?:/|$)": Absent.HUB_GATED,
    f"{_REPO}/(?:settings|resource-group)(?:/|$)": Absent.HUB_SETTINGS,
    f"{_REPO}/(?:like|likers)(?:/|$)": Absent.HUB_SOCIAL,
    f"{_REPO}/duplicate(?:/|$)": Absent.HUB_MOVING,
    "/api/repos/(?:move|duplicate)$": Absent.HUB_MOVING,
    "/(?:api/)?(?:spaces|buckets|kernels)(?:/|$)": Absent.HUB_KINDS,
    "/v[12]/(?:chunks|xorbs|xorb-grants|shards|reconstructions)(?:/|$)": Absent.HUB_XET,
    "/api/scheduled-jobs(?:/|$)": Absent.HUB_SCHEDULED_JOBS,
    "/api/(?:collections|papers|daily_papers|posts|trending)(?:/|$)": Absent.HUB_SOCIAL,
    "/api/(?:users|organizations|settings|notifications|resolve-cache)(?:/|$)": Absent.HUB_ACCOUNTS,
}


def not_served(request: Request) -> HubError:
    """Return the refusal of a request that nothing here answers."""
    path = request.url.path
    for pattern, feature in _FEATURES.items():
        if re.match(pattern, path):
            return HubError(STATUS, feature.sentence)
    return HubError(STATUS, not_imitated(f"{request.method} {path}"))
