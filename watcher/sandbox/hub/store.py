"""The Hub's repos, commits and files, on disk; they survive a restart. For one process at a time.

SQLite has the metadata, `Bytes` the contents. Every method is short and can be called from any thread.
"""

import contextlib
import hashlib
import secrets
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from watcher.sandbox.hub.bytes import Bytes, RepoGoneError
from watcher.sandbox.hub.git import File, commit_oid, tree_oids

Kind = Literal["models", "datasets"]

_SCHEMA = """
create table if not exists settings (name text primary key, value text not null);
create table if not exists repos (
    id text primary key, kind text not null, name text not null collate nocase, private integer not null,
    created_at text not null, unique (kind, name)
);
create table if not exists commits (
    repo text not null references repos on delete cascade, number integer not null, oid text not null,
    title text not null, message text not null, author text not null, date text not null,
    primary key (repo, number), unique (repo, oid)
);
create table if not exists files (
    repo text not null references repos on delete cascade, "commit" text not null, path text not null,
    oid text not null, size integer not null, sha256 text, last_commit text not null,
    primary key (repo, "commit", path)
);
"""
_REPO = "select id, kind, name, private, created_at from repos"
_NOW = "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')"


@dataclass(frozen=True, slots=True)
class Repo:
    """A repo."""

    id: str
    kind: Kind
    name: str
    """`namespace/name`"""
    private: bool
    created_at: str

    @property
    def namespace(self) -> str:
        """The user or organisation that owns it."""
        return self.name.partition("/")[0]


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit."""

    oid: str
    title: str
    message: str
    author: str
    date: str


class RepoExistsError(Exception):
    """There is a repo of that name already."""


class StaleParentError(Exception):
    """The parent commit is not the head of the branch."""


class NotATreeError(Exception):
    """A path, which is the message, would be both a file and a folder."""


class Store:
    """All repos under one folder."""

    def __init__(self, folder: Path) -> None:
        self.bytes = Bytes(folder)
        self._lock = threading.RLock()
        self._db = sqlite3.connect(folder / "hub.sqlite", check_same_thread=False, isolation_level=None)
        self._db.executescript(
            f"pragma journal_mode = wal; pragma synchronous = off; pragma foreign_keys = on; {_SCHEMA}"
        )

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._db.close()

    def secret(self) -> bytes:
        """Return this Hub's secret, which stays the same after a restart."""
        with self._transaction():
            self._db.execute("insert or ignore into settings values ('secret', ?)", [secrets.token_hex(32)])
            row = self._db.execute("select value from settings where name = 'secret'").fetchone()
        return bytes.fromhex(row[0])

    def now(self) -> str:
        """Return the time, as the Hub writes it."""
        return str(self._rows(f"select {_NOW}")[0][0])

    # Repos

    def create(self, kind: Kind, name: str, author: str, files: dict[str, bytes], *, private: bool) -> Repo:
        """Create a repo with its initial commit, and return it; raises RepoExistsError."""
        identifier = secrets.token_hex(12)
        with self._transaction():
            if self.repo(kind, name) is not None:
                raise RepoExistsError
            self._db.execute(
                f"insert into repos values (?, ?, ?, ?, {_NOW})",  # noqa: S608 - a constant
                [identifier, kind, name, private],
            )
            repo = self.repo(kind, name)
            assert repo is not None
            self.bytes.make_folders(identifier)
            initial = [self.bytes.put_blob(identifier, path, content) for path, content in files.items()]
            self.commit(repo, initial, [], title="initial commit", message="", author=author, parent=None)
        return repo

    def repo(self, kind: Kind, name: str) -> Repo | None:
        """Return the repo of that name, in whichever case, or None."""
        found = self._rows(f"{_REPO} where kind = ? and name = ?", kind, name)
        return _repo(found[0]) if found else None

    def repo_by_id(self, identifier: str) -> Repo | None:
        """Return the repo with that id, or None."""
        found = self._rows(f"{_REPO} where id = ?", identifier)
        return _repo(found[0]) if found else None

    def repos(self, kind: Kind) -> list[Repo]:
        """Return all repos of a kind, newest first."""
        query = f"{_REPO} where kind = ? order by created_at desc, rowid desc"
        return [_repo(row) for row in self._rows(query, kind)]

    def set_private(self, repo: Repo, *, private: bool) -> None:
        """Make a repo private or public."""
        with self._transaction():
            self._db.execute("update repos set private = ? where id = ?", [private, repo.id])

    def delete(self, repo: Repo) -> None:
        """Delete a repo and its bytes."""
        with self._transaction():
            self._db.execute("delete from repos where id = ?", [repo.id])
        self.bytes.delete(repo.id)

    # Commits

    def head(self, repo: Repo) -> Commit:
        """Return the newest commit."""
        return self.commits(repo, limit=1)[0]

    def commits(self, repo: Repo, *, limit: int = -1, offset: int = 0) -> list[Commit]:
        """Return the commits, newest first; -1 is no limit."""
        query = (
            "select oid, title, message, author, date from commits where repo = ? "
            "order by number desc limit ? offset ?"
        )
        return [Commit(*row) for row in self._rows(query, repo.id, limit, offset)]

    def find_commit(self, repo: Repo, revision: str) -> Commit | None:
        """Return the commit of a revision: `main`, its ref, or a full oid; or None."""
        if revision in {"main", "refs/heads/main"}:
            return self.head(repo)
        query = "select oid, title, message, author, date from commits where repo = ? and oid = ?"
        found = self._rows(query, repo.id, revision)
        return Commit(*found[0]) if found else None

    def files(self, repo: Repo, commit: str) -> dict[str, File]:
        """Return the files of a commit by path, in git's order."""
        query = """
            select path, oid, size, sha256, last_commit from files
            where repo = ? and "commit" = ? order by path
        """
        return {row[0]: File(*row) for row in self._rows(query, repo.id, commit)}

    def commit(
        self,
        repo: Repo,
        additions: Iterable[File],
        deletions: Iterable[str],
        *,
        title: str,
        message: str,
        author: str,
        parent: str | None,
    ) -> Commit:
        """Add a commit and return it; deletions can be folders.

        `parent`, if given, can be the beginning of an oid. Raises StaleParentError if it is not the head's, and
        RepoGoneError if the repo was deleted in the meantime, NotATreeError if a file would be a folder, too.
        """
        with self._transaction():
            if self.repo_by_id(repo.id) is None:
                raise RepoGoneError
            before = self.commits(repo, limit=1)
            head = before[0].oid if before else None
            if parent is not None and (head is None or not head.startswith(parent)):
                raise StaleParentError
            files = self.files(repo, head) if head else {}
            for deleted in deletions:
                for path in [
                    path for path in files if path == deleted or path.startswith(f"{deleted.rstrip('/')}/")
                ]:
                    del files[path]
            for file in additions:
                existing = files.get(file.path)
                if existing is None or existing.oid != file.oid:
                    files[file.path] = file
            for path in files:
                if above := next((one for one in _folders(path) if one in files), None):
                    raise NotATreeError(above)
            date, when = self._rows(f"select {_NOW}, unixepoch()")[0]
            oid = commit_oid(
                tree=tree_oids(files.values())[""],
                parent=head,
                author=author,
                when=when,
                message=f"{title}\n\n{message}" if message else title,
            )
            number = self._rows("select count(*) from commits where repo = ?", repo.id)[0][0]
            self._db.execute(
                "insert into commits values (?, ?, ?, ?, ?, ?, ?)",
                [repo.id, number, oid, title, message, author, date],
            )
            self._db.executemany(
                "insert into files values (?, ?, ?, ?, ?, ?, ?)",
                [
                    (repo.id, oid, f.path, f.oid, f.size, f.sha256, f.last_commit or oid)
                    for f in files.values()
                ],
            )
        return Commit(oid, title, message, author, date)

    def delete_objects(self, repo: Repo, shas: Iterable[str], *, rewrite: bool) -> None:
        """Delete LFS objects; with `rewrite`, also the files that point to them, in all commits, which get new oids."""
        wanted = list(shas)
        with self._transaction():
            for sha256 in wanted:
                self.bytes.object(repo.id, sha256).unlink(missing_ok=True)
                if rewrite:
                    self._db.execute("delete from files where repo = ? and sha256 = ?", [repo.id, sha256])
            for commit in self.commits(repo) if rewrite and wanted else ():
                new = hashlib.sha1(f"rewritten {commit.oid}".encode(), usedforsecurity=False).hexdigest()
                self._db.execute(
                    "update commits set oid = ? where repo = ? and oid = ?", [new, repo.id, commit.oid]
                )
                self._db.execute(
                    'update files set "commit" = ? where repo = ? and "commit" = ?',
                    [new, repo.id, commit.oid],
                )

    def _rows(self, query: str, *parameters: Any) -> list[Any]:
        with self._lock:
            return self._db.execute(query, parameters).fetchall()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            if self._db.in_transaction:  # part of an outer one
                yield
                return
            self._db.execute("begin immediate")
            try:
                yield
            except BaseException:
                self._db.execute("rollback")
                raise
            self._db.execute("commit")


def _folders(path: str) -> Iterator[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def _repo(row: tuple[Any, ...]) -> Repo:
    return Repo(row[0], row[1], row[2], bool(row[3]), row[4])
