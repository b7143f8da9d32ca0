"""GoTrue's routes to sign up, sign in, refresh and sign out, and to confirm addresses; those of the admin are in `admin`."""

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from watcher.sandbox.absent import Absent
from watcher.sandbox.auth.admin import Admin
from watcher.sandbox.auth.bearer import Bearer
from watcher.sandbox.auth.confirmations import SITE_URL, Challenge, Confirmations
from watcher.sandbox.auth.knobs import Knobs
from watcher.sandbox.auth.mailbox import Mailbox
from watcher.sandbox.auth.missing import not_served
from watcher.sandbox.auth.parse import absent, json_body, text_field
from watcher.sandbox.auth.sessions import Sessions
from watcher.sandbox.auth.users import AuthError, User, Users, checked
from watcher.sandbox.database import Database
from watcher.sandbox.keys import Keys

_API_VERSION = "2024-01-01"
_SETTINGS = {
    "external": {"email": True, "phone": False, "anonymous_users": False},
    "disable_signup": False,
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


def _issuer(request: Request) -> str:
    return f"{request.url.scheme}://{request.url.netloc}/auth/v1"


class Auth:
    """GoTrue with e-mail and password; an address that signs up is confirmed at once, unless `knobs` say otherwise."""

    def __init__(self, database: Database, keys: Keys) -> None:
        self.knobs = Knobs()
        self.mailbox = Mailbox()
        self._users = Users(database)
        self._sessions = Sessions(database, keys, self.knobs)
        self._confirmations = Confirmations(database, self.mailbox)
        self._bearer = Bearer(keys, self._users, self._sessions)
        self._admin = Admin(self._bearer, self._users)

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
        body = await json_body(request)
        email, password = text_field(body, "email"), text_field(body, "password")
        if text_field(body, "phone"):
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
        body = await json_body(request)
        if not text_field(body, "email"):
            raise AuthError(400, "validation_failed", "Password recovery requires an email")
        challenge = Challenge.of(body)
        user = await self._users.find_by_email(checked(body["email"]))
        if user is not None:
            await self._confirmations.send("recovery", user, _issuer(request), _redirect(request), challenge)
        return JSONResponse({})

    async def resend(self, request: Request) -> Response:
        """POST /resend: mail the link to confirm an address again."""
        body = await json_body(request)
        kind = body.get("type")
        if kind in {"sms", "phone_change"}:
            raise absent(Absent.AUTH_PHONE)
        if kind == "email_change":
            raise absent(Absent.AUTH_EMAIL_CHANGE)
        if kind != "signup":
            message = "Missing one of these types: signup, email_change, sms, phone_change"
            raise AuthError(400, "validation_failed", message)
        if not text_field(body, "email"):
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
        body = await json_body(request)
        kind, code, token = (
            text_field(body, "type"),
            text_field(body, "token"),
            text_field(body, "token_hash"),
        )
        if not kind:
            raise AuthError(400, "validation_failed", "Verify requires a verification type")
        if kind in {"sms", "phone_change"} or body.get("phone"):
            raise absent(Absent.AUTH_PHONE)
        if kind == "email_change":
            raise absent(Absent.AUTH_EMAIL_CHANGE)
        if kind in {"magiclink", "invite"}:
            raise absent(Absent.AUTH_OTP if kind == "magiclink" else Absent.AUTH_INVITATIONS)
        if bool(code) == bool(token):
            message = "Verify requires either a token or a token hash"
            raise AuthError(400, "validation_failed", message)
        email = checked(text_field(body, "email")) if code else None
        user = await self._confirmations.confirm(kind, code or token or "", email=email)
        return JSONResponse(await self._sessions.open(user, _issuer(request), "otp"))

    async def token(self, request: Request) -> Response:
        """POST /token?grant_type=…."""
        body = await json_body(request)
        grant = request.query_params.get("grant_type")
        if grant == "password":
            session = await self._sessions.sign_in(
                text_field(body, "email"), text_field(body, "password"), _issuer(request)
            )
        elif grant == "refresh_token":
            session = await self._sessions.refresh(text_field(body, "refresh_token"), _issuer(request))
        elif grant == "pkce":
            user = self._confirmations.exchange(
                text_field(body, "auth_code"), text_field(body, "code_verifier")
            )
            session = await self._sessions.open(user, _issuer(request), "otp")
        elif grant in {"id_token", "web3"}:
            raise absent(Absent.AUTH_OAUTH)
        else:
            return JSONResponse({"error": "unsupported_grant_type", "error_description": ""}, 400)
        return JSONResponse(session, headers={"cache-control": "no-store"})

    async def user(self, request: Request) -> Response:
        """GET /user."""
        user, _ = await self._bearer.signed_in(request)
        return JSONResponse(user)

    async def change_user(self, request: Request) -> Response:
        """PUT /user."""
        user, _ = await self._bearer.signed_in(request)
        body = await json_body(request)
        if body.get("phone"):
            raise absent(Absent.AUTH_PHONE)
        if body.get("email") and self.knobs.confirms_emails:
            raise absent(Absent.AUTH_EMAIL_CHANGE)
        changed = await self._users.update(
            user["id"],
            password=text_field(body, "password"),
            email=text_field(body, "email"),
            metadata=body.get("data"),
        )
        return JSONResponse(changed)

    async def log_out(self, request: Request) -> Response:
        """POST /logout?scope=global|local|others."""
        user, claims = await self._bearer.signed_in(request)
        scope = request.query_params.get("scope", "global")
        if scope not in {"global", "local", "others"}:
            raise AuthError(400, "validation_failed", f'Unsupported logout scope "{scope}"')
        await self._sessions.close(user["id"], claims.get("session_id"), scope)
        return Response(status_code=204)

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
            ("GET", "/admin/users", self._admin.list_users),
            ("POST", "/admin/users", self._admin.create_user),
            ("GET", "/admin/users/{id}", self._admin.show_user),
            ("DELETE", "/admin/users/{id}", self._admin.delete_user),
        ]
        methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
        return [
            *(Route(path, _handling_errors(endpoint), methods=[method]) for method, path, endpoint in served),
            Route("/{path:path}", _handling_errors(not_served), methods=methods),
        ]


async def _health(_: Request) -> Response:
    return JSONResponse(_HEALTH)


async def _no_jwks(_: Request) -> Response:
    return JSONResponse({"keys": []})  # a shared secret has no public half


def _redirect(request: Request) -> str | None:
    return request.query_params.get("redirect_to") or request.headers.get("referer")


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
