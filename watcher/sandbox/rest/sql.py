"""Turns a query into one SQL statement, with names quoted as identifiers and values as literals.

Every statement returns one row: the total of rows (null unless counted), the number of rows in the body, and the body
as text.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from watcher.sandbox.rest.catalog import Function, Table
from watcher.sandbox.rest.expressions import listed, order, page, raw, selection, where
from watcher.sandbox.rest.query import Query

_ROWS = "coalesce(json_agg(_t), '[]')"
_OBJECT = "coalesce(json_agg(_t) -> 0, 'null')"
_STRIPPED_ROWS = "coalesce(json_strip_nulls(json_agg(_t)), '[]')"
_STRIPPED_OBJECT = "coalesce(json_strip_nulls(json_agg(_t) -> 0), 'null')"
_VALUES = "coalesce(json_agg(_t.value), '[]')"
_VALUE = "coalesce(json_agg(_t.value) -> 0, 'null')"
# Counts each row to insert, less those where an existing row is updated instead.
_COUNT_INSERT = """set_config('pgrst.inserted',
    (coalesce(nullif(current_setting('pgrst.inserted', true), ''), '0')::int + 1)::text, true) is not null"""
_COUNT_UPDATE = """set_config('pgrst.inserted',
    (current_setting('pgrst.inserted', true)::int - 1)::text, true) is not null"""
INSERTED = "select coalesce(nullif(current_setting('pgrst.inserted', true), ''), '0')::int"


@dataclass(frozen=True)
class Form:
    """The form of a body: a single object or an array, with or without columns that are null."""

    single: bool
    strips_nulls: bool = False

    def rows(self, *, single: bool = False) -> str:
        """Return the SQL of a body with rows; with `single` it is one object in any case."""
        if self.strips_nulls:
            return _STRIPPED_OBJECT if self.single or single else _STRIPPED_ROWS
        return _OBJECT if self.single or single else _ROWS


def read(table: Table, query: Query, form: Form, *, counted: Composable | None) -> Composed:
    """Return the statement that reads a table, and with the statement `counted` counts its rows."""
    relation = Identifier(table.schema, table.name)
    source = SQL("select {} from {}{}{}").format(
        selection(query.selected, relation), relation, where(query, relation), page(query, relation)
    )
    return _answer(source, counted, SQL("*"), form.rows())


def matching(table: Table, query: Query, *, limit: int | None = None) -> Composed:
    """Return the statement of the rows that a query matches on all pages, or of the first `limit` ones."""
    relation = Identifier(table.schema, table.name)
    rows = SQL("select 1 from {}{}").format(relation, where(query, relation))
    return rows if limit is None else rows + SQL(" limit {}").format(Literal(limit))


def explained(statement: Composable) -> Composed:
    """Return the statement that estimates how many rows another one has."""
    return SQL("explain (format json) {}").format(statement)


def insert(
    table: Table,
    query: Query,
    columns: Sequence[str],
    body: str,
    form: Form,
    *,
    returning: bool,
    resolution: str | None,
    defaults: bool,
) -> Composed:
    """Return the statement that inserts the objects of the JSON array `body`.

    `resolution` decides about a row that exists: None (an error), `merge-duplicates` or `ignore-duplicates`. With
    `defaults`, a column that an object lacks gets its default instead of null.
    """
    relation = Identifier(table.schema, table.name)
    if columns:
        rows = SQL("insert into {} ({}) select {} from {} where {}").format(
            relation,
            listed(map(Identifier, columns)),
            listed(Identifier("_", column) for column in columns),
            _recordset(table, columns, body, defaults=defaults),
            raw(_COUNT_INSERT),
        )
    else:
        rows = SQL("insert into {} default values").format(relation)
        if body == "[]":
            rows = SQL("insert into {} select from {} where false").format(relation, relation)
    target = query.on_conflict or table.key
    if resolution and target and columns:
        rows += SQL(" on conflict ({}) do ").format(listed(map(Identifier, target)))
        if resolution == "merge-duplicates":
            changes = listed(SQL("{0} = excluded.{0}").format(Identifier(column)) for column in columns)
            rows += SQL("update set {} where {}").format(changes, raw(_COUNT_UPDATE))
        else:
            rows += SQL("nothing")
    return _changed(rows, table, query, form, returning=returning)


def update(
    table: Table,
    query: Query,
    columns: Sequence[str],
    body: str,
    form: Form,
    *,
    returning: bool,
    defaults: bool,
) -> Composed:
    """Return the statement that sets `columns` from the JSON array `body`, which has one object."""
    relation = Identifier(table.schema, table.name)
    if columns:
        rows = SQL("update {} set {} from {}{}").format(
            relation,
            listed(
                SQL("{0} = {1}").format(Identifier(column), Identifier("_", column)) for column in columns
            ),
            _recordset(table, columns, body, defaults=defaults),
            where(query, relation),
        )
    else:
        rows = SQL("select * from {} where false").format(relation)
        return _answer(rows, None, SQL("*"), form.rows())
    return _changed(rows, table, query, form, returning=returning)


def delete(table: Table, query: Query, form: Form, *, returning: bool) -> Composed:
    """Return the statement that deletes rows."""
    relation = Identifier(table.schema, table.name)
    rows = SQL("delete from {}{}").format(relation, where(query, relation))
    return _changed(rows, table, query, form, returning=returning)


def call(
    function: Function,
    query: Query,
    given: Iterable[str],
    body: str | bytes | None,
    form: Form,
    *,
    count: bool,
) -> Composed:
    """Return the statement that calls a function, with arguments from the JSON `body` or else from the query."""
    name = Identifier(function.schema, function.name)
    arguments = list(given)
    origin: Composable = SQL("")
    if function.takes_body and (body is not None or arguments):
        whole = json.dumps(query.arguments) if body is None else body
        called = SQL("{}({}::{})").format(name, Literal(whole), raw(function.arguments[""]))
    elif body is not None and arguments:
        typed = listed(
            SQL("{} {}").format(Identifier(one), raw(function.arguments[one])) for one in arguments
        )
        passed = listed(SQL("{} := {}").format(Identifier(one), Identifier("_", one)) for one in arguments)
        origin = SQL("json_to_record({}) as _ ({}), lateral ").format(Literal(body), typed)
        called = SQL("{}({})").format(name, passed)
    else:
        passed = listed(
            SQL("{} := {}::{}").format(
                Identifier(one), Literal(query.arguments[one]), raw(function.arguments[one])
            )
            for one in arguments
        )
        called = SQL("{}({})").format(name, passed)
    result = Identifier("result")
    if not function.returns_columns:
        source = SQL("select result.value from {}{} as result (value)").format(origin, called)
        source += page(query, result) if function.returns_set else SQL("")
        body_sql = _VALUES if function.returns_set and not form.single else _VALUE
        return _answer(source, SQL("select 1 from source") if count else None, SQL("*"), body_sql)
    every = SQL("select result.* from {}{} as result").format(origin, called)
    source = SQL("select {} from called as result{}{}").format(
        selection(query.selected, result), where(query, result), page(query, result)
    )
    total = SQL("select 1 from called as result{}").format(where(query, result)) if count else None
    rows = form.rows(single=not function.returns_set)
    return SQL("with called as ({}), ").format(every) + _parts(source, total, SQL("*"), rows)


def _answer(source: Composable, total: Composable | None, columns: Composable, body: str) -> Composed:
    return SQL("with ") + _parts(source, total, columns, body)


def _parts(
    source: Composable,
    total: Composable | None,
    columns: Composable,
    body: str,
    order: Composable = SQL(""),  # noqa: B008 - it cannot change
) -> Composed:
    counted = SQL("(select count(*) from ({}) as counted)").format(total) if total else SQL("null::bigint")
    return SQL("source as ({}) select {}, count(_t), ({})::text from (select {} from source{}) as _t").format(
        source, counted, raw(body), columns, order
    )


def _changed(rows: Composable, table: Table, query: Query, form: Form, *, returning: bool) -> Composed:
    """Wrap an insert, update or delete; the body has its rows only if they are asked for."""
    if not returning:
        return _answer(SQL("{} returning 1").format(rows), None, SQL("*"), "''")
    relation = Identifier(table.schema, table.name)
    needed: Composable = SQL("{}.*").format(relation)
    if query.selected is not None and all(one.field.column != "*" for one in query.selected):
        names = dict.fromkeys(one.field.column for one in query.selected)
        needed = listed(Identifier(table.schema, table.name, column) for column in names)
    source = SQL("{} returning {}").format(rows, needed)
    changed = Identifier("source")
    columns = selection(query.selected, changed)
    return SQL("with ") + _parts(source, None, columns, form.rows(), order(query, changed))


def _recordset(table: Table, columns: Iterable[str], body: str, *, defaults: bool) -> Composed:
    typed = listed(
        SQL("{} {}").format(Identifier(column), raw(table.columns[column].type)) for column in columns
    )
    if not defaults:
        return SQL("json_to_recordset({}) as _ ({})").format(Literal(body), typed)
    pairs = [
        SQL("{}, {}").format(Literal(column), raw(default))
        for column in columns
        if (default := table.columns[column].default) is not None
    ]
    filled = SQL("select jsonb_agg(jsonb_build_object({}) || given) from jsonb_array_elements({}) as given")
    return SQL("jsonb_to_recordset(({})) as _ ({})").format(
        filled.format(listed(pairs), Literal(body)), typed
    )
