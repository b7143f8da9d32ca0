"""Applies the migrations: SQL files, in order, each once, safe to run concurrently.

Versions are recorded in the watcher's own schema, not in the Supabase CLI's history: if that had versions which the
app's migrations folder lacks, the next `supabase db push` would be refused.
"""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import psycopg

from watcher.errors import Misconfigured, Transient


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
    copied = []
    for file in files():
        target = into / file.name
        if not target.exists():
            shutil.copyfile(file, target)
            copied.append(target)
        elif target.read_bytes() != file.read_bytes():
            raise Misconfigured(
                f"{target} differs from the migration of that name, and a pushed migration must not change: restore it, "
                "or delete it if it was never pushed."
            )
    return copied


def apply(db_url: str) -> Iterator[str]:
    """Apply the migrations that the database lacks, and yield the version of each one applied.

    Each file is one statement and so one transaction. Raises Misconfigured if a migration fails, Transient if the
    database cannot be reached.
    """
    try:
        psycopg.conninfo.conninfo_to_dict(db_url)
    except psycopg.ProgrammingError:
        # Without psycopg's message, which contains the URL with its password.
        raise Misconfigured(
            "SUPABASE_DB_URL is not a database URL: set it to one that begins with postgresql://."
        ) from None
    if "://" in db_url and not re.fullmatch(r"[a-z]+://([^/@]*@)?[^@]*", db_url):
        # libpq would parse a part of such a password as a host or port, and its message would contain it.
        raise Misconfigured(
            "SUPABASE_DB_URL has an @ or a / in its user or password: write %40 for @ and %2F for /."
        )
    try:
        with psycopg.connect(db_url, autocommit=True, connect_timeout=10) as connection:
            done = _versions(connection)
            for file in files():
                version = file.name.partition("_")[0]
                if version not in done:
                    try:
                        connection.execute(file.read_bytes())
                    except psycopg.OperationalError:
                        raise
                    except psycopg.Error as error:
                        raise Misconfigured(
                            f"{file.name} failed and was rolled back: {error.diag.message_primary}"
                        ) from error
                    yield version
    except psycopg.OperationalError as error:
        raise Transient(f"The database could not be reached: {error}") from error
    except psycopg.Error as error:
        raise Misconfigured(str(error.diag.message_primary or error)) from error


def statement(beginning: str) -> str:
    """Return the first statement in the files with this beginning, up to its semicolon; raises LookupError."""
    found = re.search(
        rf"^ *({re.escape(beginning)}[^;]*;)", "\n".join(map(Path.read_text, files())), re.MULTILINE
    )
    if found is None:
        raise LookupError(beginning)
    return found[1]


def _versions(connection: psycopg.Connection) -> set[str]:
    if connection.execute("select to_regclass('watcher.migrations')").fetchone() == (None,):
        return set()
    return {version for (version,) in connection.execute("select version from watcher.migrations")}
