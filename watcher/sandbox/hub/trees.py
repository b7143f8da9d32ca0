"""The Hub's routes to read a repo: its commits, its trees, and information about paths."""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from watcher.sandbox.hub.errors import entry_not_found, json_object
from watcher.sandbox.hub.git import tree_oids
from watcher.sandbox.hub.paths import REVISION
from watcher.sandbox.hub.state import State, commit_of, page, readable, state
from watcher.sandbox.hub.store import Commit, Repo


async def _commits(request: Request) -> Response:
    repo = readable(request)
    store = state(request).store
    newest = commit_of(request, repo)
    commits = store.commits(repo)
    chosen, headers = page(request, commits[commits.index(newest) :])
    return JSONResponse(
        [
            {
                "id": commit.oid,
                "title": commit.title,
                "message": commit.message,
                "authors": [{"user": commit.author}],
                "date": commit.date,
            }
            for commit in chosen
        ],
        headers=headers,
    )


async def _tree(request: Request) -> Response:
    repo = readable(request)
    commit = commit_of(request, repo)
    folder = request.path_params.get("path", "").strip("/")
    recursive = request.query_params.get("recursive", "").lower() in {"1", "true"}
    expand = request.query_params.get("expand", "").lower() in {"1", "true"}
    entries = _entries(state(request), repo, commit, expand=expand)
    below = f"{folder}/" if folder else ""
    inside = [entry for path, entry in entries.items() if path.startswith(below) and path != folder]
    if folder and not inside:
        raise entry_not_found()
    if not recursive:
        inside = [entry for entry in inside if "/" not in entry["path"][len(below) :]]
    chosen, headers = page(request, inside)
    return JSONResponse(chosen, headers=headers)


async def _paths_info(request: Request) -> Response:
    repo = readable(request)
    commit = commit_of(request, repo)
    if request.headers.get("content-type", "").startswith("application/json"):
        body = await json_object(request)
        paths, expand = body.get("paths", []), bool(body.get("expand"))
    else:
        async with request.form() as form:
            paths, expand = form.getlist("paths"), form.get("expand") in {"true", "True", "1"}
    entries = _entries(state(request), repo, commit, expand=expand)
    asked = [str(path).strip("/") for path in ([paths] if isinstance(paths, str) else paths)]
    return JSONResponse([entries[path] for path in asked if path in entries])


def _entries(hub: State, repo: Repo, commit: Commit, *, expand: bool) -> dict[str, dict[str, Any]]:
    """Return the files and folders of a commit, sorted by path."""
    files = hub.store.files(repo, commit.oid)
    entries: dict[str, dict[str, Any]] = {
        path: {"type": "directory", "oid": oid, "size": 0, "path": path}
        for path, oid in tree_oids(files.values()).items()
        if path
    }
    for path, file in files.items():
        entries[path] = {"type": "file", "oid": file.oid, "size": file.size, "path": path}
        if file.sha256 is not None:
            entries[path]["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": file.pointer_size}
    if expand:
        commits = {one.oid: (-number, one) for number, one in enumerate(hub.store.commits(repo))}
        for path, entry in entries.items():
            inside = [f for f in files.values() if f.path == path or f.path.startswith(f"{path}/")]
            _, last = max((commits[file.last_commit] for file in inside), key=lambda one: one[0])
            entry["lastCommit"] = {"id": last.oid, "title": last.title, "date": last.date}
    return dict(sorted(entries.items()))


ROUTES = [
    Route("/api/{kind}/{namespace}/{name}/commits/{revision:path}", _commits),
    Route(f"/api/{{kind}}/{{namespace}}/{{name}}/tree/{REVISION}", _tree),
    Route(f"/api/{{kind}}/{{namespace}}/{{name}}/tree/{REVISION}/{{path:path}}", _tree),
    Route("/api/{kind}/{namespace}/{name}/paths-info/{revision:path}", _paths_info, methods=["POST"]),
]
