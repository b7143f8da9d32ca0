"""Tables, columns, constraints, indexes, triggers and functions that differ from what the migrations created.

Compares the `definitions` in the answer of `watcher_catalogue` with those in catalogue.json, and has for each difference
the SQL that ends it. Never runs it.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from watcher.operator.doctor.drift import Drift

# In the order in which they can be restored.
_KINDS = (
    "table", "column", "function", "owner", "constraint", "index", "trigger", "row security", "replica identity",
    "published part",
)  # fmt: skip
# Of these, others in the same place are the app's own.
_ONLY_OURS = {"table", "column", "constraint", "index"}
_PUBLICATION = "supabase_realtime"


def definitions(actual: Mapping[str, Any], expected: Mapping[str, Any]) -> Iterator[Drift]:
    """Find what is missing, was changed, or was added where only ours may be."""
    have, want = actual["definitions"], expected["definitions"]
    for kind in _KINDS:
        for name in (name for name in want if name.startswith(f"{kind} ") and have.get(name) != want[name]):
            yield _restored(name, kind, have.get(name), want[name])
        if kind not in _ONLY_OURS:
            for name in (name for name in have if name.startswith(f"{kind} ") and name not in want):
                if kind != "function" or _concerns_us(name, want):
                    yield _added(name, kind, have[name])


def _concerns_us(function: str, want: Mapping[str, str]) -> bool:
    """Whether an additional function is in our schema, or a second one of a name that PostgREST has to tell apart."""
    name = function.partition("(")[0]
    return name.startswith("function watcher.") or any(known.startswith(f"{name}(") for known in want)


def _restored(name: str, kind: str, have: str | None, want: str) -> Drift:
    if kind in {"row security", "replica identity"}:
        table = name.partition(" of ")[2]
        setting = "enable row level security" if kind == "row security" else f"replica identity {want}"
        if want == "off":
            setting = "disable row level security"
        consequence = ": no change of it can be written while it is published" if have == "nothing" else ""
        return Drift(f"The {name} is {have}, not {want}{consequence}.", f"alter table {table} {setting};")
    state = "is missing" if have is None else "is disabled" if have.endswith("-- disabled") else "was changed"
    return Drift(f"The {name} {state}.", _statement(name, kind, have, want))


def _statement(name: str, kind: str, have: str | None, want: str) -> str:
    own, _, table = name.removeprefix(f"{kind} ").rpartition(" on " if kind == "trigger" else " of ")
    match kind:
        case "table":
            return f"create table {table} ();"
        case "column":
            return _column(table, own, have, want)
        case "constraint":
            drop = "" if have is None else f"alter table {table} drop constraint {own};\n"
            return f"{drop}alter table {table} add constraint {own} {want};"
        case "index":
            return f"drop index if exists {table};\n{want};"
        case "trigger":
            return f"drop trigger if exists {own} on {table};\n{want};"
        case _:
            return f"{want.rstrip()};"


def _column(table: str, column: str, have: str | None, want: str) -> str:
    if have is None:
        return f"alter table {table} add column {column} {want};"
    form = re.compile(r"(?P<type>.*?)(?: default (?P<default>.*?))?(?P<required> not null)?")
    old, new = form.fullmatch(have), form.fullmatch(want)
    assert old is not None
    assert new is not None
    changes = []
    if old["type"] != new["type"]:
        changes.append(f"alter column {column} type {new['type']}")
    if old["default"] != new["default"]:
        default = "drop default" if new["default"] is None else f"set default {new['default']}"
        changes.append(f"alter column {column} {default}")
    if old["required"] != new["required"]:
        changes.append(f"alter column {column} {'set' if new['required'] else 'drop'} not null")
    return f"alter table {table} {', '.join(changes)};"


def _added(name: str, kind: str, have: str) -> Drift:
    own, _, table = name.removeprefix(f"{kind} ").partition(" on " if kind == "trigger" else "of ")
    match kind:
        case "owner":
            return Drift(f"The {table} belongs to {have}.", f"alter {table} owner to current_user;")
        case "published part":
            return Drift(
                f"The Realtime publication {_PUBLICATION} has only a part of {table}: {have}.",
                f"alter publication {_PUBLICATION} drop table {table};\n"
                f"alter publication {_PUBLICATION} add table {table};",
            )
        case "trigger":
            return Drift(f"There is an additional {name}.", f"drop trigger {own} on {table};")
        case _:
            return Drift(f"There is an additional {name}.", f"drop {name};")
