"""What examples/web has from this side: `python -m tests.migrations.frontend` writes it anew.

- database.types.ts, from the schema, for a signed-in user: what may not be written is no property, so tsc refuses it.
- fileTypes.ts, from the daemon's table of formats, so that the page says the same of a file.
"""

import json
import re
from pathlib import Path
from typing import Any

from tests.support.database import Database, migrate
from watcher.photos import file_types
from watcher.sandbox import Postgres

_SOURCE = Path(__file__).parents[2] / "examples/web/src"
TYPES, FORMATS = _SOURCE / "database.types.ts", _SOURCE / "fileTypes.ts"
_MADE = "// Made by `python -m tests.migrations.frontend`; do not edit.\n"
_COLUMNS = """
select c.relname as "table", a.attname as "column", format_type(a.atttypid, null) as type, a.attnotnull as required,
       a.atthasdef as has_default,
       has_column_privilege('authenticated', c.oid, a.attnum, 'select') as "Row",
       has_column_privilege('authenticated', c.oid, a.attnum, 'insert') as "Insert",
       has_column_privilege('authenticated', c.oid, a.attnum, 'update') as "Update",
       (select pg_get_constraintdef(k.oid) from pg_constraint k
         where k.conrelid = c.oid and k.contype = 'c' and k.conkey = array[a.attnum]
           and pg_get_constraintdef(k.oid) like '%= ANY (ARRAY[%') as choices
from pg_class c join pg_attribute a on a.attrelid = c.oid
where c.relnamespace = 'public'::regnamespace and c.relkind = 'r' and a.attnum > 0 and not a.attisdropped
order by c.relname, a.attname collate "C"
"""
_SCALARS = {
    "uuid": "string",
    "text": "string",
    "timestamp with time zone": "string",
    "integer": "number",
    "bigint": "number",
    "boolean": "boolean",
    "jsonb": "Json",
}
_JSON = (
    "export type Json = string | number | boolean | null | { [key: string]: Json | undefined } | Json[]\n\n"
)


def types(database: Database) -> str:
    """The types of a database's tables, as supabase-js takes them and as the Supabase CLI writes them."""
    columns = database.run(_COLUMNS)
    named = sorted({one["table"] for one in columns if one["Row"]})
    tables = "".join(_table(name, [one for one in columns if one["table"] == name]) for name in named)
    empty = "".join(
        f"    {name}: {{ [_ in never]: never }}\n"
        for name in ("Views", "Functions", "Enums", "CompositeTypes")
    )
    return f"{_MADE}{_JSON}export type Database = {{\n  public: {{\n    Tables: {{\n{tables}    }}\n{empty}  }}\n}}\n"


def _table(name: str, columns: list[dict[str, Any]]) -> str:
    shapes = ""
    for shape in ("Row", "Insert", "Update"):
        lines = [_property(one, shape) for one in columns if one[shape]]
        shapes += f"        {shape}: {{\n{''.join(lines)}        }}\n"
    return f"      {name}: {{\n{shapes}        Relationships: []\n      }}\n"


def _property(column: dict[str, Any], shape: str) -> str:
    optional = shape == "Update" or (shape == "Insert" and (column["has_default"] or not column["required"]))
    value = _type(column) + ("" if column["required"] else " | null")
    return f"          {column['column']}{'?' if optional else ''}: {value}\n"


def _type(column: dict[str, Any]) -> str:
    if column["choices"]:
        return " | ".join(f"'{choice}'" for choice in re.findall(r"'(\w+)'::text", column["choices"]))
    scalar = column["type"].removesuffix("[]")
    return _SCALARS[scalar] + ("[]" if column["type"].endswith("[]") else "")


def formats() -> str:
    """The daemon's patterns of first bytes, for JavaScript, and what to say of each."""
    rows = "".join(
        f"  [{json.dumps(_pattern(pattern.pattern))}, {json.dumps(words)}],\n"
        for pattern, words in file_types._FORMATS
    )
    return f"""{_MADE}const formats: [string, string][] = [
{rows}]

/** Says what a file is by its first {file_types.SIGNATURE_BYTES} bytes: the end of "Photo 3 (a.heic) is a HEIC photo". */
export function describe(start: Uint8Array): string {{
  const text = String.fromCharCode(...start.subarray(0, {file_types.SIGNATURE_BYTES}))
  const found = formats.find(([pattern]) => new RegExp(`^(?:${{pattern}})`, 'is').test(text))
  return found?.[1] ?? {json.dumps(file_types.describe(b"?" + bytes(range(1, 32))))}
}}
"""


def _pattern(pattern: bytes) -> str:
    """Translate what Python writes differently: the end of the text, and octal escapes."""
    text = pattern.decode("ascii").replace(r"\Z", "$")
    return re.sub(r"\\([0-7])", lambda found: f"\\x0{found[1]}", text)


def _main() -> None:
    with Postgres() as postgres:
        postgres.create("migrated", auto_expose=False)
        migrate(postgres.dsn("migrated", "postgres"))
        database = Database(postgres, "migrated")
        TYPES.write_text(types(database))
        database.close()
    FORMATS.write_text(formats())


if __name__ == "__main__":
    _main()
