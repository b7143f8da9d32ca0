"""GoTrue's routes to sign up, sign in, refresh and sign out, and for the admin to manage users."""

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from uuid import UUID

import jwt
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from watcher.sandbox.auth.sessions import Sessions
from watcher.sandbox.auth.users import AuthError, User, Users
from watcher.sandbox.database import Database
from watcher.sandbox.keys import Keys

_API_VERSION = "2024-01-01"
_ADMINS = {"service_role", "supabase_admin"}
_SETTINGS = {
    "external": {"email": True, "phone": False, "anonymous_users": False},
    "disable_signup": False,
    "mailer_autoconfirm": True,
    "phone_autoconfirm": False,
    "sms_provider": "",
    "saml_enabled": False,
}
_HEALTH = {
    "version": "v2.197.0",
    "name": "GoTrue",
    "description": "GoTrue is a user registration and authentication API",
}

Endpoint = Callable[[Request], Awaitable[Response]]


def _refusal(request: Request, error: AuthError) -> JSONResponse:
    """Return the answer to an error; its fields depend on the API version that the client asks for."""
    if request.headers.get("x-supabase-api-version", "") >= _API_VERSION:
        body = {"code": error.code, "message": error.message, **error.more}
        return JSONResponse(body, error.status, {"x-supabase-api-version": _API_VERSION})
    body = {"code": error.status, "error_code": error.code, "msg": error.message, **error.more}
    return JSONResponse(body, error.status)


def _handling_errors(endpoint: Endpoint) -> Endpoint:
    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except AuthError as error:
            return _refusal(request, error)

    return answer


async def _body(request: Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.body() or b"{}")
    except ValueError as error:
        message = "Could not parse request body as JSON"
        raise AuthError(400, "bad_json", f"{message}: {error}") from error
    if not isinstance(body, dict):
        raise AuthError(400, "bad_json", "Could not parse request body as JSON: not an object")
    return body


def _text(body: Mapping[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise AuthError(400, "bad_json", f"Could not parse request body as JSON: {name} is not a string")
    return value


def _number(request: Request, name: str, default: int) -> int:
    value = request.query_params.get(name) or str(default)
    if not value.isdecimal() or int(value) < 1:
        raise AuthError(400, "validation_failed", f"Bad Pagination Parameters: {name} {value!r}")
    return int(value)


def _issuer(request: Request) -> str:
    return f"{request.url.scheme}://{request.url.netloc}/auth/v1"


def _uuid(text: str | None) -> str:
    try:
        return str(UUID(text))
    except ValueError as error:
        raise AuthError(404, "validation_failed", "user_id must be an UUID") from error


class Auth:
    """GoTrue with e-mail and password; every address that signs up is confirmed at once."""

    def __init__(self, database: Database, keys: Keys) -> None:
        self._users = Users(database)
        self._sessions = Sessions(database, keys)
        self._keys = keys

    async def sign_up(self, request: Request) -> Response:
        """POST /signup."""
        body = await _body(request)
        email, password = _text(body, "email"), _text(body, "password")
        if not email and not password:
            raise AuthError(422, "anonymous_provider_disabled", "Anonymous sign-ins are disabled")
        if not password:
            raise AuthError(400, "validation_failed", "Signup requires a valid password")
        user = await self._users.create(email, password, confirmed=True, user_metadata=body.get("data"))
        return JSONResponse(await self._sessions.open(user["id"], _issuer(request)))

    async def token(self, request: Request) -> Response:
        """POST /token?grant_type=…."""
        body = await _body(request)
        grant = request.query_params.get("grant_type")
        if grant == "password":
            session = await self._sessions.sign_in(
                _text(body, "email"), _text(body, "password"), _issuer(request)
            )
        elif grant == "refresh_token":
            session = await self._sessions.refresh(_text(body, "refresh_token"), _issuer(request))
        else:
            return JSONResponse({"error": "unsupported_grant_type", "error_description": ""}, 400)
        return JSONResponse(session, headers={"cache-control": "no-store"})

    async def user(self, request: Request) -> Response:
        """GET /user."""
        user, _ = await self._signed_in(request)
        return JSONResponse(user)

    async def change_user(self, request: Request) -> Response:
        """PUT /user."""
        user, _ = await self._signed_in(request)
        body = await _body(request)
        changed = await self._users.update(
            user["id"],
            password=_text(body, "password"),
            email=_text(body, "email"),
            metadata=body.get("data"),
        )
        return JSONResponse(changed)

    async def log_out(self, request: Request) -> Response:
        """POST /logout?scope=global|local|others."""
        user, claims = await self._signed_in(request)
        scope = request.query_params.get("scope", "global")
        if scope not in {"global", "local", "others"}:
            raise AuthError(400, "validation_failed", f'Unsupported logout scope "{scope}"')
        await self._sessions.close(user["id"], claims.get("session_id"), scope)
        return Response(status_code=204)

    async def admin_users(self, request: Request) -> Response:
        """GET /admin/users?page=…&per_page=…."""
        self._admin(request)
        page, per_page = _number(request, "page", 1), _number(request, "per_page", 50)
        users = await self._users.page(page, per_page)
        return JSONResponse({"users": users, "aud": "authenticated"})

    async def admin_create(self, request: Request) -> Response:
        """POST /admin/users."""
        self._admin(request)
        body = await _body(request)
        try:
            user = await self._users.create(
                _text(body, "email"),
                _text(body, "password"),
                confirmed=bool(body.get("email_confirm")),
                user_metadata=body.get("user_metadata"),
                app_metadata=body.get("app_metadata"),
                user_id=_uuid(_text(body, "id")) if body.get("id") else None,
            )
        except AuthError as error:
            if error.code != "user_already_exists":
                raise
            taken = "A user with this email address has already been registered"
            raise AuthError(422, "email_exists", taken) from error
        return JSONResponse(user)

    async def admin_user(self, request: Request) -> Response:
        """GET /admin/users/{id}."""
        self._admin(request)
        user = await self._users.find(_uuid(request.path_params["id"]))
        if user is None:
            raise AuthError(404, "user_not_found", "User not found")
        return JSONResponse(user)

    async def admin_delete(self, request: Request) -> Response:
        """DELETE /admin/users/{id}: foreign keys decide what is deleted with the user; softly, the row stays as a shell."""
        self._admin(request)
        softly = (await _body(request)).get("should_soft_delete") is True
        user_id = _uuid(request.path_params["id"])
        if not await (self._users.soft_delete if softly else self._users.delete)(user_id):
            raise AuthError(404, "user_not_found", "User not found")
        return JSONResponse({})

    def _claims(self, request: Request) -> Mapping[str, Any]:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise AuthError(401, "no_authorization", "This endpoint requires a valid Bearer token")
        unverified = "invalid JWT: unable to parse or verify signature, "
        try:
            return self._keys.verify(token)
        except jwt.ExpiredSignatureError as error:
            raise AuthError(
                403, "bad_jwt", unverified + "token has invalid claims: token is expired"
            ) from error
        except jwt.InvalidSignatureError as error:
            invalid = "token signature is invalid: signature is invalid"
            raise AuthError(403, "bad_jwt", unverified + invalid) from error
        except jwt.PyJWTError as error:
            malformed = "token is malformed: token contains an invalid number of segments"
            raise AuthError(403, "bad_jwt", unverified + malformed) from error

    def _admin(self, request: Request) -> None:
        if self._claims(request).get("role") not in _ADMINS:
            raise AuthError(403, "not_admin", "User not allowed")

    async def _signed_in(self, request: Request) -> tuple[User, Mapping[str, Any]]:
        claims = self._claims(request)
        subject = claims.get("sub")
        if not subject:
            raise AuthError(403, "bad_jwt", "invalid claim: missing sub claim")
        user = await self._users.find(_uuid(str(subject)))
        if user is None:
            raise AuthError(403, "user_not_found", "User from sub claim in JWT does not exist")
        session = claims.get("session_id")
        if session and not await self._sessions.is_open(session):
            gone = "Session from session_id claim in JWT does not exist"
            raise AuthError(403, "session_not_found", gone)
        return user, claims


def routes(database: Database, keys: Keys) -> list[BaseRoute]:
    """Return GoTrue's routes, without the gateway's prefix."""
    auth = Auth(database, keys)

    async def health(_: Request) -> Response:
        return JSONResponse(_HEALTH)

    async def settings(_: Request) -> Response:
        return JSONResponse(_SETTINGS)

    return [
        Route("/health", health, methods=["GET"]),
        Route("/settings", settings, methods=["GET"]),
        Route("/signup", _handling_errors(auth.sign_up), methods=["POST"]),
        Route("/token", _handling_errors(auth.token), methods=["POST"]),
        Route("/user", _handling_errors(auth.user), methods=["GET"]),
        Route("/user", _handling_errors(auth.change_user), methods=["PUT"]),
        Route("/logout", _handling_errors(auth.log_out), methods=["POST"]),
        Route("/admin/users", _handling_errors(auth.admin_users), methods=["GET"]),
        Route("/admin/users", _handling_errors(auth.admin_create), methods=["POST"]),
        Route("/admin/users/{id}", _handling_errors(auth.admin_user), methods=["GET"]),
        Route("/admin/users/{id}", _handling_errors(auth.admin_delete), methods=["DELETE"]),
    ]
