"""One entry of `postgres_changes`: the changes that a client subscribes to, parsed as Realtime does."""

import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_OPERATORS = (
    *("eq", "neq", "lt", "lte", "gt", "gte", "in", "like", "ilike", "is", "match", "imatch", "isdistinct"),
)
_ACTIONS = ("INSERT", "UPDATE", "DELETE")


class BindingError(Exception):
    """The subscription is refused; the message goes to the client."""


@dataclass(frozen=True)
class Filter:
    """A condition on one column."""

    column: str
    operator: str
    value: str
    negated: bool

    def __str__(self) -> str:
        """Return the filter as Elixir prints it."""
        shown = [_text(part) for part in (self.column, self.operator, self.value)]
        return f"{{{', '.join(shown)}, {str(self.negated).lower()}}}"


@dataclass(frozen=True)
class Binding:
    """Which changes of which tables; `*` stands for any."""

    action: str
    schema: str
    table: str
    filters: tuple[Filter, ...]
    columns: tuple[str, ...] | None

    def __str__(self) -> str:
        """Return the binding as it is in Realtime's messages."""
        filters = f"[{', '.join(map(str, self.filters))}]"
        select = "nil" if self.columns is None else f"[{', '.join(map(_text, self.columns))}]"
        return (
            f"[event: {self.action}, schema: {self.schema}, table: {self.table}, "
            f"filters: {filters}, select: {select}]"
        )


def parse(entry: Mapping[str, Any]) -> Binding:
    """Parse an entry. Raises `BindingError`."""
    event = str(entry.get("event", "*")).upper()
    columns = tuple(name for name in entry.get("select") or () if isinstance(name, str)) or None
    schema, table, conditions = entry.get("schema"), entry.get("table"), entry.get("filter")
    if not isinstance(schema or table, str) or (conditions is not None and not (schema and table)):
        raise BindingError(
            "No subscription params provided. Please provide at least a `schema` or `table` to subscribe to: "
            f"{json.dumps(dict(entry))}"
        )
    filters = tuple(_filters(str(conditions))) if conditions is not None else ()
    action = event if event in _ACTIONS else "*"
    return Binding(action, schema or "public", table or "*", filters, columns)


def identity(entry: Mapping[str, Any]) -> int:
    """Return the id of an entry: 27 bits, never 0, the same for the same entry."""
    return zlib.crc32(json.dumps(entry, sort_keys=True).encode()) % (2**27 - 1) + 1


def _filters(text: str) -> Iterator[Filter]:
    if not text.strip():
        return
    for condition in _split(text.strip()):
        if not condition.strip():
            raise _parse_error("filter must not contain empty segments (check for extra commas)")
        column, equals, rest = condition.strip().partition("=")
        negated = rest.startswith("not.")
        operator, dot, value = rest.removeprefix("not.").partition(".")
        if not equals:
            raise _parse_error(f"[{_text(column)}]")
        if not dot:
            raise _parse_error(f"[{_text(operator)}]")
        if operator not in _OPERATORS:
            raise _parse_error(f"[{_text(operator)}, {_text(value)}]")
        if operator == "in":
            if not (value.startswith("(") and value.endswith(")")):
                raise _parse_error("`in` filter value must be wrapped by parentheses")
            value = f"{{{value[1:-1]}}}"
        yield Filter(column, operator, value if operator == "in" else _unquoted(value), negated)


def _split(text: str) -> Iterator[str]:
    """Split at commas that are neither quoted nor in parentheses."""
    start, depth, quoted, previous = 0, 0, False, ""
    for at, letter in enumerate(text):
        if quoted:
            quoted = letter != '"' or previous == "\\"
        elif letter == '"' and previous in {".", "(", ","}:
            quoted = True
        elif letter in "()":
            depth = max(0, depth + (1 if letter == "(" else -1))
        elif letter == "," and depth == 0:
            yield text[start:at]
            start = at + 1
        previous = "" if previous == "\\" else letter
    yield text[start:]


def _unquoted(value: str) -> str:
    if len(value) < 2 or not (value.startswith('"') and value.endswith('"')):
        return value
    return value[1:-1].replace('\\"', '"').replace("\\\\", "\\")


def _parse_error(what: str) -> BindingError:
    return BindingError(f"Error parsing `filter` params: {what}")


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)
