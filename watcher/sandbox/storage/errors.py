"""Storage's refusals. In 1.70.6 the status is in the body, and the HTTP status is nearly always 400."""

from typing import Any

import jwt
import psycopg
from starlette.responses import JSONResponse, Response

from watcher.sandbox.absent import STATUS, Absent


class Json(JSONResponse):
    """JSON with the content type that Storage writes."""

    media_type = "application/json; charset=utf-8"


class StorageError(Exception):
    """A refusal; `status` is that in the body, `http` the HTTP status."""

    def __init__(
        self, status: int, code: str, message: str, *, error: str | None = None, http: int | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.body = {"statusCode": str(status), "error": error or code, "message": message, "code": code}
        self.http = http or (500 if status == 500 else 400)

    def response(self) -> Response:
        """Return the answer."""
        return Json(self.body, self.http)


def absent(feature: Absent) -> StorageError:
    """Storage has this, and the sandbox does not."""
    return StorageError(STATUS, "NotImplemented", feature.sentence, error="Not Implemented", http=STATUS)


def invalid_role() -> StorageError:
    """Only the service role may do this; one of the few refusals whose HTTP status is the one in the body."""
    return StorageError(403, "AccessDenied", "Access denied: Invalid role", error="Unauthorized", http=403)


def invalid_request(message: str) -> StorageError:
    """The request is malformed; `message` is that of Storage's schema validator."""
    return StorageError(400, "InvalidRequest", message, error="Error")


def invalid_key(key: str, why: str = "") -> StorageError:
    """A key has characters that Storage does not allow."""
    return StorageError(400, "InvalidKey", f"Invalid key: {key}{why}")


def invalid_bucket_name() -> StorageError:
    """A bucket's name is too long, or has characters that Storage does not allow."""
    return StorageError(400, "InvalidBucketName", "Bucket name invalid", error="Invalid Input")


def invalid_mime_type(mime_type: str) -> StorageError:
    """The bucket does not allow this type."""
    return StorageError(
        415, "InvalidMimeType", f"mime type {mime_type} is not supported", error="invalid_mime_type"
    )


def invalid_range() -> StorageError:
    """The range cannot be served."""
    return StorageError(416, "InvalidRange", "invalid range provided", error="invalid_range", http=416)


def invalid_signature(message: str = "Invalid signature") -> StorageError:
    """A signed URL's token is for something else."""
    return StorageError(400, "InvalidSignature", message)


def invalid_jwt(error: jwt.PyJWTError) -> StorageError:
    """A signed URL's token is expired or not signed with this project's secret."""
    return StorageError(400, "InvalidJWT", _message_of(error))


def no_content() -> StorageError:
    """An upload has no file."""
    return StorageError(400, "InvalidRequest", "No content provided")


def no_such_bucket() -> StorageError:
    """The bucket does not exist, or is not visible to the caller."""
    return StorageError(404, "NoSuchBucket", "Bucket not found", error="Bucket not found")


def no_such_key() -> StorageError:
    """The object does not exist, or is not visible to the caller."""
    return StorageError(404, "NoSuchKey", "Object not found", error="not_found")


def bucket_not_empty() -> StorageError:
    """A bucket with objects cannot be deleted."""
    return StorageError(409, "ResourceNotEmpty", "The bucket you tried to delete is not empty")


def too_large() -> StorageError:
    """An object, or a bucket's limit, is too large."""
    message = "The object exceeded the maximum allowed size"
    return StorageError(413, "EntityTooLarge", message, error="Payload too large")


def exists(code: str = "ResourceAlreadyExists") -> StorageError:
    """There is an object or bucket of that name already."""
    return StorageError(409, code, "The resource already exists", error="Duplicate")


def access_denied(message: str = "Access denied") -> StorageError:
    """The caller may not do this."""
    return StorageError(403, "AccessDenied", message, error="Unauthorized")


def not_authenticated(error: jwt.PyJWTError, operation: str) -> StorageError:
    """The caller's token is expired or not signed with this project's secret."""
    refusal = access_denied(_message_of(error))
    if operation.startswith("storage.tus."):
        # The recorded answers have another order there.
        refusal.body = {name: refusal.body[name] for name in ("statusCode", "code", "error", "message")}
    return refusal


def internal() -> StorageError:
    """An unexpected error: the database is down, or an object's bytes are missing."""
    return StorageError(500, "InternalError", "Internal Server Error", error="Internal")


def database_timeout() -> StorageError:
    """The database did not answer in time."""
    return StorageError(544, "DatabaseTimeout", "The connection to the database timed out", http=544)


def of_postgres(error: psycopg.Error) -> StorageError:
    """Return the refusal for an error of Postgres."""
    state = error.sqlstate
    message = error.diag.message_primary or ""
    match state:
        case None:
            return internal()  # the connection failed
        case "42501":
            rls = "row-level security" in message
            return access_denied("new row violates row-level security policy" if rls else message)
        case "23505":
            return exists()
        case "23503":
            return StorageError(404, "InvalidRequest", "The related resource does not exist")
        case "55P03":
            return StorageError(423, "ResourceLocked", "The resource is locked")
        case "57014":
            return database_timeout()
        case "22P02":
            return StorageError(400, "InvalidParameter", message)
    return StorageError(500, "DatabaseError", f"database error, code: {state}")


def no_such_route(method: str, url: str, *, known_prefix: bool) -> Response:
    """Return the 404 for an unknown route: Storage's own below a known prefix, otherwise that of its framework."""
    message = f"Route {method}:{url} not found"
    if known_prefix:
        body: dict[str, Any] = {"statusCode": "404", "error": "Not Found", "message": message}
        return JSONResponse({**body, "code": "InvalidRequest"}, 404)
    return Json({"message": message, "error": "Not Found", "statusCode": 404}, 404)


def _message_of(error: jwt.PyJWTError) -> str:
    """Return the message of Storage's JWT library for an error of PyJWT."""
    match error:
        case jwt.ExpiredSignatureError():
            return '"exp" claim timestamp check failed'
        case jwt.ImmatureSignatureError():
            return '"nbf" claim timestamp check failed'
        case jwt.InvalidSignatureError():
            return "signature verification failed"
        case jwt.InvalidAlgorithmError():
            return '"alg" (Algorithm) Header Parameter value not allowed'
    return "Invalid Compact JWS"
