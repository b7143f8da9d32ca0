"""Where the program plays: the sandbox, or the Supabase and the Hub that the environment names."""

import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import httpx
import psycopg
from huggingface_hub import HfApi, close_session, set_client_factory
from huggingface_hub.utils._http import default_client_factory
from supabase import Client, ClientOptions, create_client

from tests.support.waiting import PATIENCE
from watcher import migrate
from watcher.sandbox import Sandbox
from watcher.sandbox.realtime.timing import Timing
from watcher.settings.settings import environment

# Realtime as quick as it can be; what it tells, and in which order, stays what it is.
_QUICK = Timing(cold=0.02, poll_idle=0.02, poll_unmatched=0.02)

_NAMED = (
    *("SUPABASE_URL", "SUPABASE_SECRET_KEY", "SUPABASE_SERVICE_ROLE_KEY", "SUPABASE_DB_URL"),
    *("SUPABASE_PUBLISHABLE_KEY", "SUPABASE_ANON_KEY"),
    *("HF_ENDPOINT", "HF_TOKEN", "HUGGINGFACE_TOKEN", "HF_NAMESPACE"),
)

# Locks in the order of migrations/*_work.sql; without the lock on the search, a claim would queue the erasures again.
_FORGET_ERASURES = """
select from watcher.searches where kind = 'erase' for update;
select from watcher.work where kind = 'sweep' for update;
select from watcher.work where kind = 'erase' order by id for update;
update watcher.attempts set ended_at = now(), outcome = 'revoked', reason = 'The test is over.'
where kind = 'erase' and ended_at is null;
delete from watcher.erase_lines;
delete from watcher.erasures;
delete from watcher.work where kind = 'erase';
delete from watcher.names;
"""


def elsewhere() -> dict[str, str]:
    """The settings of services that are not ours; empty where the sandbox is to be used."""
    given = environment()
    if not given.get("SUPABASE_URL"):
        return {}
    return {name: given[name] for name in _NAMED if given.get(name)}


class Stage:
    """Two services, the keys to them, and a record of what was made there, so that it can be removed."""

    def __init__(self, settings: dict[str, str], folder: Path, sandbox: Sandbox | None) -> None:
        self.settings = settings
        self.folder = folder
        self.sandbox = sandbox
        self.token = settings.get("HF_TOKEN") or settings["HUGGINGFACE_TOKEN"]
        self.endpoint = settings.get("HF_ENDPOINT", "https://huggingface.co")
        self.url = settings["SUPABASE_URL"]
        self.secret_key = settings.get("SUPABASE_SECRET_KEY") or settings["SUPABASE_SERVICE_ROLE_KEY"]
        self.public_key = settings.get("SUPABASE_PUBLISHABLE_KEY") or settings["SUPABASE_ANON_KEY"]
        self.api = HfApi(endpoint=self.endpoint, token=self.token)
        self.users: list[str] = []
        self.objects: list[str] = []
        self.rows: list[str] = []
        self._opened = ExitStack()
        self.admin = self.client(self.secret_key)

    @property
    def namespace(self) -> str:
        """Who owns the repos."""
        return self.settings.get("HF_NAMESPACE") or str(self.api.whoami()["name"])

    def client(self, key: str) -> Client:
        """A client of its own, closed with the stage."""
        http = self._opened.enter_context(httpx.Client(timeout=PATIENCE))
        return create_client(
            self.url, key, ClientOptions(httpx_client=http, auto_refresh_token=False, persist_session=False)
        )

    def rpc(self, verb: str, **arguments: Any) -> Any:
        """Call a verb with the secret key, as an operator does."""
        return self.admin.rpc(verb, {f"p_{name}": value for name, value in arguments.items()}).execute().data

    def story(self, identity: str) -> dict[str, Any]:
        """One row and all its attempts."""
        story = self.rpc("watcher_story", id=identity)
        assert isinstance(story, dict)
        return story

    def sql(self, query: str, *parameters: Any) -> list[Any]:
        """Run a statement as the schema's owner, for what no other door lets anybody do; the first row it answers."""
        with psycopg.connect(self.settings["SUPABASE_DB_URL"]) as connection:
            cursor = connection.execute(query.encode(), parameters)
            return list(cursor.fetchone() or ()) if cursor.description else []

    def names(self) -> dict[str, str]:
        """Every repo's name that was ever reserved for a row of ours, and the row's id."""
        mine: dict[str, str] = {}
        after = ""
        while page := self.rpc("watcher_names", after=after):
            mine.update({n["model_id"]: n["identity_id"] for n in page if n["identity_id"] in self.rows})
            after = page[-1]["model_id"]
        return mine

    def erase_due(self, within: float = 60) -> None:
        """Let time pass for what has to be erased later, and return when nothing has to be erased any more."""
        deadline = time.monotonic() + within
        while self.erasing():
            assert time.monotonic() < deadline, f"After {within} s there is still something to be erased."
            self.sql("update watcher.erase_lines set look_again_at = now() where look_again_at > now()")
            self.sql("update watcher.work set next_at = now() where kind = 'erase' and next_at > now()")
            time.sleep(0.1)

    def to_erase(self) -> set[str]:
        """The names of the repos that are listed to be erased, now or once more."""
        with psycopg.connect(self.settings["SUPABASE_DB_URL"]) as connection:
            lines = "select name from watcher.erase_lines where what = 'repo'"
            return {str(name) for (name,) in connection.execute(lines)}

    def erasing(self) -> bool:
        """Whether there is something to be erased."""
        with psycopg.connect(self.settings["SUPABASE_DB_URL"]) as connection:
            query = "select from watcher.work where kind = 'erase' limit 1"
            return connection.execute(query).fetchone() is not None

    def photos(self) -> set[str]:
        """The keys of all objects in the bucket."""
        with psycopg.connect(self.settings["SUPABASE_DB_URL"]) as connection:
            query = "select name from storage.objects where bucket_id = 'identity-images'"
            return {str(name) for (name,) in connection.execute(query)}

    def leaving(self) -> bool:
        """Whether the sweep has not met yet what a soft-deleted user has left."""
        with psycopg.connect(self.settings["SUPABASE_DB_URL"]) as connection:
            query = """
                select from auth.users u where u.deleted_at is not null and (
                  exists (select from public.trained_identities t where t.user_id = u.id)
                  or exists (select from storage.objects o where starts_with(o.name, u.id || '/'))) limit 1
            """
            return connection.execute(query).fetchone() is not None

    def clear(self) -> None:
        """Remove users, their rows and objects, and the repos."""
        repos, users, objects = self.names() if self.rows else {}, self.users[:], self.objects[:]
        # First of all: what fails below fails once, and not for every test after it.
        for made in (self.users, self.objects, self.rows):
            made.clear()
        for user in users:
            self.admin.auth.admin.delete_user(user)
        for first in range(0, len(objects), 100):
            self.admin.storage.from_("identity-images").remove(objects[first : first + 100])
        for repo in repos:
            self.api.delete_repo(repo, missing_ok=True)
        if self.sandbox is not None:
            self._forget_erasures()

    def _forget_erasures(self) -> None:
        """Leave nothing to erase to the next test's daemon; one of this test may be at it."""
        with psycopg.connect(self.settings["SUPABASE_DB_URL"]) as connection:
            connection.execute(_FORGET_ERASURES)

    def close(self) -> None:
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def opened(folder: Path, timing: Timing = _QUICK, job_python: Path | None = None) -> Iterator[Stage]:
    """The stage that the environment asks for, migrated where that can be done; what else is given is the sandbox's."""
    # huggingface_hub has one client for the whole process, and another test may have put its own in its place.
    set_client_factory(default_client_factory)
    with ExitStack() as stack:
        stack.callback(close_session)
        settings, sandbox = elsewhere(), None
        if not settings:
            sandbox = stack.enter_context(Sandbox(timing=timing, job_python=job_python))
            settings = sandbox.settings()
        if "SUPABASE_DB_URL" in settings:
            list(migrate.apply(settings["SUPABASE_DB_URL"]))
        yield stack.enter_context(Stage(settings, folder, sandbox))


def unique(prefix: str) -> str:
    """A name that nobody else has."""
    return f"{prefix}-{secrets.token_hex(4)}"
