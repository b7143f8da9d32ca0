"""A test's own database, reached as the API reaches it: a role, the claims of a token, one transaction."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from tests.support.waiting import wait_until
from watcher.sandbox import Postgres

MIGRATIONS = sorted((Path(__file__).parents[2] / "migrations").glob("*.sql"))

BRAKES = ("rejections", "limits", "usage", "retries")
ERASING = ("erase_lines", "erasures", "departures", "unnamed_objects")

Connection = psycopg.Connection[dict[str, Any]]
Row = dict[str, Any]


def migrate(dsn: str, files: Sequence[Path] = tuple(MIGRATIONS)) -> None:
    """Apply migrations in order, each in a transaction of its own."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        for file in files:
            connection.execute(file.read_bytes())


class Database:
    """One database and the connections to it, which end with it.

    Roles: `postgres` owns what the migrations made, `supabase_admin` is the superuser, `supabase_auth_admin` is Auth;
    they log in as themselves. `anon`, `authenticated` and `service_role` come through `authenticator`, with the
    claims that their token would have.
    """

    def __init__(self, postgres: Postgres, name: str) -> None:
        self.postgres = postgres
        self.name = name
        self._opened = ExitStack()  # by the test
        self._kept: dict[str, Connection] = {}

    def close(self) -> None:
        """Close every connection; a later use opens new ones."""
        self._opened.close()
        for connection in self._kept.values():
            connection.close()
        self._kept.clear()

    def wake(self) -> None:
        """Forget connections that ended with a Postgres which a test of another file restarted."""
        for role, connection in list(self._kept.items()):
            try:
                connection.execute("select")
            except psycopg.OperationalError:
                connection.close()
                del self._kept[role]

    def clear(self) -> None:
        """Make it as it was before the test: no rows, nobody signed up, what the test opened closed."""
        self._opened.close()
        with self._as_a_restore() as connection:
            for table in ("auth.users", "storage.objects", "public.trained_identities"):
                connection.execute(f"delete from {table}".encode())
            for table in (
                "work",
                "attempts",
                "names",
                "used_names",
                "instances",
                "pauses",
                *BRAKES,
                *ERASING,
            ):
                connection.execute(f"delete from watcher.{table}".encode())
            connection.execute(
                "update watcher.sweep set held_users = null, held_names = null, held_uploads = null, held_since = null, "
                "confirmed_users = 0, confirmed_names = 0, confirmed_uploads = 0, failed = 0, failed_because = null, "
                "after_object = '', next_scan_at = now(), swept_at = null"
            )
            connection.execute("update watcher.searches set after_at = default, after_id = default")
            connection.execute("alter sequence watcher.attempts_number_seq restart")

    def dsn(self, user: str = "postgres") -> str:
        return self.postgres.dsn(self.name, user)

    def connect(self, role: str = "postgres", user: UUID | None = None, **claims: Any) -> Connection:
        """Open a connection that commits each statement; for more use `connection.transaction()`."""
        return self._opened.enter_context(self._connect(role, user, **claims))

    def run(
        self,
        query: str,
        parameters: Sequence[Any] | Mapping[str, Any] = (),
        *,
        role: str = "postgres",
        user: UUID | None = None,
    ) -> list[Row]:
        """Run one statement in a transaction of its own and return its rows."""
        connection = self._keep(role)
        if role == "authenticated":
            sign_in(connection, role, user)
        return run(connection, query, parameters)

    def value(self, query: str, parameters: Sequence[Any] = ()) -> Any:
        """Return the one value that the owner's query answers."""
        [row] = self.run(query, parameters)
        [value] = row.values()
        return value

    # What others do.

    def user(self) -> UUID:
        """Sign somebody up."""
        user = uuid4()
        self.run("insert into auth.users (id) values (%s)", [user])
        return user

    def upload(self, user: UUID, count: int = 3) -> list[str]:
        """Upload `count` images as Storage does, in the end, and return their paths."""
        folder = uuid4()
        paths = [f"{user}/{folder}/photo {number}.jpg" for number in range(1, count + 1)]
        self.store(paths)
        return paths

    def store(self, paths: Sequence[str]) -> None:
        self.run(
            "insert into storage.objects (bucket_id, name) select 'identity-images', unnest(%s::text[])",
            [list(paths)],
            role="supabase_admin",
        )

    def unstore(self, paths: Sequence[str]) -> None:
        """Delete objects as Storage does, in the end."""
        self.overwrite("delete from storage.objects where name = any (%s)", [list(paths)])

    def insert(self, user: UUID, paths: Sequence[str] | None = None, name: str = "Ada", **more: Any) -> UUID:
        """Insert a row as `user` would, with three images unless told otherwise, and return its id."""
        values = {"identity_name": name, "image_paths": self.upload(user) if paths is None else paths, **more}
        [row] = self.run(*insertion(values), role="authenticated", user=user)
        assert isinstance(row["id"], UUID)
        return row["id"]

    def delete_account(self, user: UUID) -> None:
        """Delete the account as Auth does."""
        self.run("delete from auth.users where id = %s", [user], role="supabase_auth_admin")

    # What is there.

    def row(self, identity: UUID) -> Row:
        [row] = self.run("select * from public.trained_identities where id = %s", [identity])
        return row

    def status(self, identity: UUID) -> str:
        status = self.row(identity)["status"]
        assert isinstance(status, str)
        return status

    def line(self, identity: UUID) -> Row:
        """Return the row's place in the queue and its budget, nothing if it has none."""
        return self.work(identity, "publish")

    def work(self, identity: UUID, kind: str) -> Row:
        """Return the row's open work of a kind, nothing if there is none."""
        query = "select * from watcher.work where identity_id = %s and kind = %s"
        rows = self.run(query, [identity, kind])
        return rows[0] if rows else {}

    def attempts(self, identity: UUID, kind: str = "publish") -> list[Row]:
        query = "select * from watcher.attempts where identity_id = %s and kind = %s order by number"
        return self.run(query, [identity, kind])

    def outcomes(self, identity: UUID, kind: str = "publish") -> list[str | None]:
        return [attempt["outcome"] for attempt in self.attempts(identity, kind)]

    def pass_time(self, seconds: float) -> None:
        """Move every stored time back, as if `seconds` had gone by."""
        with self._as_a_restore() as connection:
            move_times(connection, -seconds)

    def overwrite(self, query: str, parameters: Sequence[Any] = ()) -> None:
        """Run a statement with triggers off, as a restore does."""
        with self._as_a_restore() as connection:
            connection.execute(query.encode(), parameters)

    def wait_until_blocked(self, connection: Connection) -> None:
        """Return when what runs on `connection` in another thread waits for somebody's lock."""
        wait_until(lambda: self.is_blocked(connection))

    def is_blocked(self, connection: Connection) -> bool:
        """Whether what runs on `connection` in another thread waits for somebody's lock."""
        query = "select cardinality(pg_blocking_pids(%s)) > 0"
        return bool(self.value(query, [connection.info.backend_pid]))

    def _connect(self, role: str, user: UUID | None = None, **claims: Any) -> Connection:
        logs_in = role in {"postgres", "supabase_admin", "supabase_auth_admin"}
        connection = psycopg.connect(
            self.dsn(role if logs_in else "authenticator"), autocommit=True, row_factory=dict_row
        )
        if not logs_in:
            connection.execute(sql.SQL("set role {}").format(sql.Identifier(role)))
            sign_in(connection, role, user, **claims)
        return connection

    def _keep(self, role: str) -> Connection:
        if role not in self._kept:
            self._kept[role] = self._connect(role)
        return self._kept[role]

    @contextmanager
    def _as_a_restore(self) -> Iterator[Connection]:
        connection = self._keep("supabase_admin")
        with connection.transaction():
            connection.execute("set local session_replication_role = replica")
            yield connection


def move_times(connection: Connection, seconds: float) -> None:
    """Move every stored time by so many seconds; with triggers off."""
    for table, columns in {
        "public.trained_identities": [
            *("next_attempt_at", "published_at", "failed_at", "created_at", "updated_at"),
        ],
        "watcher.work": ["turn_at", "next_at", "created_at", "wait_until"],
        "watcher.attempts": ["started_at", "lease_expires_at", "ended_at"],
        "watcher.instances": ["seen_at"],
        "watcher.pauses": ["since", "until"],
        "watcher.rejections": ["first_at", "last_at"],
        "watcher.retries": ["retried_at", "waits_until"],
        "watcher.erase_lines": ["added_at", "due_at", "look_again_at", "gone_at"],
        "watcher.erasures": ["requested_at", "finished_at"],
        "watcher.departures": ["departed_at"],
        "watcher.unnamed_objects": ["seen_at"],
        "watcher.used_names": ["used_at"],
        "watcher.searches": ["after_at"],
        "watcher.sweep": ["held_since", "next_scan_at", "swept_at"],
    }.items():
        moved = ", ".join(f"{column} = {column} + make_interval(secs => %(by)s)" for column in columns)
        connection.execute(f"update {table} set {moved}".encode(), {"by": seconds})
    # By way of a time where no other hour is: the hours are a key.
    for moved in (
        "hour + interval '900 years'",
        f"hour - interval '900 years' + make_interval(secs => {seconds})",
    ):
        connection.execute(f"update watcher.usage set hour = {moved}".encode())


class Worker:
    """One run of a daemon, as the database sees it: the verbs, called as `service_role`."""

    def __init__(
        self,
        database: Database,
        instance: str = "host",
        *,
        machine: str = "here",
        own_connection: bool = False,
    ) -> None:
        self.database = database
        self.instance = instance
        self.machine = machine
        self.run = uuid4()
        self._connection = database.connect("service_role") if own_connection else None

    def call(self, verb: str, **arguments: Any) -> Any:
        named = ", ".join(f"p_{name} => %({name})s" for name in arguments)
        query = f"select public.watcher_{verb}({named}) as answer"
        if self._connection is None:
            [row] = self.database.run(query, arguments, role="service_role")
        else:
            [row] = run(self._connection, query, arguments)
        return row["answer"]

    @property
    def connection(self) -> Connection:
        assert self._connection is not None
        return self._connection

    def ask(
        self, limit: int | dict[str, int] = 4, holding: Sequence[int] = (), lease: float = 20, **more: Any
    ) -> Any:
        """Claim so many rows to publish, or so much of each kind; the whole answer."""
        return self.call(
            "claim",
            instance=self.instance, run=self.run, slots=Jsonb(limit if isinstance(limit, dict) else {"publish": limit}),
            lease_seconds=lease, holding=list(holding), machine=self.machine, **more,
        )  # fmt: skip

    def claim(
        self, limit: int | dict[str, int] = 4, holding: Sequence[int] = (), lease: float = 20, **more: Any
    ) -> list[Any]:
        claims = self.ask(limit, holding, lease, **more)["claims"]
        assert isinstance(claims, list)
        return claims

    def claim_one(self, holding: Sequence[int] = (), lease: float = 20, kind: str = "publish") -> int:
        """Claim one piece of work, which there must be, and return the attempt's number."""
        [claim] = self.claim({kind: 1}, holding, lease)
        assert isinstance(claim["attempt"], int)
        return claim["attempt"]

    def renew(
        self, attempts: Sequence[int], images: Sequence[int | None] | None = None, lease: float = 20
    ) -> Any:
        progress = [0] * len(attempts) if images is None else images
        told = {
            attempt or 0: {"images_published": images}
            for attempt, images in zip(attempts, progress, strict=True)
        }
        return self.call("renew", progress=Jsonb(told), lease_seconds=lease)

    def reserve(
        self, attempt: int, namespace: str | None = "acme", slug: str | None = "ada", **more: Any
    ) -> Any:
        return self.call("reserve", attempt=attempt, namespace=namespace, slug=slug, **more)

    def complete(self, attempt: int, commit: str = "c0ffee", **more: Any) -> Any:
        """Reserve a name if need be, and complete."""
        self.reserve(attempt)
        return self.call(
            "complete",
            attempt=attempt, url="https://hub/acme/ada", commit_sha=commit, training_config=Jsonb({"a": 1}), **more,
        )  # fmt: skip

    def fail(
        self, attempt: int, code: str = "image_missing", message: str = "Image 2 is gone.", **more: Any
    ) -> Any:
        image = Jsonb({"image": 2}) if message.startswith("Image 2 ") else None
        return self.call("fail", attempt=attempt, code=code, message=message, details=image, **more)

    def defer(self, attempt: int, reason: str = "The Hub is away.", **more: Any) -> Any:
        return self.call("defer", attempt=attempt, reason=reason, **more)

    def release(self, attempt: int, reason: str = "Stopping.", **more: Any) -> Any:
        return self.call("release", attempt=attempt, reason=reason, **more)

    def reject(self, attempt: int, code: str = "hub_refused", message: str = "No.", **more: Any) -> Any:
        reason = {"reason": message, **more}
        return self.call("reject", attempt=attempt, code=code, message=message, **reason)

    def wait(self, attempt: int, reason: str = "Image 2 is not there yet.", **more: Any) -> Any:
        """Wait 2 s, for 15 s at most."""
        past = {"code": "image_missing", "message": "Image 2 is gone."}
        arguments = {"seconds": 2, "within_seconds": 15, "answered": True, **past, **more}
        return self.call("wait", attempt=attempt, reason=reason, **arguments)

    def erased(self, attempt: int, lines: Sequence[int] | None = None, **more: Any) -> Any:
        """Say that all is gone that the attempt's row has listed, or these lines."""
        query = """
            select l.id from watcher.erase_lines l join watcher.attempts a using (identity_id)
            where a.number = %s and (l.gone_at is null and l.due_at <= now() or l.look_again_at <= now()) order by l.id
        """
        gone = [row["id"] for row in self.database.run(query, [attempt])] if lines is None else list(lines)
        return self.call("erased", attempt=attempt, gone=gone, **more)

    def sweep(self) -> Any:
        """Sweep now."""
        self.database.run(
            "update watcher.work set next_at = now() where kind = 'sweep' and next_at is not null"
        )
        self.database.run("update watcher.sweep set next_scan_at = now()")
        return self.call("sweep", attempt=self.claim_one(kind="sweep"))

    def replay(self, **conditions: Any) -> Any:
        return self.call("replay", **conditions)


def sign_in(connection: Connection, role: str, user: UUID | None, **claims: Any) -> None:
    """Give a connection the claims of a token."""
    token = {"role": role, **({"sub": str(user)} if user else {}), **claims}
    connection.execute("select set_config('request.jwt.claims', %s, false)", [json.dumps(token)])


def run(connection: Connection, query: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> list[Row]:
    """Run one statement and return its rows."""
    cursor = connection.execute(query.encode(), parameters or None)
    return cursor.fetchall() if cursor.description else []


def insertion(values: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Return the INSERT of one row as REST sends it, and its parameters."""
    columns = ", ".join(values)
    given = ", ".join(f"%({column})s" for column in values)
    return f"insert into public.trained_identities ({columns}) values ({given}) returning *", values


def schema(database: Database) -> list[Row]:
    """Return all that migrations could have changed: objects, their grants and their text."""
    return database.run("""
        select 'class' as kind, c.oid::regclass::text as name, c.relacl::text as grants, c.relrowsecurity::text as text
        from pg_class c where c.relnamespace in (select oid from pg_namespace where nspname !~ '^pg_')
        union all
        select 'column', a.attrelid::regclass || '.' || a.attname, a.attacl::text, a.atttypid::regtype::text
        from pg_attribute a join pg_class c on c.oid = a.attrelid
        where c.relnamespace in (select oid from pg_namespace where nspname in ('public', 'watcher', 'storage'))
        union all
        select 'function', f.oid::regprocedure::text, f.proacl::text, f.prosrc
        from pg_proc f where f.pronamespace in (select oid from pg_namespace where nspname !~ '^pg_')
        union all
        select 'policy', tablename || '.' || policyname, roles::text, coalesce(qual, '') || coalesce(with_check, '')
        from pg_policies
        union all
        select 'schema', nspname, nspacl::text, '' from pg_namespace where nspname !~ '^pg_'
        union all
        select 'trigger', tgrelid::regclass || '.' || tgname, '', pg_get_triggerdef(oid) from pg_trigger
        union all
        select 'bucket', id, '', '' from storage.buckets
        union all
        select 'publication', pubname || '.' || tablename, '', '' from pg_publication_tables
        order by 1, 2, 3
    """)
