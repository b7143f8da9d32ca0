"""GoTrue's routes to sign up, sign in, refresh and sign out, to confirm addresses, and for the admin to manage users."""

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import urlencode
from uuid import UUID, uuid4

import jwt
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from watcher.sandbox.absent import STATUS, Absent, not_imitated
from watcher.sandbox.auth.confirmations import SITE_URL, Challenge, Confirmations
from watcher.sandbox.auth.knobs import Knobs
from watcher.sandbox.auth.mailbox import Mailbox
from watcher.sandbox.auth.sessions import Sessions
from watcher.sandbox.auth.users import AuthError, User, Users, checked
from watcher.sandbox.database import Database
from watcher.sandbox.keys import Keys

_API_VERSION = "2024-01-01"
_ADMINS = {"service_role", "supabase_admin"}
_SETTINGS = {
    "external": {"email": True, "phone": False, "anonymous_users": False},
    "disable_signup": False,
    "phone_autoconfirm": False,
    "sms_provider": "",
    "saml_enabled": False,
}
_ABSENT = {
    "authorize": Absent.AUTH_OAUTH,
    "callback": Absent.AUTH_OAUTH,
    "oauth": Absent.AUTH_OAUTH,
    "otp": Absent.AUTH_OTP,
    "magiclink": Absent.AUTH_OTP,
    "factors": Absent.AUTH_MFA,
    "passkeys": Absent.AUTH_MFA,
    "sso": Absent.AUTH_SSO,
    "scim": Absent.AUTH_SSO,
    "user/identities": Absent.AUTH_IDENTITIES,
    "reauthenticate": Absent.AUTH_REAUTHENTICATION,
    "invite": Absent.AUTH_INVITATIONS,
    "admin/generate_link": Absent.AUTH_INVITATIONS,
    "admin": Absent.AUTH_ADMIN,
}
"""By the beginning of the path."""
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


def _absent(feature: Absent) -> AuthError:
    return AuthError(STATUS, "not_implemented", feature.sentence)


async def _unknown(request: Request) -> Response:
    path = request.url.path.removeprefix("/")
    for beginning, feature in _ABSENT.items():
        if f"{path}/".startswith(f"{beginning}/"):
            raise _absent(feature)
    raise AuthError(STATUS, "not_implemented", not_imitated(f"{request.method} /auth/v1/{path}"))


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
    """GoTrue with e-mail and password; an address that signs up is confirmed at once, unless `knobs` say otherwise."""

    def __init__(self, database: Database, keys: Keys) -> None:
        self.knobs = Knobs()
        self.mailbox = Mailbox()
        self._users = Users(database)
        self._sessions = Sessions(database, keys, self.knobs)
        self._confirmations = Confirmations(database, self.mailbox)
        self._keys = keys

    @property
    def actions(self) -> dict[str, Callable[..., Any]]:
        """The actions that the control port offers, by name."""
        return {
            "auth_set_session_length": self.knobs.set_session_length,
            "auth_confirm_emails": self.knobs.confirm_emails,
            "auth_reset": self.knobs.reset,
        }

    async def settings(self, _: Request) -> Response:
        """GET /settings."""
        return JSONResponse({**_SETTINGS, "mailer_autoconfirm": not self.knobs.confirms_emails})

    async def sign_up(self, request: Request) -> Response:
        """POST /signup."""
        body = await _body(request)
        email, password = _text(body, "email"), _text(body, "password")
        if _text(body, "phone"):
            raise AuthError(400, "phone_provider_disabled", "Phone signups are disabled")
        if not email:
            raise AuthError(422, "anonymous_provider_disabled", "Anonymous sign-ins are disabled")
        if not password:
            raise AuthError(400, "validation_failed", "Signup requires a valid password")
        challenge = Challenge.of(body)
        data, confirms = body.get("data"), self.knobs.confirms_emails
        known = await self._users.find_by_email(checked(email)) if confirms else None
        if known is not None and "email_confirmed_at" in known:
            return JSONResponse(_unrecognizable(known, data))
        user = known or await self._users.create(email, password, confirmed=not confirms, user_metadata=data)
        if not confirms:
            return JSONResponse(await self._sessions.open(user["id"], _issuer(request)))
        await self._confirmations.send("signup", user, _issuer(request), _redirect(request), challenge)
        return JSONResponse(await self._users.find(user["id"]))

    async def recover(self, request: Request) -> Response:
        """POST /recover: mail a link to set a new password; the answer does not tell whether there is such a user."""
        body = await _body(request)
        if not _text(body, "email"):
            raise AuthError(400, "validation_failed", "Password recovery requires an email")
        challenge = Challenge.of(body)
        user = await self._users.find_by_email(checked(body["email"]))
        if user is not None:
            await self._confirmations.send("recovery", user, _issuer(request), _redirect(request), challenge)
        return JSONResponse({})

    async def resend(self, request: Request) -> Response:
        """POST /resend: mail the link to confirm an address again."""
        body = await _body(request)
        kind = body.get("type")
        if kind in {"sms", "phone_change"}:
            raise _absent(Absent.AUTH_PHONE)
        if kind == "email_change":
            raise _absent(Absent.AUTH_EMAIL_CHANGE)
        if kind != "signup":
            message = "Missing one of these types: signup, email_change, sms, phone_change"
            raise AuthError(400, "validation_failed", message)
        if not _text(body, "email"):
            raise AuthError(400, "validation_failed", "Type provided requires an email address")
        challenge = Challenge.of(body)
        user = await self._users.find_by_email(checked(body["email"]))
        if user is not None and "email_confirmed_at" not in user:
            await self._confirmations.send("signup", user, _issuer(request), _redirect(request), challenge)
        return JSONResponse({})

    async def open_link(self, request: Request) -> Response:
        """GET /verify: what a link in a mail opens. It leads back to the app, with the session in the URL's fragment."""
        query = request.query_params
        token, kind, target = query.get("token", ""), query.get("type", ""), _redirect(request) or SITE_URL
        if not kind:
            raise AuthError(400, "validation_failed", "Verify requires a verification type")
        if not token:
            raise AuthError(400, "validation_failed", "Verify requires a token or a token hash")
        refusal = "Email link is invalid or has expired"
        try:
            user = await self._confirmations.confirm(kind, token, refusal=refusal)
        except AuthError as error:
            said = {"error_code": error.code, "error_description": error.message}
            reason = "access_denied" if error.status == 403 else "invalid_request"
            fragment = urlencode({"error": reason, **said, "sb": ""})
            return RedirectResponse(f"{target}#{fragment}", 303)
        if code := self._confirmations.code_for(token, user):
            return RedirectResponse(
                f"{target}{'&' if '?' in target else '?'}{urlencode({'code': code})}", 303
            )
        session = await self._sessions.open(user, _issuer(request), "otp")
        names = ("access_token", "expires_at", "expires_in", "refresh_token", "token_type")
        fragment = urlencode({**{name: session[name] for name in names}, "sb": "", "type": kind})
        return RedirectResponse(f"{target}#{fragment}", 303)

    async def verify(self, request: Request) -> Response:
        """POST /verify: exchange the code of a mail, or the token of its link, for a session."""
        body = await _body(request)
        kind, code, token = _text(body, "type"), _text(body, "token"), _text(body, "token_hash")
        if not kind:
            raise AuthError(400, "validation_failed", "Verify requires a verification type")
        if kind in {"sms", "phone_change"} or body.get("phone"):
            raise _absent(Absent.AUTH_PHONE)
        if kind == "email_change":
            raise _absent(Absent.AUTH_EMAIL_CHANGE)
        if kind in {"magiclink", "invite"}:
            raise _absent(Absent.AUTH_OTP if kind == "magiclink" else Absent.AUTH_INVITATIONS)
        if bool(code) == bool(token):
            message = "Verify requires either a token or a token hash"
            raise AuthError(400, "validation_failed", message)
        email = checked(_text(body, "email")) if code else None
        user = await self._confirmations.confirm(kind, code or token or "", email=email)
        return JSONResponse(await self._sessions.open(user, _issuer(request), "otp"))

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
        elif grant == "pkce":
            user = self._confirmations.exchange(_text(body, "auth_code"), _text(body, "code_verifier"))
            session = await self._sessions.open(user, _issuer(request), "otp")
        elif grant in {"id_token", "web3"}:
            raise _absent(Absent.AUTH_OAUTH)
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
        if body.get("phone"):
            raise _absent(Absent.AUTH_PHONE)
        if body.get("email") and self.knobs.confirms_emails:
            raise _absent(Absent.AUTH_EMAIL_CHANGE)
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
        users, total = await self._users.page(page, per_page)
        last = -(-total // per_page)
        links = {"next": page + 1, "last": last} if last > page else {"last": last}
        shown = [f'<{_page_url(request, number)}>; rel="{name}"' for name, number in links.items()]
        headers = {"x-total-count": str(total), "link": ", ".join(shown)}
        return JSONResponse({"users": users, "aud": "authenticated"}, headers=headers)

    async def admin_create(self, request: Request) -> Response:
        """POST /admin/users."""
        self._admin(request)
        body = await _body(request)
        if body.get("phone"):
            raise _absent(Absent.AUTH_PHONE)
        if not body.get("email"):
            message = "Cannot create a user without either an email or phone"
            raise AuthError(400, "validation_failed", message)
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
        """DELETE /admin/users/{id}: foreign keys decide what is deleted with the user; or `should_soft_delete`."""
        self._admin(request)
        soft = (await _body(request)).get("should_soft_delete")
        delete = self._users.soft_delete if soft else self._users.delete
        if not await delete(_uuid(request.path_params["id"])):
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

    def routes(self) -> list[BaseRoute]:
        """Return GoTrue's routes, without the gateway's prefix."""
        served: list[tuple[str, str, Endpoint]] = [
            ("GET", "/health", _health),
            ("GET", "/settings", self.settings),
            ("GET", "/.well-known/jwks.json", _no_jwks),
            ("POST", "/signup", self.sign_up),
            ("POST", "/token", self.token),
            ("POST", "/recover", self.recover),
            ("POST", "/resend", self.resend),
            ("GET", "/verify", self.open_link),
            ("POST", "/verify", self.verify),
            ("GET", "/user", self.user),
            ("PUT", "/user", self.change_user),
            ("POST", "/logout", self.log_out),
            ("GET", "/admin/users", self.admin_users),
            ("POST", "/admin/users", self.admin_create),
            ("GET", "/admin/users/{id}", self.admin_user),
            ("DELETE", "/admin/users/{id}", self.admin_delete),
        ]
        methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
        return [
            *(Route(path, _handling_errors(endpoint), methods=[method]) for method, path, endpoint in served),
            Route("/{path:path}", _handling_errors(_unknown), methods=methods),
        ]


async def _health(_: Request) -> Response:
    return JSONResponse(_HEALTH)


async def _no_jwks(_: Request) -> Response:
    return JSONResponse({"keys": []})  # a shared secret has no public half


def _redirect(request: Request) -> str | None:
    return request.query_params.get("redirect_to") or request.headers.get("referer")


def _page_url(request: Request, number: int) -> str:
    query = {**request.query_params, "page": str(number)}
    return f"{request.url.path}?{urlencode(sorted(query.items()))}"


def _unrecognizable(user: User, data: object) -> User:
    """Return what signing up with a confirmed address answers: it looks like a new user, so that nobody can probe."""
    providers = {"provider": "email", "providers": ["email"]}
    kept = {name: user[name] for name in ("aud", "email", "phone", "is_anonymous")}
    shown = {**kept, "id": str(uuid4()), "role": "", "identities": [], "app_metadata": providers}
    return {
        **shown,
        "user_metadata": data or {},
        **dict.fromkeys(("created_at", "updated_at"), user["updated_at"]),
    }
