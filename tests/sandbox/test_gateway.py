"""The gateway: which keys it accepts, which tokens it passes on, and what it answers a browser."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import jwt
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.sync.client import connect

from tests.sandbox.project import FOREIGN
from watcher.sandbox import gateway
from watcher.sandbox.keys import Keys
from watcher.sandbox.server import HOST, Server

KEYS = Keys()


async def mirror(request: Request) -> Response:
    headers = request.headers
    return JSONResponse({"path": request.url.path, "authorization": headers.get("authorization")})


async def socket_mirror(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_json(
        {"path": socket.url.path, "query": dict(socket.query_params), "key": socket.headers.get("x-api-key")}
    )
    await socket.close()


@contextmanager
def served() -> Iterator[str]:
    methods = ["GET", "POST", "HEAD"]
    routes = [Route("/{path:path}", mirror, methods=methods), WebSocketRoute("/websocket", socket_mirror)]
    services = dict.fromkeys(("auth", "rest", "storage", "realtime"), routes)
    server = Server({"gateway": (gateway.app(services, KEYS), 0)})
    server.start()
    try:
        yield f"http://{HOST}:{server.ports['gateway']}"
    finally:
        server.stop()


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with served() as url, httpx.Client(base_url=url) as client:
        yield client


def test_the_service_gets_the_path_without_its_prefix(client: httpx.Client) -> None:
    headers = {"apikey": KEYS.publishable}
    assert client.get("/rest/v1/notes", headers=headers).json()["path"] == "/notes"
    assert client.get("/storage/v1/object/a//b", headers=headers).json()["path"] == "/object/a//b"
    unknown = client.get("/nothing/v1/f", headers=headers)
    assert (unknown.status_code, unknown.json()) == (404, {"message": "no Route matched with those values"})


@pytest.mark.parametrize("service", ["auth", "rest"])
def test_a_missing_and_an_unknown_key_are_refused(client: httpx.Client, service: str) -> None:
    missing = client.get(f"/{service}/v1/x")
    assert (missing.status_code, missing.json()["message"]) == (401, "No API key found in request")
    for key in ("nonsense", FOREIGN.secret, FOREIGN.service_role_jwt, KEYS.sign({"role": "service_role"})):
        wrong = client.get(f"/{service}/v1/x", headers={"apikey": key})
        assert (wrong.status_code, wrong.json()["message"]) == (401, "Invalid API key")
        assert set(wrong.json()) == {"message", "hint"}


def test_storage_needs_no_key(client: httpx.Client) -> None:
    assert client.get("/storage/v1/object/sign/b/k?token=t").status_code == 200


@pytest.mark.parametrize(
    ("key", "given", "seen"),
    [
        (KEYS.publishable, None, f"Bearer {KEYS.anon_jwt}"),
        (KEYS.secret, None, f"Bearer {KEYS.service_role_jwt}"),
        (KEYS.secret, f"Bearer {KEYS.secret}", f"Bearer {KEYS.service_role_jwt}"),
        (KEYS.publishable, "Bearer user.s.jwt", "Bearer user.s.jwt"),
        (KEYS.secret, "Bearer user.s.jwt", "Bearer user.s.jwt"),
        (KEYS.publishable, f"Bearer {KEYS.secret}", f"Bearer {KEYS.anon_jwt}"),
        (KEYS.service_role_jwt, None, KEYS.service_role_jwt),
        (KEYS.service_role_jwt, f"Bearer {KEYS.service_role_jwt}", f"Bearer {KEYS.service_role_jwt}"),
    ],
)
def test_the_service_gets_a_token_for_the_key(
    client: httpx.Client, key: str, given: str | None, seen: str
) -> None:
    headers = {"apikey": key} | ({"Authorization": given} if given else {})
    assert client.get("/rest/v1/x", headers=headers).json()["authorization"] == seen
    if not given:
        assert client.get(f"/rest/v1/x?apikey={key}").json()["authorization"] == seen


def test_a_secret_key_in_a_browser_is_refused(client: httpx.Client) -> None:
    headers = {"apikey": KEYS.secret, "User-Agent": "Mozilla/5.0 (X11; Linux x86_64)"}
    refused = client.get("/rest/v1/x", headers=headers)
    assert (refused.status_code, refused.json()["message"]) == (
        401,
        "Forbidden use of secret API key in browser",
    )
    assert client.get("/rest/v1/x", headers={**headers, "apikey": KEYS.publishable}).status_code == 200


def test_a_browser_may_send_requests_from_any_origin(client: httpx.Client) -> None:
    origin = {"Origin": "http://localhost:3000"}
    asked = {
        **origin,
        "Access-Control-Request-Method": "PATCH",
        "Access-Control-Request-Headers": "apikey,authorization,prefer,x-client-info",
    }
    preflight = client.options("/rest/v1/x", headers=asked)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == "*"
    assert "PATCH" in preflight.headers["access-control-allow-methods"]
    assert "x-client-info" in preflight.headers["access-control-allow-headers"]
    answer = client.get("/rest/v1/x", headers={**origin, "apikey": KEYS.publishable})
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "content-range" in answer.headers["access-control-expose-headers"]
    refused = client.get("/rest/v1/x", headers=origin)
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, "*")
    assert client.options("/rest/v1/x").status_code == 200


def test_realtime_gets_tokens_for_keys(client: httpx.Client) -> None:
    url = str(client.base_url).replace("http", "ws") + "/"
    path = f"realtime/v1/websocket?apikey={KEYS.publishable}&vsn=1.0.0"
    with connect(url + path, additional_headers={"x-api-key": KEYS.secret}) as socket:
        seen = httpx.Response(200, content=socket.recv()).json()
    assert seen == {
        "path": "/websocket",
        "query": {"apikey": KEYS.anon_jwt, "vsn": "1.0.0"},
        "key": KEYS.service_role_jwt,
    }


def test_keys_are_derived_from_the_secret_and_look_like_real_ones() -> None:
    assert Keys().secret == KEYS.secret
    assert FOREIGN.secret != KEYS.secret
    for key, prefix in ((KEYS.publishable, "sb_publishable_"), (KEYS.secret, "sb_secret_")):
        assert key.startswith(prefix)
        assert len(key) == len(prefix) + 31
    assert KEYS.verify(KEYS.anon_jwt)["role"] == "anon"
    assert KEYS.secret not in repr(KEYS)
    assert KEYS.jwt_secret not in repr(KEYS)


def test_a_token_that_was_verified_before_still_expires() -> None:
    expires = int(time.time()) + 2  # noqa: TID251 - an expiry is a time of day
    token = KEYS.sign({"role": "anon", "exp": expires})
    assert KEYS.verify(token) == KEYS.verify(token) == {"role": "anon", "exp": expires}
    time.sleep(2)
    with pytest.raises(jwt.ExpiredSignatureError):
        KEYS.verify(token)
    assert KEYS.verify(token, leeway=3600)["exp"] == expires
