"""Tokens of signed URLs, for one object, one direction and some time."""

from typing import Any, Literal

import jwt

from watcher.sandbox.storage import errors
from watcher.sandbox.storage.call import Call

Scope = Literal["download", "upload"]


async def sign(call: Call, path: str, scope: Scope, seconds: int, **claims: Any) -> str:
    """Return a token for `path`, which is `bucket/key`, that is valid for so many seconds."""
    async with call.admin() as rows:
        await rows.execute("select floor(extract(epoch from now()))::bigint as now")
        row = await rows.fetchone()
    assert row is not None
    times = {"iat": row["now"], "exp": row["now"] + seconds}
    return call.service.keys.sign({**claims, "url": path, "scope": scope, **times})


def verify(call: Call, scope: Scope) -> dict[str, Any]:
    """Return the claims of the URL's token. One for another object or `scope` is refused."""
    token = call.request.query_params.get("token")
    if token is None:
        raise errors.invalid_request("querystring must have required property 'token'")
    try:
        claims = call.service.keys.verify(token)
    except jwt.PyJWTError as error:
        raise errors.invalid_jwt(error) from error
    if claims.get("scope") != scope:
        raise errors.invalid_signature(f"Token is not scoped for {scope}")
    if claims.get("url") != f"{call.bucket}/{call.key}":
        raise errors.invalid_signature()
    return claims
