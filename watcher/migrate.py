"""The migrations: plain SQL, in order, each once, safely twice at a time.

The schema records its own versions and nothing else does: the history of the Supabase CLI must not get versions that
the app's folder lacks, or its next push would refuse.
"""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import psycopg

from watcher.errors import Misconfigured, Transient


def files() -> list[Path]:
    """The migrations in their order, as the wheel carries them or as the checkout holds them."""
    here = Path(__file__).parent
    folder = next(folder for folder in (here / "migrations", here.parent / "migrations") if folder.is_dir())
    return sorted(folder.glob("*.sql"))


def copy(into: Path) -> list[Path]:
    """Put the files beside an app's own migrations and return those that were not there; raises Misconfigured."""
    if not into.is_dir():
        raise Misconfigured(
            f"There is no folder {into}: name the migrations folder of the app, as supabase/migrations."
        )
    copied = []
    for file in files():
        target = into / file.name
        if not target.exists():
            shutil.copyfile(file, target)
            copied.append(target)
        elif target.read_bytes() != file.read_bytes():
            raise Misconfigured(
                f"{target} differs from the migration of that name: a pushed migration must not change."
            )
    return copied


def apply(db_url: str) -> Iterator[str]:
    """Apply what the database lacks, and yield each version as it is done.

    Each file is one statement and so one transaction. Raises Misconfigured where a migration refuses, Transient where
    the database cannot be reached.
    """
    try:
        psycopg.conninfo.conninfo_to_dict(db_url)
    except psycopg.ProgrammingError:
        # Its own words repeat the URL, and the password with it.
        raise Misconfigured("SUPABASE_DB_URL is no database URL: it begins with postgresql://.") from None
    if "://" in db_url and not re.fullmatch(r"[a-z]+://([^/@]*@)?[^@]*", db_url):
        # libpq takes a part of such a password for a host or a port, and repeats it in its words.
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
                            f"{file.name} was refused, and nothing of it was done: {error.diag.message_primary}"
                        ) from error
                    yield version
    except psycopg.OperationalError as error:
        raise Transient(f"The database could not be reached: {error}") from error
    except psycopg.Error as error:
        raise Misconfigured(str(error.diag.message_primary or error)) from error


def statement(beginning: str) -> str:
    """Return the one statement of the files that begins like that, as far as its semicolon; raises LookupError."""
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
