"""Storage 1.70.6, as far as supabase-js and storage3 use it: buckets, objects, signed URLs.

Postgres's policies decide what a caller may do, since statements run in the caller's role. What the sandbox does not
imitate is in `watcher.sandbox.absent`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from watcher.sandbox.absent import Absent
from watcher.sandbox.database import Database
from watcher.sandbox.keys import Keys
from watcher.sandbox.storage import buckets, download, errors, objects, resumable, upload
from watcher.sandbox.storage import list as listing
from watcher.sandbox.storage.bytes import Bytes
from watcher.sandbox.storage.call import Auth, Handler, Service, endpoint
from watcher.sandbox.storage.knobs import Knobs
from watcher.sandbox.storage.partial import Uploads

_ONE = "{bucket}/{key:path}"

_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]

# Method, path, the value of storage.operation() for policies, and the handler; the first match counts.
_ROUTES: dict[Auth, list[tuple[str, str, str, Handler]]] = {
    Auth.NONE: [
        ("GET", f"/object/sign/{_ONE}", "storage.object.get_signed", download.signed),
        ("PUT", f"/object/upload/sign/{_ONE}", "storage.object.upload_signed", upload.signed),
        ("HEAD", f"/object/public/{_ONE}", "storage.object.info_public", download.head_public),
        ("GET", f"/object/public/{_ONE}", "storage.object.get_public", download.public),
        ("GET", f"/object/info/public/{_ONE}", "storage.object.info_public", download.info_public),
    ],
    Auth.REQUIRED: [
        ("GET", "/bucket", "storage.bucket.list", buckets.list_all),
        ("POST", "/bucket", "storage.bucket.create", buckets.create),
        ("GET", "/bucket/{bucket}", "storage.bucket.get", buckets.show),
        ("PUT", "/bucket/{bucket}", "storage.bucket.update", buckets.update),
        ("DELETE", "/bucket/{bucket}", "storage.bucket.delete", buckets.delete),
        ("POST", "/bucket/{bucket}/empty", "storage.bucket.empty", buckets.empty),
        ("POST", "/object/move", "storage.object.move", objects.move),
        ("POST", "/object/copy", "storage.object.copy", objects.copy),
        ("POST", "/object/list/{bucket}", "storage.object.list", listing.v1),
        ("POST", "/object/list-v2/{bucket}", "storage.object.list_v2", listing.v2),
        ("POST", "/object/sign/{bucket}", "storage.object.sign_many", objects.sign_many),
        ("POST", f"/object/sign/{_ONE}", "storage.object.sign", objects.sign),
        ("POST", f"/object/upload/sign/{_ONE}", "storage.object.sign_upload_url", upload.sign),
        ("HEAD", f"/object/authenticated/{_ONE}", "object.head_authenticated_info", download.head),
        ("GET", f"/object/authenticated/{_ONE}", "storage.object.get_authenticated", download.download),
        ("GET", f"/object/info/authenticated/{_ONE}", "object.get_authenticated_info", download.info),
        ("DELETE", "/object/{bucket}", "storage.object.delete_many", objects.remove),
        ("DELETE", f"/object/{_ONE}", "storage.object.delete", objects.remove_one),
        ("POST", f"/object/{_ONE}", "storage.object.upload", upload.create),
        ("PUT", f"/object/{_ONE}", "storage.object.upload_update", upload.update),
        ("POST", "/upload/resumable", "storage.tus.upload.create", resumable.create),
        ("PATCH", "/upload/resumable/{upload}", "storage.tus.upload.part", resumable.append),
        ("HEAD", "/upload/resumable/{upload}", "storage.tus.upload.get", resumable.show),
    ],
    Auth.OPTIONAL: [
        ("GET", f"/object/info/{_ONE}", "object.get_authenticated_info", download.info),
        ("HEAD", f"/object/{_ONE}", "object.head_authenticated_info", download.head),
        ("GET", f"/object/{_ONE}", "storage.object.get_authenticated", download.download),
    ],
}


class Storage:
    """The objects of one project: their rows in its database, their bytes in a folder."""

    def __init__(self, database: Database, keys: Keys, folder: Path) -> None:
        """Take the folder for the bytes, which is created."""
        stored = Bytes(folder)
        self.knobs = Knobs(database.admin_dsn, stored)
        self._service = Service(database, keys, stored, Uploads(folder / "resumable"), self.knobs)

    def routes(self) -> list[BaseRoute]:
        """Return Storage's routes, without the gateway's prefix."""
        served: list[BaseRoute] = [
            Route(path, endpoint(self._service, operation, auth, handler), methods=[method])
            for auth, rows in _ROUTES.items()
            for method, path, operation, handler in rows
        ]
        extras = [Route("/status", _status), Route("/version", _version)]
        return [*served, *extras, Route("/{path:path}", _unknown, methods=_METHODS)]

    @property
    def actions(self) -> dict[str, Callable[..., Any]]:
        """The actions that the control port offers, by name."""
        return {"storage_hide": self.knobs.hide, "storage_lose_bytes": self.knobs.lose_bytes}


async def _status(_: Request) -> Response:
    return Response()


async def _version(_: Request) -> Response:
    return PlainTextResponse("0.0.0")


_ABSENT = {
    "render": Absent.STORAGE_TRANSFORMATIONS,
    "s3": Absent.STORAGE_S3,
    "cdn": Absent.STORAGE_CDN,
    "iceberg": Absent.STORAGE_ANALYTICS,
    "vector": Absent.STORAGE_ANALYTICS,
}
"""By the first segment of the path."""


async def _unknown(request: Request) -> Response:
    path = request.scope["path"]
    if feature := _ABSENT.get(path.split("/")[1]):
        return errors.absent(feature).response()
    query = f"?{request.url.query}" if request.url.query else ""
    known = path.split("/")[1] in {"object", "bucket"}
    return errors.no_such_route(request.method, f"{path}{query}", known_prefix=known)
