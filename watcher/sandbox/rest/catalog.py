"""Tables and functions of a schema, read for each request, so that they are never out of date."""

from dataclasses import dataclass
from typing import Any

from watcher.sandbox.database import Cursor
from watcher.sandbox.rest.errors import RestError
from watcher.sandbox.rest.fuzzy import closest

_TABLE = """
select a.attname, format_type(a.atttypid, a.atttypmod),
       case a.attidentity when 'd' then format('nextval(%%L)', pg_get_serial_sequence(a.attrelid::regclass::text, a.attname))
            else pg_get_expr(d.adbin, d.adrelid) end,
       coalesce(a.attnum = any (k.conkey), false)
  from pg_class c
  join pg_namespace n on n.oid = c.relnamespace
  join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
  left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum and a.attgenerated = ''
  left join pg_constraint k on k.conrelid = c.oid and k.contype = 'p'
 where n.nspname = %s and c.relname = %s and c.relkind in ('r', 'v', 'm', 'f', 'p')
 order by a.attnum
"""
_FUNCTIONS = """
select p.proname, coalesce(p.proargnames, '{}'), p.proargmodes::text[],
       array(select format_type(type, null) from unnest(p.proargtypes) with ordinality given (type, place)
              order by place),
       p.pronargdefaults, p.proretset, p.prorettype = 'void'::regtype,
       t.typtype = 'c' or coalesce(p.proargmodes::text[] && '{t,b,o}', false),
       p.provolatile <> 'v', coalesce(p.proconfig, '{}')
  from pg_proc p
  join pg_namespace n on n.oid = p.pronamespace
  join pg_type t on t.oid = p.prorettype
 where n.nspname = %s and (p.proname = %s or %s) and p.prokind = 'f' and p.prorettype <> 'trigger'::regtype
 order by p.oid
"""
_ALL_TABLES = """
select relname from pg_class where relnamespace = to_regnamespace(%s) and relkind in ('r', 'v', 'm', 'f', 'p')
"""
UNNAMED_BODIES = {
    "application/json": ("json", "jsonb"),
    "text/plain": ("text",),
    "text/xml": ("xml",),
    "application/octet-stream": ("bytea",),
}
"""The types of a single unnamed parameter that can be the whole body, by the type of the body."""
_CALLABLE = {kind for kinds in UNNAMED_BODIES.values() for kind in kinds}


@dataclass(frozen=True)
class Column:
    """One column of a table; `default` is SQL."""

    type: str
    default: str | None
    in_key: bool


@dataclass(frozen=True)
class Table:
    """A table or view and its columns by name."""

    schema: str
    name: str
    columns: dict[str, Column]

    @property
    def key(self) -> list[str]:
        """The primary key's columns."""
        return [name for name, column in self.columns.items() if column.in_key]


@dataclass(frozen=True)
class Function:
    """A function: the types of its `arguments` by name, of which the last `optional` ones can be omitted."""

    schema: str
    name: str
    arguments: dict[str, str]
    optional: int
    returns_set: bool
    returns_nothing: bool
    returns_columns: bool
    stable: bool
    settings: dict[str, str]

    @property
    def takes_body(self) -> bool:
        """Whether its only argument is unnamed, so that it is the body."""
        return list(self.arguments) == [""]

    def accepts(self, given: set[str], body: str | None) -> bool:
        """Return whether it can be called with exactly these arguments, in a body of this type or (None) in the query."""
        names = list(self.arguments)
        if not names and body in UNNAMED_BODIES and body != "application/json":
            return False
        return set(names[: len(names) - self.optional]) <= given <= set(names)


async def find_table(cursor: Cursor, schema: str, name: str) -> Table:
    """Return a table; raises `RestError` if there is none."""
    await cursor.execute(_TABLE, [schema, name], prepare=True)
    columns = {row[0]: Column(*row[1:]) for row in await cursor.fetchall()}
    if not columns:
        await cursor.execute(_ALL_TABLES, [schema])
        near = closest(name, (row[0] for row in await cursor.fetchall()))
        message = f"Could not find the table '{schema}.{name}' in the schema cache"
        hint = f"Perhaps you meant the table '{schema}.{near}'" if near else None
        raise RestError(404, "PGRST205", message, hint=hint)
    return Table(schema, name, columns)


async def find_function(
    cursor: Cursor, schema: str, name: str, given: set[str], *, body: str | None
) -> Function:
    """Return the function that takes the arguments `given`; raises `RestError` if none does, or several do.

    `body` is the type of the body that has them, None for a call with GET.
    """
    overloads = await _functions(cursor, schema, name)
    fitting = [one for one in overloads if one.accepts(given, body)]
    if not fitting and body is not None:
        kinds = UNNAMED_BODIES.get(body, ())
        fitting = [one for one in overloads if one.takes_body and one.arguments[""] in kinds]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise _ambiguous(fitting)
    others = [one.name for one in await _functions(cursor, schema, None)]
    raise _missing(schema, name, sorted(given), overloads, others, body=body)


async def _functions(cursor: Cursor, schema: str, name: str | None) -> list[Function]:
    """Return the functions of that name, or all, in PostgREST's order."""
    await cursor.execute(_FUNCTIONS, [schema, name, name is None], prepare=True)
    found = [_function(schema, row) for row in await cursor.fetchall()]
    return sorted(filter(None, found), key=lambda one: (len(one.arguments), list(one.arguments.items())))


def _function(schema: str, row: tuple[Any, ...]) -> Function | None:
    """Return a function, or None for one that PostgREST does not expose: its arguments have no names."""
    name, names, modes, types, optional, returns_set, returns_nothing, returns_columns, stable, settings = row
    given = [
        names[place] if place < len(names) else ""
        for place, mode in enumerate(modes or "i" * len(types))
        if mode in {"i", "b", "v"}
    ]
    unnamed = given.count("")
    if unnamed > 1 or (unnamed and types[0] not in _CALLABLE):
        return None
    return Function(
        schema,
        name,
        dict(zip(given, types, strict=True)),
        optional,
        returns_set,
        returns_nothing,
        returns_columns,
        stable,
        dict(setting.split("=", 1) for setting in settings),
    )


def _missing(
    schema: str,
    name: str,
    given: list[str],
    overloads: list[Function],
    others: list[str],
    *,
    body: str | None,
) -> RestError:
    listed = ", ".join(given)
    searched = f" with parameter{'s' if len(given) > 1 else ''} {listed}" if given else " without parameters"
    call = f"({listed})" if given else " without parameters"
    hint = None
    if body in UNNAMED_BODIES and body != "application/json":
        searched, call = f" with a single unnamed {UNNAMED_BODIES[body][0]} parameter", ""
    else:
        hint = _hint(schema, name, listed, overloads, others)
        if body == "application/json":
            searched += " or with a single unnamed json/jsonb parameter"
    return RestError(
        404,
        "PGRST202",
        f"Could not find the function {schema}.{name}{call} in the schema cache",
        details=f"Searched for the function {schema}.{name}{searched}, but no matches were found in the"
        " schema cache.",
        hint=hint,
    )


def _hint(schema: str, name: str, given: str, overloads: list[Function], others: list[str]) -> str | None:
    """Return the hint at the most similar function, or at the most similar arguments of the one of that name."""
    if overloads:
        near = closest(f"({given})", (f"({', '.join(sorted(one.arguments))})" for one in overloads))
        found = f"{name}{near}" if near else None
    else:
        found = closest(name, others)
    return f"Perhaps you meant to call the function {schema}.{found}" if found else None


def _ambiguous(fitting: list[Function]) -> RestError:
    calls = [
        f"{one.schema}.{one.name}({', '.join(f'{name} => {kind}' for name, kind in one.arguments.items())})"
        for one in fitting
    ]
    return RestError(
        300,
        "PGRST203",
        f"Could not choose the best candidate function between: {', '.join(calls)}",
        hint="Try renaming the parameters or the function itself in the database so function overloading can"
        " be resolved",
    )
