"""Applies the migrations: SQL files, in order, each once, safe to run concurrently and beside a busy app.

Connects to Postgres directly, not through Supabase's API; also copies the files to an app's migrations folder.

A migration that waits for a lock makes everybody wait who needs the same table after it. So it waits for `LOCK_TIMEOUT` at
most, lets the others pass, and is tried again.

Versions are recorded in Watcher's own schema, not in the Supabase CLI's history: if that had versions which the
app's migrations folder lacks, the next `supabase db push` would be refused.
"""

import random
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from watcher.errors import Misconfigured, Transient

LOCK_TIMEOUT = 3
"""Seconds that a migration waits for a lock, and that it may delay others by its waiting."""

# In seconds.
_GIVE_UP_AFTER = 600.0
_PAUSE_FIRST, _PAUSE_LONGEST = 2.0, 20.0

_NO_ADDRESS = re.compile(
    "Network is unreachable|Cannot assign requested address|No address associated|Name or service not known"
)


def files() -> list[Path]:
    """Return the migrations in order, from the installed wheel or the checkout."""
    here = Path(__file__).parent
    folder = next(folder for folder in (here / "migrations", here.parent / "migrations") if folder.is_dir())
    return sorted(folder.glob("*.sql"))


def copy(into: Path) -> list[Path]:
    """Copy the files to an app's migrations folder, and return those that were not there; raises Misconfigured."""
    if not into.is_dir():
        raise Misconfigured(
            f"There is no folder {into}: give the app's migrations folder, such as supabase/migrations."
        )
    try:
        return [target for file in files() if _copy(file, target := into / file.name)]
    except OSError as error:
        raise Misconfigured(
            f"{error.filename or into} cannot be written to ({error.strerror}): give a folder that this user owns."
        ) from error


def _copy(file: Path, target: Path) -> bool:
    """Copy a file unless it is there already, and return whether it was not; raises Misconfigured and OSError."""
    if not target.exists():
        shutil.copyfile(file, target)
        return True
    if not target.is_file():
        raise Misconfigured(f"{target} cannot be read: it is not a file. Move it away.")
    if target.read_bytes() != file.read_bytes():
        raise Misconfigured(
            f"{target} differs from the migration of that name, and a pushed migration must not change: restore it, "
            "or delete it if it was never pushed."
        )
    return False


def apply(db_url: str, *, on_wait: Callable[[str], object] = lambda _: None) -> Iterator[str]:
    """Apply the migrations that the database lacks, and yield the version of each one applied.

    Each file is one transaction. Calls `on_wait` with a sentence each time a lock is not available. Raises Misconfigured if
    a migration fails, Transient if the database cannot be reached or a lock is not available for ten minutes.
    """
    with connected(db_url) as connection:
        try:
            done = _versions(connection)
            for file in files():
                version = file.name.partition("_")[0]
                if version not in done:
                    try:
                        _apply(connection, file, on_wait)
                    except psycopg.OperationalError:
                        raise
                    except psycopg.Error as error:
                        raise Misconfigured(
                            f"{file.name} failed and was rolled back: {error.diag.message_primary}"
                        ) from error
                    yield version
        except psycopg.OperationalError:
            raise
        except psycopg.Error as error:
            raise Misconfigured(str(error.diag.message_primary or error)) from error


@contextmanager
def connected(db_url: str) -> Iterator[psycopg.Connection]:
    """Connect, each statement in a transaction of its own unless the block opens one.

    Raises Misconfigured if the URL cannot be used, without quoting its password, and Transient if the database cannot be
    reached or breaks the connection off. Other errors of Postgres are left to the block.
    """
    _check(db_url)
    try:
        # psycopg prepares what runs often, and a pooler may send it to another server.
        with psycopg.connect(
            db_url, autocommit=True, connect_timeout=10, prepare_threshold=None
        ) as connection:
            yield connection
    except psycopg.OperationalError as error:
        if re.match(r"(connection is bad: )?invalid ", str(error)):  # of an option of the URL
            raise Misconfigured(f"SUPABASE_DB_URL cannot be used: {error}") from error
        raise unreachable(error) from error


def _check(db_url: str) -> None:
    """Raise Misconfigured for a URL that libpq would misread or refuse in a message that contains the password."""
    try:
        ports = str(psycopg.conninfo.conninfo_to_dict(db_url).get("port") or 0)
    except psycopg.ProgrammingError:
        # Without psycopg's message, which contains the URL with its password.
        raise Misconfigured(
            "SUPABASE_DB_URL is not a database URL: it begins with postgresql://, and a % in its password is written %25."
        ) from None
    if "://" in db_url and not re.fullmatch(r"[a-z]+://([^/@]*@)?[^@]*", db_url):
        # libpq would parse a part of such a password as a host or port, and its message would contain it.
        raise Misconfigured(
            "SUPABASE_DB_URL has an @ or a / in its user or password: write %40 for @ and %2F for /."
        )
    if not re.fullmatch(r"[\d,]+", ports):
        raise Misconfigured("SUPABASE_DB_URL has a port that is not a number: write host:5432.")


def unreachable(error: psycopg.OperationalError) -> Transient:
    """Return the error for a database that does not answer, with a hint where this host cannot use its address."""
    reason = str(error).rstrip(".")
    if not _NO_ADDRESS.search(reason):
        return Transient(f"The database could not be reached: {reason}.")
    return Transient(
        f"The database could not be reached: {reason}. A project's direct connection has only an IPv6 address: if this host "
        "has none, take the URL of the session pooler (port 5432) from the dashboard, Connect."
    )


def _apply(connection: psycopg.Connection, file: Path, on_wait: Callable[[str], object]) -> None:
    # One message, and so one transaction: the server ends it even if this host freezes or is cut off meanwhile.
    query = f"set local lock_timeout = '{LOCK_TIMEOUT}s';\n".encode() + file.read_bytes()
    began = time.monotonic()
    pause = _PAUSE_FIRST
    while True:
        try:
            connection.execute(query)
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
            waited = time.monotonic() - began
            reason = (
                f"{file.name} needs a lock that is not available, for: {_statement_of(error)}. "
                f"{_holder(connection, error)}"
            )
            if waited >= _GIVE_UP_AFTER:
                raise Transient(
                    f"{reason} It was tried for {waited / 60:.0f} minutes, and nothing of it is applied: end that "
                    "transaction, or wait until it is over, then run `watcher migrate` again."
                ) from error
        else:
            return
        on_wait(
            f"{reason} Trying again, for {_GIVE_UP_AFTER / 60:.0f} minutes at most; {waited:.0f} s so far."
        )
        # Jitter: transactions that come at regular intervals must not meet each try.
        time.sleep(pause * random.uniform(0.5, 1))  # noqa: S311  (not a secret)
        pause = min(pause * 2, _PAUSE_LONGEST)


def _statement_of(error: psycopg.Error) -> str:
    """Return the first line of the SQL statement inside the file that failed."""
    found = re.search(r'SQL statement "\s*(.+?)\s*(\n|"\nPL/pgSQL)', error.diag.context or "")
    return found[1] if found else str(error.diag.message_primary)


def _holder(connection: psycopg.Connection, error: psycopg.Error) -> str:
    """Return a sentence about the oldest other transaction that has locked a table which the failed statement names."""
    names = re.findall(r"\b[a-z_]\w*\.[a-z_]\w*", error.diag.context or "")
    found = connection.execute(_OLDEST_HOLDER, {"names": names}).fetchone()
    if found is None:
        return "Who holds it is not known."
    locked, pid, role, application, state, seconds = found
    known = [f"role {role}", application, state, None if seconds is None else f"open for {seconds} s"]
    return f"{locked} is locked by the transaction of process {pid} ({', '.join(filter(None, known))})."


_OLDEST_HOLDER = """
    select coalesce(l.relation::regclass::text, 'The database'), a.pid, a.usename, a.application_name, a.state,
      extract(epoch from clock_timestamp() - a.xact_start)::int
    from pg_catalog.pg_locks l
    join pg_catalog.pg_stat_activity a using (pid)
    where l.granted and l.pid <> pg_backend_pid()
      and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = current_database())
      and (
        l.relation in (select to_regclass(name) from unnest(%(names)s::text[]) name)
        -- Another migration.
        or l.locktype = 'advisory'
        and l.classid::bigint << 32 | l.objid::bigint = hashtextextended('watcher.migrations', 0)
      )
    order by a.xact_start
    limit 1
"""


def _versions(connection: psycopg.Connection) -> set[str]:
    if connection.execute("select to_regclass('watcher.migrations')").fetchone() == (None,):
        return set()
    return {version for (version,) in connection.execute("select version from watcher.migrations")}
