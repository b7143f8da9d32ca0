"""Runs statements; says what each returns, and the status and the range of rows that follow from it."""

from dataclasses import dataclass

from psycopg.sql import Composed

from watcher.sandbox.database import Cursor
from watcher.sandbox.rest.errors import out_of_range
from watcher.sandbox.rest.query import Query
from watcher.sandbox.rest.sql import explained


@dataclass(frozen=True)
class Result:
    """A statement's result: the total of rows if it is counted, the rows in the body, and the body."""

    total: int | None
    rows: int
    body: str


def content_range_of(query: Query, result: Result) -> str:
    """Return the Content-Range of a page of rows."""
    total = "*" if result.total is None else str(result.total)
    if result.rows == 0 or result.total == 0:
        return f"*/{total}"
    return f"{query.offset}-{query.offset + result.rows - 1}/{total}"


def read_status(query: Query, result: Result) -> int:
    """Return the status of a read: 206 if there are more rows; raises RestError for an offset beyond the last."""
    if result.total is None:
        return 200
    if query.offset > result.total:
        raise out_of_range(
            f"An offset of {query.offset} was requested, but there are only {result.total} rows."
        )
    return 206 if result.rows < result.total else 200


async def planned_rows(cursor: Cursor, statement: Composed) -> int:
    """Return how many rows Postgres's planner expects of a statement."""
    await cursor.execute(explained(statement))
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0][0]["Plan"]["Plan Rows"])


async def run(cursor: Cursor, statement: Composed) -> Result:
    """Run one of the statements of `sql`."""
    await cursor.execute(statement)
    row = await cursor.fetchone()
    assert row is not None
    return Result(*row)
