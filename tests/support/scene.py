"""A migrated project in its sandbox, and what a frontend, an operator and a stranger on the Hub do there."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID, uuid4

import httpx

from tests.support.database import Database
from tests.support.pictures import jpeg, png
from watcher.engine.attempt import Attempts
from watcher.identity import Claim, StoredObject
from watcher.sandbox import Postgres, Sandbox
from watcher.sandbox.faults.traffic import Seen
from watcher.sandbox.hub.store import Repo
from watcher.sandbox.realtime.timing import Timing
from watcher.supabase.verbs import Verbs

QUICK = Timing(cold=0.02, poll_idle=0.02, poll_unmatched=0.02, handshake_error=0.02, join_error=0.02)
PICTURES = (jpeg(1), png(2), jpeg(3))


@dataclass(frozen=True)
class Scene:
    """One project. Its sandbox is asked for faults, its database for the truth."""

    sandbox: Sandbox
    database: Database
    http: httpx.Client

    def put(self, pictures: Sequence[bytes | None] = PICTURES) -> tuple[UUID, list[str]]:
        """Sign somebody up and upload the pictures through Storage; for None there is only the row of the object."""
        user = self.database.user()
        paths = [f"{user}/set/photo {number}.jpg" for number in range(1, len(pictures) + 1)]
        self.database.store([path for path, picture in zip(paths, pictures, strict=True) if picture is None])
        for path, picture in zip(paths, pictures, strict=True):
            if picture is not None:
                self.upload(path, picture)
        return user, paths

    def upload(self, path: str, picture: bytes) -> None:
        kind = "image/png" if picture.startswith(b"\x89") else "image/jpeg"
        url = f"{self.sandbox.supabase_url}/storage/v1/object/identity-images/{path}"
        headers = {"apikey": self.sandbox.keys.secret, "content-type": kind}
        headers["authorization"] = f"Bearer {self.sandbox.keys.secret}"
        self.http.post(url, content=picture, headers=headers).raise_for_status()

    def objects(self, paths: Sequence[str]) -> tuple[StoredObject, ...]:
        """What the database says of these objects."""
        found = self.database.run(
            "select name, metadata, version from storage.objects", role="supabase_admin"
        )
        stored = {
            row["name"]: StoredObject(row["metadata"]["size"], row["metadata"]["eTag"], row["version"])
            for row in found
        }
        return tuple(stored[path] for path in paths)

    def read(self, path: str) -> bytes:
        """Download an object as the daemon does."""
        url = f"{self.sandbox.supabase_url}/storage/v1/object/authenticated/identity-images/{path}"
        headers = {"apikey": self.sandbox.keys.secret, "authorization": f"Bearer {self.sandbox.keys.secret}"}
        return self.http.get(url, headers=headers).raise_for_status().content

    def replace(self, path: str, picture: bytes) -> None:
        """Put another picture in the place of one."""
        self.remove(path)
        self.upload(path, picture)

    def remove(self, path: str) -> None:
        """Delete an object as its owner might, a moment too late."""
        url = f"{self.sandbox.supabase_url}/storage/v1/object/identity-images/{path}"
        headers = {"apikey": self.sandbox.keys.secret, "authorization": f"Bearer {self.sandbox.keys.secret}"}
        self.http.delete(url, headers=headers).raise_for_status()

    def insert(self, pictures: Sequence[bytes | None] = PICTURES, name: str = "Ada") -> UUID:
        """Insert a row whose pictures are uploaded."""
        user, paths = self.put(pictures)
        return self.database.insert(user, paths, name)

    def commits(self, repo: str) -> list[str]:
        """The titles of a repo's commits, the newest first."""
        found = self.sandbox.hub.store.repo("models", repo)
        return [commit.title for commit in self.sandbox.hub.store.commits(found)] if found else []

    def repos(self) -> list[str]:
        return [repo.name for repo in self.sandbox.hub.store.repos("models")]

    def repo(self, repo: str) -> Repo:
        found = self.sandbox.hub.store.repo("models", repo)
        assert found is not None
        return found

    def make_repo(self, repo: str, *, private: bool = True) -> None:
        """Create a repo by hand."""
        namespace = repo.partition("/")[0]
        self.sandbox.hub.store.create("models", repo, namespace, {"README.md": b"mine"}, private=private)

    def write(self, repo: str, title: str = "by somebody else", message: str = "") -> None:
        """Put a commit on top of a repo."""
        store = self.sandbox.hub.store
        store.commit(self.repo(repo), [], [], title=title, message=message, author="x", parent=None)

    def seen(self, method: str, fragment: str) -> list[Seen]:
        """The requests of a method whose path holds a fragment, since the test began."""
        return [one for one in self.sandbox.faults.log() if one.method == method and fragment in one.path]

    def clear(self) -> None:
        """Make it as it was: no faults, no rows, nobody signed up, no repos, the token good."""
        self.sandbox.faults.clear()
        self.sandbox.realtime.refuse(503, times=0)
        self.sandbox.realtime.accept_then_drop(times=0)
        self.sandbox.realtime.drop_events(0)
        self.sandbox.hub.jobs.clear()
        self.sandbox.hub.reset()
        for repo in self.sandbox.hub.store.repos("models"):
            self.sandbox.hub.store.delete(repo)
        self.sandbox.hub.store.bytes.collect()
        self.database.clear()
        self.sandbox.faults.reset()


@contextmanager
def staged(postgres: Postgres, database: Database) -> Iterator[Scene]:
    """Serve a migrated database."""
    with (
        Sandbox(postgres=postgres, database=database.name, timing=QUICK) as sandbox,
        httpx.Client() as http,
    ):
        yield Scene(sandbox, database, http)


async def claim(verbs: Verbs, *, lease: float = 20, kind: str = "publish") -> Claim:
    """Claim the one piece of work that is due, as a daemon of its own."""
    answer = await verbs.claim(
        instance="test",
        run=str(uuid4()),
        slots={kind: 1},
        lease=lease,
        holding=[],
        predecessor_is_dead=False,
        machine="here",
    )
    [claim] = answer.claims
    return claim


async def carry(attempts: Attempts, verbs: Verbs, kind: str = "publish") -> None:
    """Claim the one piece of work that is due, and carry it to its end."""
    asked = asyncio.get_running_loop().time()
    await attempts.carry(await claim(verbs, kind=kind), requested_at=asked)
