"""Parses PostgREST's query strings."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from watcher.sandbox.absent import Absent
from watcher.sandbox.rest.errors import absent, out_of_range, unparsable

OPERATORS = {
    "eq": "=", "neq": "<>", "gt": ">", "gte": ">=", "lt": "<", "lte": "<=", "like": "like", "ilike": "ilike",
    "match": "~", "imatch": "~*", "isdistinct": "is distinct from", "cs": "@>", "cd": "<@", "ov": "&&",
    "sl": "<<", "sr": ">>", "nxr": "&<", "nxl": "&>", "adj": "-|-",
}  # fmt: skip
_IS = {"null", "not_null", "true", "false", "unknown"}
_FILTER = re.compile(
    rf"(?P<negated>not\.)?(?P<operator>{'|'.join(sorted(OPERATORS, reverse=True))}|in|is)"
    r"(?:\((?P<quantifier>any|all)\))?\.(?P<value>.*)",
    re.DOTALL,
)
_NAME = r'(?:"(?:[^"\\]|\\.)*"|[^\s"(),.:*>-](?:[^"(),.:>-]|-(?!>))*)'
_FIELD = re.compile(rf"(?P<name>{_NAME})(?P<path>(?:->>?(?:{_NAME}|-?\d+))*)")
_SELECTED = re.compile(rf"(?:(?P<alias>{_NAME}):(?!:))?{_FIELD.pattern}(?:::(?P<cast>[\w\s\[\]]+))?")
_AGGREGATE = re.compile(rf"(?:{_NAME}:)?(?:{_FIELD.pattern.replace('?P<name>', '?:').replace('?P<path>', '?:')}\.)?"
                        r"(?:avg|count|max|min|sum)\(\)(?:::[\w\s\[\]]+)?")  # fmt: skip
_FULL_TEXT = re.compile(r"(?:not\.)?(?:fts|plfts|phfts|wfts)[.(]")
_AGGREGATES_HINT = "On Supabase they are refused, too, unless pgrst.db_aggregates_enabled is set: PGRST123."
_STEP = re.compile(rf"(->>?)({_NAME}|-?\d+)")


@dataclass(frozen=True)
class Field:
    """A column, or the value at a path of arrows and keys in it."""

    column: str
    path: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Selected:
    """A field of the answer, with a name and a type to cast it to."""

    field: Field
    alias: str | None
    cast: str | None


@dataclass(frozen=True)
class Filter:
    """A condition on a field; `values` has one value, or for `in`, `any` and `all` several."""

    field: Field
    operator: str
    values: tuple[str, ...]
    negated: bool = False
    quantifier: str | None = None


@dataclass(frozen=True)
class Logic:
    """Conditions joined by `and` or `or`."""

    joint: str
    conditions: tuple["Filter | Logic", ...]
    negated: bool = False


@dataclass(frozen=True)
class Order:
    """A field to sort by."""

    field: Field
    direction: str | None
    nulls: str | None


@dataclass
class Query:
    """A query string; `selected` is None for all columns."""

    selected: list[Selected] | None = None
    conditions: list[Filter | Logic] = field(default_factory=list)
    order: list[Order] = field(default_factory=list)
    limit: int | None = None
    offset: int = 0
    columns: list[str] | None = None
    on_conflict: list[str] | None = None
    arguments: dict[str, str] = field(default_factory=dict)
    """The arguments of a function called with GET: what is not a condition."""


def parse(items: Iterable[tuple[str, str]], *, call: bool = False) -> Query:
    """Parse a decoded query string; with `call`, what is not a condition is an argument.

    Raises `RestError`.
    """
    query = Query()
    for key, value in items:
        match key:
            case "select":
                query.selected = _select(value)
            case "order":
                query.order = [_order(item) for item in _split(value)]
            case "limit":
                query.limit = _count("limit", value)
            case "offset":
                query.offset = _count("offset", value)
            case "columns":
                query.columns = [_unquote(item) for item in _split(value)]
            case "on_conflict":
                query.on_conflict = [_unquote(item) for item in _split(value)]
            case "and" | "or" | "not.and" | "not.or":
                condition, rest = _condition(f"{key}{value}")
                if rest:
                    raise unparsable("logic tree", value)
                query.conditions.append(condition)
            case _ if call and not _FILTER.fullmatch(value):
                query.arguments[key] = value
            case _:
                if "." in key and not key.startswith('"'):
                    raise absent(Absent.REST_EMBEDDING)
                query.conditions.append(_filter(_field(key), value))
    return query


def _count(name: str, value: str) -> int:
    if not re.fullmatch(r"-?\d+", value):
        raise unparsable(f"{name} parameter", value)
    if int(value) < 0:
        raise out_of_range("Limit should be greater than or equal to zero.")
    return int(value)


def _select(text: str) -> list[Selected] | None:
    items = _split(text)
    if items in ([], ["*"]):
        return None
    selected = []
    for item in items:
        if _AGGREGATE.fullmatch(item):
            raise absent(Absent.REST_AGGREGATES, _AGGREGATES_HINT)
        if "(" in item:
            raise absent(Absent.REST_EMBEDDING)
        if item == "*":
            selected.append(Selected(Field("*"), None, None))
            continue
        found = _SELECTED.fullmatch(item)
        if found is None:
            raise unparsable("select parameter", text)
        alias = _unquote(found["alias"]) if found["alias"] else None
        selected.append(Selected(_field_of(found), alias, found["cast"]))
    return selected


def _order(item: str) -> Order:
    if "(" in item:
        raise absent(Absent.REST_EMBEDDING)
    found = re.fullmatch(
        rf"{_FIELD.pattern}(?:\.(?P<direction>asc|desc))?(?:\.nulls(?P<nulls>first|last))?", item
    )
    if found is None:
        raise unparsable("order", item)
    return Order(_field_of(found), found["direction"], found["nulls"])


def _field(text: str) -> Field:
    found = _FIELD.fullmatch(text)
    if found is None:
        raise unparsable("field", text)
    return _field_of(found)


def _field_of(found: re.Match[str]) -> Field:
    steps = tuple((arrow, _unquote(key)) for arrow, key in _STEP.findall(found["path"]))
    return Field(_unquote(found["name"]), steps)


def _filter(subject: Field, text: str) -> Filter:
    if _FULL_TEXT.match(text):
        raise absent(Absent.REST_FULL_TEXT)
    found = _FILTER.fullmatch(text)
    if found is None:
        raise unparsable("filter", text)
    operator, value, quantifier = found["operator"], found["value"], found["quantifier"]
    if operator == "in":
        values = _list("()", value)
    elif quantifier:
        values = _list("{}", value)
    else:
        values = (value,)
    if operator == "is" and value.lower() not in _IS:
        raise unparsable("filter", text)
    return Filter(subject, operator, values, bool(found["negated"]), quantifier)


def _list(brackets: str, text: str) -> tuple[str, ...]:
    if not (text.startswith(brackets[0]) and text.endswith(brackets[1])):
        raise unparsable("filter", text)
    return tuple(_unquote(item) for item in _split(text[1:-1]))


def _condition(text: str) -> tuple[Filter | Logic, str]:
    """Parse a condition of a logic tree at the beginning of `text`; return it and the rest."""
    found = re.match(r"(?P<negated>not\.)?(?P<joint>and|or)\(", text)
    if found is None:
        return _leaf(text)
    conditions: list[Filter | Logic] = []
    rest = text[found.end() - 1 :]
    while rest[:1] in {"(", ","}:
        condition, rest = _condition(rest[1:].lstrip())
        conditions.append(condition)
        rest = rest.lstrip()
    if rest[:1] != ")":
        raise unparsable("logic tree", text)
    return Logic(found["joint"], tuple(conditions), bool(found["negated"])), rest[1:]


def _leaf(text: str) -> tuple[Filter, str]:
    """Parse `field.operator.value`, where the value ends at a comma or bracket of the tree."""
    subject = re.match(rf"{_FIELD.pattern}\.", text)
    if subject is None:
        raise unparsable("logic tree", text)
    rest = text[subject.end() :]
    head = re.match(r"(?:not\.)?\w+(?:\(\w+\))?\.", rest)
    if head is None:
        raise unparsable("logic tree", text)
    tail = rest[head.end() :]
    value = re.match(r'\((?:[^()"]|"(?:[^"\\]|\\.)*")*\)|\{[^{}]*\}|"(?:[^"\\]|\\.)*"|[^,()]*', tail)
    assert value is not None
    plain = value[0] if value[0].startswith(("(", "{")) else _unquote(value[0])
    return _filter(_field_of(subject), head[0] + plain), tail[value.end() :]


def _split(text: str) -> list[str]:
    """Split at commas outside of quotes and brackets."""
    items, item, depth, quoted, escaped = [], "", 0, False, False
    for character in text:
        if character == "," and not quoted and depth == 0:
            items.append(item)
            item = ""
            continue
        if not escaped and character == '"':
            quoted = not quoted
        elif not quoted:
            depth += {"(": 1, ")": -1}.get(character, 0)
        escaped = quoted and character == "\\" and not escaped
        item += character
    return [*items, item] if text else []


def _unquote(text: str) -> str:
    if len(text) >= 2 and text[0] == text[-1] == '"':
        return re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL)
    return text
