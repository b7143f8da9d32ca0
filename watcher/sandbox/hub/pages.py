"""The Hub's pages for a browser: a repo's card, files, commits, and one file; a job. Nothing of their looks is the Hub's.

A browser sends no token, so the pages show what the owner of the first token may read, as if signed in as that user. On the
Hub itself, somebody who is not gets "404" for a private repo.
"""

import mimetypes
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from html import escape
from urllib.parse import quote

from markdown_it import MarkdownIt
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import Route

from watcher.sandbox.hub.access import User
from watcher.sandbox.hub.card import body
from watcher.sandbox.hub.errors import HubError, entry_not_found
from watcher.sandbox.hub.git import File
from watcher.sandbox.hub.state import commit_of, find, repo_url, state
from watcher.sandbox.hub.store import Commit, Kind, Repo, Store

_TEXT_BYTES = 100_000
"""How much of a text file a page shows."""
# Scripts of a repo's files do not run, and their pictures come from this Hub alone.
_POLICY = {
    "content-security-policy": "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'; base-uri 'none'",
    "x-content-type-options": "nosniff",
}
_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { margin: 0 auto; max-width: 60rem; padding: 1rem }
header { display: flex; flex-wrap: wrap; gap: .25rem 1rem; justify-content: space-between; border-bottom: 1px solid #8888 }
h1 { font-size: 1.25rem; overflow-wrap: anywhere } nav { display: flex; gap: 1rem; padding: .75rem 0 }
nav [aria-current] { font-weight: bold } table { border-collapse: collapse; width: 100% }
td, th { border-bottom: 1px solid #8884; padding: .35rem .5rem; text-align: left; overflow-wrap: anywhere }
td:last-child { text-align: right; white-space: nowrap } pre { overflow: auto; padding: 1rem; background: #8882 }
img { max-width: 100% } .private { border: 1px solid; border-radius: 1rem; font-size: .8rem; padding: 0 .6rem }
.photos { display: grid; gap: .5rem; grid-template-columns: repeat(auto-fill, minmax(8rem, 1fr)) }
.photos img { aspect-ratio: 1; object-fit: cover; width: 100% }
"""


@dataclass(frozen=True)
class _Page:
    """A repo, as the user sees it at a commit."""

    request: Request
    user: User
    repo: Repo
    commit: Commit
    files: dict[str, File]

    @property
    def store(self) -> Store:
        return state(self.request).store

    def url(self, kind: str, path: str = "", commit: str | None = None) -> str:
        """Return the URL of one of the repo's pages."""
        revision = commit or self.request.path_params.get("revision", "main")
        below = f"/{quote(path)}" if path else ""
        return (
            f"{repo_url(self.request, self.repo)}/{kind}/{revision}{below}"
            if kind
            else repo_url(self.request, self.repo)
        )

    def text(self, path: str) -> str:
        """Return the beginning of a file."""
        with self.store.bytes.content(self.repo.id, self.files[path]).open("rb") as file:
            return file.read(_TEXT_BYTES).decode("utf-8", "replace")


Render = Callable[[_Page], Response]


def _endpoint(render: Render, kind: Kind) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        user = state(request).access.owner
        try:
            repo = find(request, user, kind, "{namespace}/{name}".format_map(request.path_params))
            commit = commit_of(request, repo)
            files = state(request).store.files(repo, commit.oid)
            return render(_Page(request, user, repo, commit, files))
        except HubError as error:
            return _html(user, "404", f"<p>{escape(str(error))}.</p>", status=404)

    return answer


async def _home(request: Request) -> Response:
    hub = state(request)
    user = hub.access.owner
    repos = [repo for kind in ("models", "datasets") for repo in hub.store.repos(kind) if user.may_read(repo)]
    links = [
        f'<li><a href="{escape(repo_url(request, repo))}">{escape(repo.name)}</a></li>' for repo in repos
    ]
    return _html(user, "Repos", f"<ul>{''.join(links)}</ul>" if links else "<p>There is no repo yet.</p>")


async def _job(request: Request) -> Response:
    """Show a job's stage and log."""
    hub = state(request)
    user, namespace = hub.access.owner, request.path_params["namespace"]
    try:
        job = hub.jobs.find(request.path_params["job"])
    except LookupError:
        job = None
    if job is None or job.namespace != namespace or not user.may_see_jobs(namespace):
        return _html(user, "404", "<p>Job not found.</p>", status=404)
    log = "\n".join(f"{time} {line}" for time, line in list(job.logs))
    head = (
        f"<p>{job.stage} {escape(job.message or '')}<br>{escape(job.spec.flavor)}, made {job.created_at}</p>"
    )
    return _html(user, f"Job {job.id}", f"{head}<pre>{escape(log)}</pre>")


def _card(page: _Page) -> Response:
    """Show the model card and the pictures."""
    card = "<p>This repo has no card yet.</p>"
    if "README.md" in page.files:
        card = MarkdownIt("commonmark", {"html": False}).enable("table").render(body(page.text("README.md")))
    photos = [
        f'<a href="{escape(page.url("blob", path))}"><img src="{escape(page.url("raw", path))}" alt="{escape(path)}"'
        ' loading="lazy"></a>'
        for path in page.files
        if _is_picture(path)
    ]
    return _repo_page(page, "", f'{card}<div class="photos">{"".join(photos)}</div>')


def _tree(page: _Page) -> Response:
    """List the files of a commit; a folder in the path lists those in it."""
    folder = page.request.path_params.get("path", "").strip("/")
    files = [one for path, one in page.files.items() if not folder or path.startswith(f"{folder}/")]
    if folder and not files:
        raise entry_not_found()
    return _repo_page(page, "tree", _file_table(page, files))


def _commit(page: _Page) -> Response:
    """Show a commit: its message, and the files as they were then."""
    commit = page.commit
    changed = [one for one in page.files.values() if one.last_commit == commit.oid]
    message = f"<pre>{escape(commit.message)}</pre>" if commit.message else ""
    head = f"<h2>{escape(commit.title)}</h2><p>{escape(commit.author)}, {escape(commit.date)}<br>{commit.oid}</p>"
    return _repo_page(page, "commits", f"{head}{message}{_file_table(page, changed)}")


def _commits(page: _Page) -> Response:
    rows = [
        f'<tr><td><a href="{escape(page.url("commit", commit=one.oid))}">{escape(one.title)}</a></td>'
        f"<td>{escape(one.author)}</td><td>{escape(one.date)}</td></tr>"
        for one in page.store.commits(page.repo)
    ]
    head = "<tr><th>Commit</th><th>Author</th><th>Date</th></tr>"
    return _repo_page(page, "commits", f"<table>{head}{''.join(rows)}</table>")


def _blob(page: _Page) -> Response:
    path = page.request.path_params["path"]
    if path not in page.files:
        raise entry_not_found()
    raw = escape(page.url("raw", path))
    shown = f"<pre>{escape(page.text(path))}</pre>"
    if _is_picture(path):
        shown = f'<img src="{raw}" alt="{escape(path)}">'
    return _repo_page(page, "tree", f'<h2>{escape(path)}</h2>{shown}<p><a href="{raw}">Only the file</a></p>')


def _raw(page: _Page) -> Response:
    path = page.request.path_params["path"]
    if path not in page.files:
        raise entry_not_found()
    media_type = mimetypes.guess_type(path)[0] if _is_picture(path) else "text/plain; charset=utf-8"
    content = page.store.bytes.content(page.repo.id, page.files[path])
    return FileResponse(content, media_type=media_type, headers=_POLICY)


def _file_table(page: _Page, files: list[File]) -> str:
    rows = [
        f'<tr><td><a href="{escape(page.url("blob", one.path))}">{escape(one.path)}</a></td>'
        f"<td>{'LFS' if one.sha256 else ''}</td><td>{one.size:,} bytes</td></tr>"
        for one in files
    ]
    return f"<table><tr><th>File</th><th></th><th>Size</th></tr>{''.join(rows)}</table>"


def _repo_page(page: _Page, current: str, content: str) -> Response:
    tabs = [("", "Card", page.url("")), ("tree", "Files", page.url("tree", commit="main"))]
    tabs.append(("commits", "Commits", page.url("commits", commit="main")))
    links = [
        f'<a href="{escape(url)}"{" aria-current=page" if kind == current else ""}>{name}</a>'
        for kind, name, url in tabs
    ]
    private = ' <span class="private">private</span>' if page.repo.private else ""
    return _html(page.user, page.repo.name, f"<nav>{''.join(links)}</nav>{content}", beside=private)


def _html(user: User, title: str, content: str, *, beside: str = "", status: int = 200) -> Response:
    shown = f"<h1>{escape(title)}{beside}</h1><p>Signed in as {escape(user.name)} · <a href='/'>The sandbox's Hub</a></p>"
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    page = (
        f"<title>{escape(title)}</title><style>{_STYLE}</style><header>{shown}</header><main>{content}</main>"
    )
    return HTMLResponse(f'<!doctype html><html lang="en">{head}{page}</html>', status, _POLICY)


def _is_picture(path: str) -> bool:
    return path.lower().endswith((".jpg", ".jpeg", ".png"))


_KINDS: tuple[tuple[str, Kind], ...] = (("/datasets", "datasets"), ("", "models"))
ROUTES = [
    Route("/", _home),
    Route("/jobs/{namespace}/{job}", _job),
    *(
        Route(f"{prefix}/{{namespace}}/{{name}}{tail}", _endpoint(render, kind))
        for prefix, kind in _KINDS
        for tail, render in (
            ("", _card),
            ("/tree/{revision}", _tree),
            ("/tree/{revision}/{path:path}", _tree),
            ("/commits/{revision}", _commits),
            ("/commit/{revision}", _commit),
            ("/blob/{revision}/{path:path}", _blob),
            ("/raw/{revision}/{path:path}", _raw),
        )
    ),
]
