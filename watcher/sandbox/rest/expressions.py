"""Turns the parts of a query into SQL: the columns it selects, its conditions, its order and its page."""

import re
from collections.abc import Iterable, Sequence

from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from watcher.sandbox.rest.query import OPERATORS, Field, Filter, Logic, Order, Query, Selected


def raw(text: str) -> SQL:
    """Return SQL that is written here or comes from the catalogue; of a request only words that match a pattern."""
    return SQL(text)


def selection(selected: Sequence[Selected] | None, relation: Identifier) -> Composable:
    """Return the columns to select; all of them if none are named."""
    return (
        SQL("{}.*").format(relation) if selected is None else listed(_item(one, relation) for one in selected)
    )


def _item(one: Selected, relation: Identifier) -> Composable:
    if one.field.column == "*":
        return SQL("{}.*").format(relation)
    item: Composable = _field(one.field, relation)
    if one.cast:
        item = SQL("cast({} as {})").format(item, _type(one.cast))
    keys = [key for _, key in one.field.path if not re.fullmatch(r"-?\d+", key)]
    name = one.alias or (keys[-1] if keys else one.field.column)
    return SQL("{} as {}").format(item, Identifier(name))


def _type(name: str) -> Composable:
    """Return the name of a type from a request: words, and perhaps brackets."""
    base, brackets, _ = name.partition("[")
    words = re.findall(r"\w+", base)
    quoted = SQL(" ").join(raw(word) for word in words)
    return SQL("{}[]").format(quoted) if brackets else quoted


def _field(field: Field, relation: Identifier) -> Composable:
    steps: Composable = SQL("{}.{}").format(relation, Identifier(field.column))
    if field.path:
        # With to_jsonb, arrows reach into arrays and composite columns, too.
        steps = SQL("to_jsonb({})").format(steps)
    for arrow, key in field.path:
        index = re.fullmatch(r"-?\d+", key)
        steps = SQL("({}{}{})").format(steps, raw(arrow), Literal(int(key)) if index else Literal(key))
    return steps


def where(query: Query, relation: Identifier) -> Composable:
    """Return the where clause; nothing without conditions."""
    if not query.conditions:
        return SQL("")
    return SQL(" where ") + SQL(" and ").join(_condition(one, relation) for one in query.conditions)


def _condition(condition: Filter | Logic, relation: Identifier) -> Composable:
    if isinstance(condition, Logic):
        joint = SQL(" and ") if condition.joint == "and" else SQL(" or ")
        text: Composable = SQL("({})").format(
            joint.join(_condition(one, relation) for one in condition.conditions)
        )
    else:
        text = _comparison(condition, relation)
    return SQL("not {}").format(text) if condition.negated else text


def _comparison(one: Filter, relation: Identifier) -> Composable:
    field, operator = _field(one.field, relation), one.operator
    values = [value.replace("*", "%") for value in one.values] if operator.endswith("like") else one.values
    if operator == "in":
        return SQL("{} = any ({})").format(field, Literal(_array(values)))
    if operator == "is":
        return SQL("{} is {}").format(field, raw(values[0].lower().replace("_", " ")))
    symbol = raw(OPERATORS[operator])
    if one.quantifier:
        return SQL("{} {} {} ({})").format(field, symbol, raw(one.quantifier), Literal(_array(values)))
    return SQL("{} {} {}").format(field, symbol, Literal(values[0]))


def _array(values: Iterable[str]) -> str:
    quoted = ('"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' for value in values)
    return "{" + ",".join(quoted) + "}"


def page(query: Query, relation: Identifier) -> Composable:
    """Return the order by, limit and offset clauses."""
    text = order(query, relation)
    if query.limit is not None:
        text += SQL(" limit {}").format(Literal(query.limit))
    if query.offset:
        text += SQL(" offset {}").format(Literal(query.offset))
    return text


def order(query: Query, relation: Identifier) -> Composable:
    """Return the order by clause; nothing if no order is asked for."""
    if not query.order:
        return SQL("")
    return SQL(" order by {}").format(listed(_ordered(one, relation) for one in query.order))


def _ordered(one: Order, relation: Identifier) -> Composable:
    text = _field(one.field, relation)
    if one.direction:
        text += SQL(" ") + raw(one.direction)
    if one.nulls:
        text += SQL(" nulls ") + raw(one.nulls)
    return text


def listed(items: Iterable[Composable]) -> Composed:
    """Return the items with commas between them."""
    return SQL(", ").join(items)
