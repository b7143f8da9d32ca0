"""The Hub's routes to change a repo: preupload, which decides how each file is uploaded, and commit."""

import base64
import binascii
import codecs
import json
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any

from pathspec import GitIgnoreSpec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from watcher.sandbox.absent import STATUS, not_imitated
from watcher.sandbox.hub.card import validate
from watcher.sandbox.hub.errors import HubError, bad_request, json_object
from watcher.sandbox.hub.git import (
    REGULAR_LIMIT,
    File,
    attribute_line,
    blob_oid,
    is_lfs,
    pointer,
)
from watcher.sandbox.hub.state import State, only_main, repo_url, state, writable
from watcher.sandbox.hub.store import NotATreeError, Repo, StaleParentError

_ATTRIBUTES, _IGNORE = ".gitattributes", ".gitignore"
_STALE = "The branch was updated since you opened this page. Please refresh and try again."


@dataclass
class _Draft:
    """A commit that is being read."""

    header: dict[str, Any] = field(default_factory=dict)
    additions: dict[str, File] = field(default_factory=dict)
    deletions: list[str] = field(default_factory=list)


async def _preupload(request: Request) -> Response:
    _, repo = writable(request)
    only_main(request)
    hub = state(request)
    head = hub.store.head(repo)
    files = hub.store.files(repo, head.oid)
    attributes = _text(hub, repo, files, _ATTRIBUTES)
    body = await json_object(request)
    ignored = GitIgnoreSpec.from_lines(
        str(body.get("gitIgnore") or _text(hub, repo, files, _IGNORE)).splitlines()
    )
    answers = []
    for asked in body.get("files", []):
        try:
            path, size = str(asked["path"]), int(asked["size"])
            sample = base64.b64decode(asked["sample"])
        except (KeyError, TypeError, ValueError) as error:
            raise bad_request("Each file needs a path, a sample in base64 and a size") from error
        _path(path)
        large = size > REGULAR_LIMIT or is_lfs(attributes, path)
        binary = _is_binary(sample) and hub.knobs.image_mode == "lfs"
        file = files.get(path)
        answers.append(
            {
                "path": path,
                "uploadMode": "lfs" if size and (large or binary) else "regular",
                "shouldIgnore": ignored.match_file(path),
                "oid": (file.sha256 or file.oid) if file else None,
            }
        )
    return JSONResponse({"files": answers, "commitOid": head.oid})


async def _commit(request: Request) -> Response:
    user, repo = writable(request)
    only_main(request)
    hub = state(request)
    hub.knobs.take_action("commit")
    draft = _Draft()
    async for line in _lines(request):
        await run_in_threadpool(_read, hub, repo, draft, line)
    title = draft.header.get("summary")
    if not isinstance(title, str) or not title:
        raise bad_request('"value.summary" is required')
    _check(hub, repo, draft.additions.values())
    async with hub.committing:
        _track_lfs_files(hub, repo, draft)
        try:
            commit = await run_in_threadpool(
                hub.store.commit,
                repo,
                list(draft.additions.values()),
                draft.deletions,
                title=title,
                message=str(draft.header.get("description") or ""),
                author=user.name,
                parent=draft.header.get("parentCommit"),
            )
        except NotATreeError as error:
            raise bad_request(f"Invalid path: {error} would be both a file and a folder") from error
        except StaleParentError as error:
            raise HubError(412, _STALE) from error
    return JSONResponse(
        {
            "success": True,
            "commitOid": commit.oid,
            "commitUrl": f"{repo_url(request, repo)}/commit/{commit.oid}",
            "hookOutput": "",
        }
    )


async def _lines(request: Request) -> AsyncIterator[bytes]:
    """Yield the body line by line, so that no more than one file is in memory at a time."""
    rest = bytearray()
    async for chunk in request.stream():
        start = len(rest)
        rest += chunk
        while (end := rest.find(b"\n", start)) >= 0:
            line = bytes(rest[:end])
            del rest[: end + 1]
            start = 0
            if line:
                yield line
    if rest:
        yield bytes(rest)


def _read(hub: State, repo: Repo, draft: _Draft, line: bytes) -> None:
    """Add one line of a commit to the draft."""
    try:
        entry = json.loads(line)
        key, value = entry["key"], entry["value"]
        if key == "header":
            draft.header = dict(value)
        elif key == "file":
            path = _path(value["path"])
            content = value["content"]
            plain = value.get("encoding", "utf-8") != "base64"
            draft.additions[path] = hub.store.bytes.put_blob(
                repo.id, path, content.encode() if plain else base64.b64decode(content, validate=True)
            )
        elif key == "lfsFile":
            path, sha256 = _path(value["path"]), str(value["oid"])
            # A copy within the repo does not say the size.
            size = int(value.get("size", hub.store.bytes.object_size(repo.id, sha256)))
            draft.additions[path] = File(path, blob_oid(pointer(sha256, size)), size, sha256)
        elif key in {"deletedFile", "deletedFolder"}:
            draft.deletions.append(_path(value["path"].rstrip("/")))
        else:
            raise HubError(STATUS, not_imitated(f"{key!r} in a commit"))
    except (KeyError, TypeError, AttributeError, ValueError, binascii.Error) as error:
        raise bad_request(f"Invalid line in the commit: {error}") from error


def _path(path: object) -> str:
    parts = path.split("/") if isinstance(path, str) else [""]
    if parts[0].startswith("..\\"):  # further inside a path, a backslash is a character as any other
        raise HubError(422, f"Invalid path: {path}")
    if not all(parts) or {".", "..", ".git"} & set(parts):
        raise bad_request(f"Invalid path: {path}")
    return "/".join(parts)


def _check(hub: State, repo: Repo, additions: Iterable[File]) -> None:
    """Refuse what the Hub's Git hooks refuse."""
    missing = [f for f in additions if f.sha256 and not hub.store.bytes.has_object(repo.id, f.sha256, f.size)]
    if missing:
        raise bad_request(
            "Your push was rejected because an LFS pointer pointed to a file that does not exist. For "
            "instance, this can occur if you used git push --no-verify to push your changes. Offending "
            "file: - " + missing[0].path
        )
    large = [f for f in additions if not f.sha256 and f.size > REGULAR_LIMIT]
    if large:
        raise bad_request(
            "Your push was rejected because it contains files larger than 10 MiB. Please use "
            "https://git-lfs.github.com/ to store large files. Offending files: - " + large[0].path
        )
    for file in additions:
        if file.path == "README.md" and not file.sha256:
            errors, _ = validate(hub.store.bytes.content(repo.id, file).read_text("utf-8", "replace"))
            if errors:
                raise bad_request(
                    "Invalid metadata in README.md.\n" + "\n".join(f"- {one}" for one in errors)
                )


def _track_lfs_files(hub: State, repo: Repo, draft: _Draft) -> None:
    """Add each LFS file without a matching pattern to .gitattributes, in the same commit."""
    files = hub.store.files(repo, hub.store.head(repo).oid) | draft.additions
    if _ATTRIBUTES in draft.deletions and _ATTRIBUTES not in draft.additions:
        del files[_ATTRIBUTES]
    attributes = before = _text(hub, repo, files, _ATTRIBUTES)
    always = hub.knobs.take("edit_attributes")
    for file in draft.additions.values():
        if file.sha256 and (always or not is_lfs(attributes, file.path)):
            attributes += ("" if attributes.endswith("\n") or not attributes else "\n") + attribute_line(
                file.path
            )
    if attributes != before:
        draft.additions[_ATTRIBUTES] = hub.store.bytes.put_blob(repo.id, _ATTRIBUTES, attributes.encode())


def _text(hub: State, repo: Repo, files: dict[str, File], path: str) -> str:
    """Return the content of a small file; nothing if there is none."""
    return (
        hub.store.bytes.content(repo.id, files[path]).read_text("utf-8", "replace") if path in files else ""
    )


def _is_binary(sample: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample)  # it may end within a character
    except UnicodeDecodeError:
        return True
    return b"\0" in sample


ROUTES = [
    Route("/api/{kind}/{namespace}/{name}/preupload/{revision:path}", _preupload, methods=["POST"]),
    Route("/api/{kind}/{namespace}/{name}/commit/{revision:path}", _commit, methods=["POST"]),
]
