"""The Hub's routes for bytes: uploads over Git LFS, and downloads.

As on the Hub, the download of an LFS file is redirected to a signed URL at another origin. Here that is the same server
by its other name, localhost or 127.0.0.1.
"""

import hashlib
import hmac
import re
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from watcher.sandbox.absent import STATUS, Absent
from watcher.sandbox.hub.errors import HubError, bad_request, entry_not_found, json_object
from watcher.sandbox.hub.paths import REVISION
from watcher.sandbox.hub.state import State, commit_of, opened, page, state, writable
from watcher.sandbox.hub.store import Repo

_BATCH_TYPE = "application/vnd.git-lfs+json"
_CHUNK = 1024 * 1024
"""Bytes to collect before a thread writes and hashes them."""


async def _batch(request: Request) -> Response:
    _, repo = writable(request, "Authorization error.")
    hub = state(request)
    body = await json_object(request)
    if body.get("operation") != "upload":
        raise HubError(STATUS, Absent.HUB_LFS_DOWNLOADS.sentence)
    try:
        wanted = [(str(one["oid"]), int(one["size"])) for one in body["objects"]]
    except (KeyError, TypeError, ValueError) as error:
        raise bad_request("Each object needs an oid and a size") from error
    missing = [(oid, size) for oid, size in wanted if not hub.store.bytes.has_object(repo.id, oid, size)]
    if repo.private and hub.knobs.storage_limit is not None:
        mine = [one for one in hub.store.repos(repo.kind) if one.private and one.namespace == repo.namespace]
        used = sum(hub.store.bytes.used(one.id) for one in mine) + sum(size for _, size in missing)
        if used > hub.knobs.storage_limit:
            raise HubError(
                403,
                "Private repository storage limit reached, please upgrade your plan to increase your private "
                "storage limit.",
            )
    objects = [_object(request, repo, oid, size, missing=(oid, size) in missing) for oid, size in wanted]
    return JSONResponse(
        {"transfer": "basic", "objects": objects, "hash_algo": "sha256"}, media_type=_BATCH_TYPE
    )


def _object(request: Request, repo: Repo, oid: str, size: int, *, missing: bool) -> dict[str, Any]:
    answer: dict[str, Any] = {"oid": oid, "size": size, "authenticated": True}
    if not re.fullmatch("[0-9a-f]{64}", oid):
        return answer | {"error": {"code": 422, "message": "The oid is not a sha256"}}
    if not missing:
        return answer
    base = str(request.base_url).rstrip("/")
    signature = _signature(state(request), "put", repo, oid, size)
    query = f"repo={repo.id}&size={size}&sig={signature}"
    actions = {"upload": {"href": f"{base}/_lfs/put/{oid}?{query}", "header": {}}}
    if state(request).knobs.offers_verify:
        verify = request.url.path.removesuffix("batch") + "verify"
        actions["verify"] = {"href": f"{base}{verify}", "header": {}}
    return answer | {"actions": actions}


async def _put(request: Request) -> Response:
    hub = state(request)
    repo, oid, size = _signed(request, "put")
    upload = hub.store.bytes.upload()
    try:
        buffer = bytearray()
        async for chunk in request.stream():
            buffer += chunk
            if len(buffer) >= _CHUNK:
                await run_in_threadpool(upload.write, bytes(buffer))
                buffer.clear()
        await run_in_threadpool(upload.write, bytes(buffer))
        if upload.close() != oid or upload.size != size:
            raise bad_request("The upload's digest or size is not the one in its URL")
        hub.store.bytes.keep(repo.id, upload, oid)
    finally:
        upload.discard()
    return Response(headers={"ETag": f'"{oid[:32]}"'})


async def _verify(request: Request) -> Response:
    _, repo = writable(request, "Authorization error.")
    body = await json_object(request)
    oid, size = body.get("oid"), body.get("size")
    if (
        not isinstance(oid, str)
        or not isinstance(size, int)
        or not state(request).store.bytes.has_object(repo.id, oid, size)
    ):
        raise HubError(404, "Object not found")
    return JSONResponse({"message": "ok"})


async def _resolve(request: Request) -> Response:
    hub = state(request)
    repo = opened(request)
    commit = commit_of(request, repo)
    file = hub.store.files(repo, commit.oid).get(request.path_params["path"])
    if file is None:
        raise entry_not_found()
    headers = {"X-Repo-Commit": commit.oid, "Accept-Ranges": "bytes"}
    if file.sha256 is None:
        headers["ETag"] = f'"{file.oid}"'
        return FileResponse(
            hub.store.bytes.content(repo.id, file), headers=headers, filename=file.path.split("/")[-1]
        )
    other = request.url.replace(hostname="localhost" if request.url.hostname == "127.0.0.1" else "127.0.0.1")
    signature = _signature(hub, "get", repo, file.sha256, file.size)
    query = f"repo={repo.id}&size={file.size}&sig={signature}"
    headers |= {
        "X-Linked-Size": str(file.size),
        "X-Linked-ETag": f'"{file.sha256}"',
        "Location": str(other.replace(path=f"/_lfs/get/{file.sha256}", query=query)),
    }
    return Response(status_code=302, headers=headers)


async def _get(request: Request) -> Response:
    repo, oid, _ = _signed(request, "get")
    return FileResponse(
        state(request).store.bytes.object(repo.id, oid),
        headers={"ETag": f'"{oid}"'},
        media_type="application/octet-stream",
    )


async def _lfs_files(request: Request) -> Response:
    """List the LFS objects of a repo, also those that no commit has."""
    hub = state(request)
    _, repo = writable(request)
    names = {file.sha256: file.path for file in hub.store.files(repo, hub.store.head(repo).oid).values()}
    found = [
        {
            "fileOid": path.name,
            "oid": path.name,
            "filename": names.get(path.name, ""),
            "pushedAt": repo.created_at,
            "ref": "main" if path.name in names else None,
            "size": path.stat().st_size,
        }
        for path in hub.store.bytes.objects(repo.id)
    ]
    chosen, headers = page(request, found)
    return JSONResponse(chosen, headers=headers)


async def _delete_lfs_files(request: Request) -> Response:
    _, repo = writable(request)
    deletions = (await json_object(request)).get("deletions")
    shas = deletions.get("sha") if isinstance(deletions, dict) else None
    if not isinstance(shas, list) or len(shas) > 1000 or not all(map(_is_sha256, shas)):
        raise bad_request('"deletions.sha" must be at most 1000 oids')
    assert isinstance(deletions, dict)
    state(request).store.delete_objects(repo, shas, rewrite=bool(deletions.get("rewriteHistory")))
    return JSONResponse({})


def _is_sha256(text: object) -> bool:
    return isinstance(text, str) and re.fullmatch("[0-9a-f]{64}", text) is not None


def _signature(hub: State, method: str, repo: Repo, oid: str, size: int) -> str:
    return hmac.new(hub.secret, f"{method}:{repo.id}:{oid}:{size}".encode(), hashlib.sha256).hexdigest()[:32]


def _signed(request: Request, method: str) -> tuple[Repo, str, int]:
    """Return the repo, oid and size in a signed URL. The signature is the only permission that is checked."""
    hub = state(request)
    oid, query = request.path_params["oid"], request.query_params
    repo = hub.store.repo_by_id(query.get("repo", ""))
    if repo is not None and query.get("size", "").isdecimal():
        size = int(query["size"])
        if hmac.compare_digest(
            _signature(hub, method, repo, oid, size).encode(), query.get("sig", "").encode()
        ):
            return repo, oid, size
    raise HubError(403, "The signature does not match")


ROUTES = [
    Route("/_lfs/put/{oid}", _put, methods=["PUT"]),
    Route("/_lfs/get/{oid}", _get),
    Route("/api/{kind}/{namespace}/{name}/lfs-files", _lfs_files),
    Route("/api/{kind}/{namespace}/{name}/lfs-files/batch", _delete_lfs_files, methods=["POST"]),
    *(
        route
        for repo in ("/{kind}/{namespace}/{name}", "/{namespace}/{name}")
        for route in (
            Route(repo + ".git/info/lfs/objects/batch", _batch, methods=["POST"]),
            Route(repo + ".git/info/lfs/objects/verify", _verify, methods=["POST"]),
            Route(repo + f"/resolve/{REVISION}/{{path:path}}", _resolve),
        )
    ),
]
