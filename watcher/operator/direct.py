"""A connection to Postgres itself, as the owner of the schema, for the commands that change it all or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from watcher import migrate
from watcher.errors import Misconfigured, Transient


@contextmanager
def connected(db_url: str) -> Iterator[psycopg.Connection]:
    """Connect as `migrate.connected` does.

    Raises Transient if the database cannot be reached or a lock is not available, and Misconfigured for a URL that cannot be
    used and for every other error of Postgres: the block's transaction is rolled back then.
    """
    with migrate.connected(db_url) as connection:
        try:
            yield connection
        except psycopg.errors.LockNotAvailable as error:
            raise Transient(
                "A table that has to be changed is locked, and nothing was changed: run it again when the app is less busy."
            ) from error
        except psycopg.OperationalError:
            raise
        except psycopg.Error as error:
            detail = f" ({error.diag.message_detail.splitlines()[0]})" if error.diag.message_detail else ""
            raise Misconfigured(
                f"Nothing was changed: {error.diag.message_primary or error}{detail}"
            ) from error
