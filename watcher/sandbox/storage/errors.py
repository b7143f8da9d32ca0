"""What Storage refuses: in 1.70.6 the status is in the body, and the HTTP status is 400 nearly always."""

from typing import Any

import jwt
import psycopg
from starlette.responses import JSONResponse, Response


class Json(JSONResponse):
    """JSON with the content type that Storage writes."""

    media_type = "application/json; charset=utf-8"


class StorageError(Exception):
    """An answer that is not a success; `status` is the body's, `http` the real one."""

    def __init__(
        self, status: int, code: str, message: str, *, error: str | None = None, http: int | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.body = {"statusCode": str(status), "error": error or code, "message": message, "code": code}
        self.http = http or (500 if status == 500 else 400)

    def response(self) -> Response:
        """Return the refusal as Storage words it."""
        return Json(self.body, self.http)


def invalid_request(message: str) -> StorageError:
    """The request's shape is wrong; `message` is that of Storage's schema validator."""
    return StorageError(400, "InvalidRequest", message, error="Error")


def invalid_key(key: str, why: str = "") -> StorageError:
    """A key holds what Storage does not store."""
    return StorageError(400, "InvalidKey", f"Invalid key: {key}{why}")


def invalid_bucket_name() -> StorageError:
    """A bucket's name is too long or holds what Storage does not store."""
    return StorageError(400, "InvalidBucketName", "Bucket name invalid", error="Invalid Input")


def invalid_mime_type(mime_type: str) -> StorageError:
    """The bucket does not take this type."""
    return StorageError(
        415, "InvalidMimeType", f"mime type {mime_type} is not supported", error="invalid_mime_type"
    )


def invalid_range() -> StorageError:
    """The range cannot be served."""
    return StorageError(416, "InvalidRange", "invalid range provided", error="invalid_range", http=416)


def invalid_signature(message: str = "Invalid signature") -> StorageError:
    """A signed URL's token was made for something else."""
    return StorageError(400, "InvalidSignature", message)


def invalid_jwt(error: jwt.PyJWTError) -> StorageError:
    """A signed URL's token is expired or not ours."""
    return StorageError(400, "InvalidJWT", _said_of(error))


def no_content() -> StorageError:
    """An upload without a file."""
    return StorageError(400, "InvalidRequest", "No content provided")


def no_such_bucket() -> StorageError:
    """The bucket is missing, or hidden from the caller."""
    return StorageError(404, "NoSuchBucket", "Bucket not found", error="Bucket not found")


def no_such_key() -> StorageError:
    """The object is missing, or hidden from the caller."""
    return StorageError(404, "NoSuchKey", "Object not found", error="not_found")


def bucket_not_empty() -> StorageError:
    """A bucket that holds objects cannot be deleted."""
    return StorageError(409, "ResourceNotEmpty", "The bucket you tried to delete is not empty")


def too_large() -> StorageError:
    """An object, or a bucket's limit, is larger than allowed."""
    message = "The object exceeded the maximum allowed size"
    return StorageError(413, "EntityTooLarge", message, error="Payload too large")


def exists(code: str = "ResourceAlreadyExists") -> StorageError:
    """Something of that name is there already."""
    return StorageError(409, code, "The resource already exists", error="Duplicate")


def access_denied(message: str = "Access denied") -> StorageError:
    """The caller may not do this."""
    return StorageError(403, "AccessDenied", message, error="Unauthorized")


def not_authenticated(error: jwt.PyJWTError) -> StorageError:
    """The caller's token is expired or not ours."""
    return access_denied(_said_of(error))


def internal() -> StorageError:
    """Whatever Storage did not expect: the database away, an object's bytes gone."""
    return StorageError(500, "InternalError", "Internal Server Error", error="Internal")


def database_timeout() -> StorageError:
    """The database did not answer in time."""
    return StorageError(544, "DatabaseTimeout", "The connection to the database timed out", http=544)


def of_postgres(error: psycopg.Error) -> StorageError:
    """Translate what Postgres refused."""
    state = error.sqlstate
    said = error.diag.message_primary or ""
    match state:
        case None:
            return internal()  # no answer at all: the connection failed
        case "42501":
            rls = "row-level security" in said
            return access_denied("new row violates row-level security policy" if rls else said)
        case "23505":
            return exists()
        case "23503":
            return StorageError(404, "InvalidRequest", "The related resource does not exist")
        case "55P03":
            return StorageError(423, "ResourceLocked", "The resource is locked")
        case "57014":
            return database_timeout()
        case "22P02":
            return StorageError(400, "InvalidParameter", said)
    return StorageError(500, "DatabaseError", f"database error, code: {state}")


def no_such_route(method: str, url: str, *, known_family: bool) -> Response:
    """Answer a path nobody serves, in a known family of them in Storage's words, else in its framework's."""
    message = f"Route {method}:{url} not found"
    if known_family:
        body: dict[str, Any] = {"statusCode": "404", "error": "Not Found", "message": message}
        return JSONResponse({**body, "code": "InvalidRequest"}, 404)
    return Json({"message": message, "error": "Not Found", "statusCode": 404}, 404)


def _said_of(error: jwt.PyJWTError) -> str:
    """Return what Storage's JWT library says where ours says `error`."""
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
