"""The Hub's routes for repos: create, read, list, change settings, delete; and for tokens."""

import re
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from watcher.sandbox.absent import STATUS, Absent
from watcher.sandbox.hub import search
from watcher.sandbox.hub.access import User, whoami
from watcher.sandbox.hub.card import metadata, validate
from watcher.sandbox.hub.errors import HubError, bad_request, json_object
from watcher.sandbox.hub.git import DEFAULT_ATTRIBUTES, File
from watcher.sandbox.hub.state import commit_of, find, opened, page, readable, repo_url, state, writable
from watcher.sandbox.hub.store import Commit, Kind, Repo, RepoExistsError

_NAME = re.compile(r"(?!.*(--|\.\.|\.git$))(?![-.])[A-Za-z0-9._-]{1,96}(?<![-.])")


async def _whoami(request: Request) -> Response:
    user = state(request).access.user(request)
    if user is None:
        raise HubError(401, "Invalid username or password.")
    return JSONResponse(whoami(user))


async def _create(request: Request) -> Response:
    hub = state(request)
    user, kind, name, body = await _repo_in_body(request)
    if not user.may_write(name.partition("/")[0]):
        raise HubError(403, f"You don't have the rights to create a {kind[:-1]} under this namespace")
    hub.knobs.take_action("create")
    if hub.knobs.take("conflict"):
        raise HubError(409, "Cannot create repo: another conflicting operation is in progress")
    try:
        repo = hub.store.create(
            kind,
            name,
            user.name,
            {".gitattributes": DEFAULT_ATTRIBUTES.encode()},
            private=bool(_private(body)),
        )
    except RepoExistsError as error:
        existing = hub.store.repo(kind, name)
        fields = {"url": repo_url(request, existing)} if existing and not hub.knobs.take("omit_url") else {}
        raise HubError(409, f"You already created this {kind[:-1]} repo", fields=fields) from error
    hub.knobs.created(repo.id)
    return JSONResponse({"url": repo_url(request, repo), "name": repo.name, "id": repo.id})


async def _delete(request: Request) -> Response:
    user, kind, name, _ = await _repo_in_body(request)
    repo = find(request, user, kind, name)
    if not user.may_write(repo.namespace):
        raise HubError(403, f"You don't have the rights to delete this {kind[:-1]}")
    state(request).store.delete(repo)
    return JSONResponse({})


async def _repo_in_body(request: Request) -> tuple[User, Kind, str, dict[str, Any]]:
    """Return the caller, the kind and full name of the repo in the body, and the body."""
    user = state(request).access.user(request)
    if user is None:
        raise HubError(401, "Invalid username or password.")
    body = await json_object(request)
    kinds: dict[object, Kind] = {"model": "models", "dataset": "datasets"}
    kind = kinds.get(body.get("type", "model"))
    if kind is None:
        raise HubError(STATUS, Absent.HUB_KINDS.sentence)
    name = body.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise bad_request(f"Invalid repo name: {name}")
    return user, kind, f"{body.get('organization') or user.name}/{name}", body


def _private(body: dict[str, Any]) -> bool | None:
    """Return whether the body asks for a private repo (older clients send `private`); None if it does not say."""
    if "visibility" in body:
        if body["visibility"] not in {"private", "public"}:
            raise bad_request('"visibility" must be one of [private, public]')
        return bool(body["visibility"] == "private")
    if "private" in body:
        return bool(body["private"])
    return None


async def _settings(request: Request) -> Response:
    _, repo = writable(request)
    body = await json_object(request)
    if body.get("gated"):
        raise HubError(STATUS, Absent.HUB_GATED.sentence)
    if body.keys() - {"gated", "private", "visibility"}:
        raise HubError(STATUS, Absent.HUB_SETTINGS.sentence)
    private = _private(body)
    if private is not None:
        state(request).store.set_private(repo, private=private)
    return JSONResponse({})


async def _info(request: Request) -> Response:
    repo = readable(request)
    query = request.query_params
    if _true(query.get("securityStatus")):
        raise HubError(STATUS, Absent.HUB_SECURITY.sentence)
    shown = _repo_json(request, repo, commit_of(request, repo), blobs=_true(query.get("blobs")))
    wanted = search.expand(query)
    return JSONResponse(search.expanded(shown, repo.kind, wanted) if wanted else shown)


async def _list(request: Request) -> Response:
    hub = state(request)
    user = hub.access.user(request)
    kind: Kind = "datasets" if request.url.path == "/api/datasets" else "models"
    visible = (repo for repo in hub.store.repos(kind) if not repo.private or (user and user.may_read(repo)))
    shown = (_repo_json(request, repo, hub.store.head(repo)) for repo in visible)
    chosen, headers = page(request, search.chosen(shown, request.query_params))
    if wanted := search.expand(request.query_params):
        chosen = [search.expanded(repo, kind, wanted) for repo in chosen]
    return JSONResponse(chosen, headers=headers)


def _repo_json(request: Request, repo: Repo, commit: Commit, *, blobs: bool = False) -> dict[str, Any]:
    store = state(request).store
    files = store.files(repo, commit.oid)
    card: dict[str, Any] = {}
    if "README.md" in files:
        card = metadata(store.bytes.content(repo.id, files["README.md"]).read_text("utf-8", "replace"))
    tags = card.get("tags", [])
    shown: dict[str, Any] = {
        "_id": repo.id,
        "id": repo.name,
        **({"modelId": repo.name} if repo.kind == "models" else {}),
        "author": repo.namespace,
        "sha": commit.oid,
        "lastModified": commit.date,
        "private": repo.private,
        "gated": "auto" if state(request).access.is_gated(repo.name) else False,
        "disabled": False,
        "tags": [str(tag) for tag in tags] if isinstance(tags, list) else [],
        "downloads": 0,
        "likes": 0,
        "createdAt": repo.created_at,
        "siblings": [_file_json(file, blobs=blobs) for file in files.values()],
        "usedStorage": store.bytes.used(repo.id),
    }
    if card:
        # JSON has no dates, which a card may have.
        shown["cardData"] = {
            str(name): value if isinstance(value, str | list | dict | int) else str(value)
            for name, value in card.items()
        }
        shown |= {name: card[name] for name in ("library_name", "pipeline_tag") if name in card}
    return shown


def _file_json(file: File, *, blobs: bool) -> dict[str, Any]:
    shown: dict[str, Any] = {"rfilename": file.path}
    if blobs:
        shown |= {"blobId": file.oid, "size": file.size}
        if file.sha256 is not None:
            shown["lfs"] = {"sha256": file.sha256, "size": file.size, "pointerSize": file.pointer_size}
    return shown


async def _refs(request: Request) -> Response:
    repo = readable(request)
    head = state(request).store.head(repo)
    main = {"name": "main", "ref": "refs/heads/main", "targetCommit": head.oid}
    asked = _true(request.query_params.get("include_prs"))
    return JSONResponse(
        {"branches": [main], "converts": [], "tags": [], **({"pullRequests": []} if asked else {})}
    )


async def _auth_check(request: Request) -> Response:
    opened(request)
    return JSONResponse({})


async def _auth_check_write(request: Request) -> Response:
    writable(request, "Access denied: you do not have write access to this repository")
    return JSONResponse({})


async def _validate_yaml(request: Request) -> Response:
    content = (await json_object(request)).get("content")
    if not isinstance(content, str):
        raise bad_request('"content" must be a string')
    errors, warnings = validate(content)
    report = {
        "errors": [{"message": error} for error in errors],
        "warnings": [{"message": warning} for warning in warnings],
    }
    if errors:
        raise HubError(400, "\n".join(errors), fields=report)
    return JSONResponse(report)


def _true(text: str | None) -> bool:
    return (text or "").lower() in {"1", "true"}


async def _agent_harnesses(_: Request) -> Response:
    return JSONResponse({"standardEnvVars": [], "harnesses": {}})


ROUTES = [
    Route("/api/whoami-v2", _whoami),
    Route("/api/agent-harnesses", _agent_harnesses),
    Route("/api/validate-yaml", _validate_yaml, methods=["POST"]),
    Route("/api/repos/create", _create, methods=["POST"]),
    Route("/api/repos/delete", _delete, methods=["DELETE"]),
    Route("/api/models", _list),
    Route("/api/datasets", _list),
    Route("/api/{kind}/{namespace}/{name}", _info),
    Route("/api/{kind}/{namespace}/{name}/revision/{revision:path}", _info),
    Route("/api/{kind}/{namespace}/{name}/settings", _settings, methods=["PUT"]),
    Route("/api/{kind}/{namespace}/{name}/refs", _refs),
    Route("/api/{kind}/{namespace}/{name}/auth-check", _auth_check),
    Route("/api/{kind}/{namespace}/{name}/auth-check/write", _auth_check_write),
]
