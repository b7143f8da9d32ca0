"""The decoder of the replication stream, on what real Postgres writes."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from watcher.sandbox.postgres import Postgres
from watcher.sandbox.realtime.wal import Change, Decoder

READ = """
select data from pg_logical_slot_get_binary_changes(
    'here', null, null, 'proto_version', '1', 'publication_names', 'everything')
"""
Session = psycopg.Connection[tuple[Any, ...]]


@pytest.fixture(scope="module")
def session(postgres: Postgres) -> Iterator[Session]:
    postgres.create("wal")
    with psycopg.connect(postgres.dsn("wal"), autocommit=True) as connection:
        connection.execute("create publication everything for all tables")
        connection.execute("create table note (id int primary key, text text, big text, n numeric)")
        connection.execute("alter table note alter big set storage external")
        connection.execute("select pg_create_logical_replication_slot('here', 'pgoutput', true)")
        yield connection
    postgres.drop("wal")


def changes(session: Session, *statements: str) -> list[Change]:
    """Run statements, and return the changes in the stream."""
    for statement in statements:
        session.execute(statement.encode())
    decoder = Decoder()
    messages = session.execute(READ.encode(), binary=True).fetchall()
    return [change for (data,) in messages if (change := decoder.decode(bytes(data))) is not None]


def test_an_insert_shows_every_column_as_text(session: Session) -> None:
    (change,) = changes(session, "insert into note values (1, 'Zoë', null, 1.50)")
    assert (change.action, change.relation.schema, change.relation.table) == ("INSERT", "public", "note")
    assert change.new == {"id": "1", "text": "Zoë", "big": None, "n": "1.50"}
    assert change.old is None


def test_an_update_names_the_row_by_its_key(session: Session) -> None:
    changes(session, "insert into note values (2, 'a', null, null)")
    (change,) = changes(session, "update note set text = 'b' where id = 2")
    assert change.new == {"id": "2", "text": "b", "big": None, "n": None}
    assert change.old == {"id": "2"}


def test_an_update_of_the_key_shows_the_key_before(session: Session) -> None:
    changes(session, "insert into note values (3, 'a', null, null)")
    (change,) = changes(session, "update note set id = 30 where id = 3")
    assert (change.old, change.new and change.new["id"]) == ({"id": "3"}, "30")


def test_a_large_value_that_was_not_changed_is_absent(session: Session) -> None:
    changes(session, "insert into note values (4, 'a', repeat('x', 100000), null)")
    (change,) = changes(session, "update note set text = 'b' where id = 4")
    assert change.new == {"id": "4", "text": "b", "n": None}


def test_a_delete_shows_the_key_alone(session: Session) -> None:
    changes(session, "insert into note values (5, 'a', null, null)")
    (change,) = changes(session, "delete from note where id = 5")
    assert (change.action, change.old, change.new) == ("DELETE", {"id": "5"}, None)


def test_with_a_full_identity_both_rows_are_complete(session: Session) -> None:
    session.execute("alter table note replica identity full")
    try:
        changes(session, "insert into note values (6, 'a', repeat('x', 100000), null)")
        (change,) = changes(session, "update note set text = 'b' where id = 6")
        assert change.old == {"id": "6", "text": "a", "big": "x" * 100_000, "n": None}
        assert change.new == {"id": "6", "text": "b", "big": "x" * 100_000, "n": None}
    finally:
        session.execute("alter table note replica identity default")


def test_a_transaction_comes_complete_in_order_and_with_its_time(session: Session) -> None:
    before = session.execute("select now()").fetchone()
    with session.transaction():
        session.execute("insert into note select i, 'bulk', null, null from generate_series(100, 349) i")
    found = changes(session)
    assert [change.new and change.new["id"] for change in found] == [str(i) for i in range(100, 350)]
    assert before is not None
    assert {change.committed >= before[0] for change in found} == {True}


def test_rollbacks_and_truncates_are_no_changes(session: Session) -> None:
    with session.transaction(force_rollback=True):
        session.execute("insert into note values (7, 'a', null, null)")
    assert changes(session, "truncate note") == []
