"""What GoTrue has at paths that the sandbox does not serve: refused in one sentence, with GoTrue's own envelope."""

from starlette.requests import Request
from starlette.responses import Response

from watcher.sandbox.absent import STATUS, Absent, not_imitated
from watcher.sandbox.auth.parse import absent
from watcher.sandbox.auth.users import AuthError

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


async def not_served(request: Request) -> Response:
    """Refuse a path that the sandbox does not serve; its route comes last."""
    path = request.url.path.removeprefix("/")
    for beginning, feature in _ABSENT.items():
        if f"{path}/".startswith(f"{beginning}/"):
            raise absent(feature)
    raise AuthError(STATUS, "not_implemented", not_imitated(f"{request.method} /auth/v1/{path}"))
