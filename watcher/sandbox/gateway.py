"""The gateway of a project: checks the API key, replaces it by a token, and routes to the service."""

from collections.abc import Mapping, Sequence
from urllib.parse import parse_qsl, urlencode

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Router
from starlette.types import ASGIApp, Lifespan, Receive, Scope, Send

from watcher.sandbox.absent import STATUS, Absent
from watcher.sandbox.keys import Keys

# Storage has signed and public URLs, which need no key. Realtime checks its key itself.
_KEY_REQUIRED = {"auth", "rest"}
_KEYLESS = {
    f"/auth/v1/{path}"
    for path in ("health", "verify", "callback", "authorize", "sso/saml/acs", ".well-known/jwks.json")
}
"""What a browser opens, which sends no key with it."""
_MISSING = {
    "message": "No API key found in request",
    "hint": "No `apikey` request header or url param was found.",
}
_INVALID = {
    "message": "Invalid API key",
    "hint": "Double check your Supabase `anon` or `service_role` API key.",
}
_ABSENT = {"functions": Absent.GATEWAY_FUNCTIONS, "graphql": Absent.GATEWAY_GRAPHQL}
_IN_BROWSER = {
    "message": "Forbidden use of secret API key in browser",
    "hint": "Secret API keys can only be used in a protected environment and should never be used in a"
    " browser. Delete this secret API key immediately.",
}
_EXPOSED = [
    "content-encoding", "content-length", "content-location", "content-profile", "content-range",
    "date", "etag", "link", "location", "preference-applied", "proxy-status", "range-unit", "retry-after",
    "tus-complete", "tus-extension", "tus-max-size", "tus-resumable", "tus-version",
    "upload-expires", "upload-length", "upload-metadata", "upload-offset", "www-authenticate",
    "x-supabase-api-version", "x-total-count",
]  # fmt: skip


def service_of(path: str) -> str:
    """Return the service of a path: auth, rest, storage or realtime; `gateway` if it has none."""
    for service in ("auth", "rest", "storage", "realtime"):
        if path.startswith(f"/{service}/v1/") or path == f"/{service}/v1":
            return service
    return "gateway"


class Gateway:
    """Routes by the path's prefix, which it removes, and replaces keys by the tokens that services accept."""

    def __init__(self, services: Mapping[str, ASGIApp], keys: Keys) -> None:
        self._services = services
        self._keys = keys
        self._known = {keys.publishable, keys.secret, keys.anon_jwt, keys.service_role_jwt}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        service = service_of(scope["path"])
        feature = _ABSENT.get(scope["path"].split("/")[1])
        if feature is not None and scope["type"] == "http":
            await JSONResponse({"message": feature.sentence}, STATUS)(scope, receive, send)
            return
        if service not in self._services:
            await JSONResponse({"message": "no Route matched with those values"}, 404)(scope, receive, send)
            return
        if scope["type"] == "http":
            if scope["method"] == "OPTIONS":
                await Response()(scope, receive, send)
                return
            refusal = self._refusal(service, scope)
            if refusal is not None:
                await JSONResponse(refusal, 401)(scope, receive, send)
                return
        await self._services[service](self._forwarded(service, scope), receive, send)

    def _refusal(self, service: str, scope: Scope) -> dict[str, str] | None:
        """Return the body of the gateway's own refusal, or None."""
        key = _api_key(scope)
        if key is None:
            return _MISSING if service in _KEY_REQUIRED and scope["path"] not in _KEYLESS else None
        if service in _KEY_REQUIRED and key not in self._known:
            return _INVALID
        browser = Headers(scope=scope).get("user-agent", "").startswith("Mozilla/")
        return _IN_BROWSER if browser and key == self._keys.secret else None

    def _forwarded(self, service: str, scope: Scope) -> Scope:
        """Return the request that the service gets."""
        prefix = f"/{service}/v1"
        forwarded = {
            **scope,
            "headers": list(scope["headers"]),
            "path": scope["path"].removeprefix(prefix) or "/",
            "raw_path": scope["raw_path"].removeprefix(prefix.encode()) or b"/",
        }
        headers = MutableHeaders(scope=forwarded)
        if service == "realtime":
            if "x-api-key" in headers:
                headers["x-api-key"] = self._keys.resolve(headers["x-api-key"])
            query = parse_qsl(scope["query_string"].decode(), keep_blank_values=True)
            resolved = [
                (name, self._keys.resolve(value) if name == "apikey" else value) for name, value in query
            ]
            forwarded["query_string"] = urlencode(resolved).encode()
            return forwarded
        key = _api_key(scope)
        given = headers.get("authorization")
        if key is None and given is None and service == "storage":
            headers["authorization"] = ""  # the CLI's gateway copies a key that is not there
        if key is not None and (given is None or given.startswith("Bearer sb_")):
            token = self._keys.resolve(key)
            # A legacy key is copied without "Bearer", so PostgREST ignores it.
            headers["authorization"] = token if token == key else f"Bearer {token}"
        return forwarded


def _api_key(scope: Scope) -> str | None:
    header = Headers(scope=scope).get("apikey")
    return header or dict(parse_qsl(scope["query_string"].decode())).get("apikey")


def app(
    services: Mapping[str, Sequence[BaseRoute]], keys: Keys, lifespan: Lifespan[Starlette] | None = None
) -> Starlette:
    """Return the gateway in front of `services`: the routes of auth, rest, storage and realtime."""
    apps: dict[str, ASGIApp] = {
        name: Router(served, redirect_slashes=False) for name, served in services.items()
    }
    cors = Middleware(
        CORSMiddleware,
        allow_origins=["*"],
        allow_methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"],
        allow_headers=["*"],
        expose_headers=_EXPOSED,
        max_age=3600,
    )
    return Starlette(routes=[Mount("/", Gateway(apps, keys))], middleware=[cors], lifespan=lifespan)
