"""Schema drift: what differs in the database from what the migrations created, and the SQL that restores it.

Compares the answer of `watcher_catalogue` with catalogue.json beside this file, which is that answer right after migrating.
It reads files only, and never runs the SQL.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_GRANT = re.compile(r"(?P<role>\S+) (?P<privilege>\w+)(?: \((?P<column>\w+)\))? on (?P<object>.+)")
_TABLES = {"trained_identities": "public.trained_identities", "watcher_pulse": "public.watcher_pulse"}
BUCKET = "identity-images"


def load_expected() -> dict[str, Any]:
    """Return the catalogue of a freshly migrated database."""
    catalogue: dict[str, Any] = json.loads(Path(__file__).with_name("catalogue.json").read_text("utf-8"))
    return catalogue


@dataclass(frozen=True, slots=True)
class Drift:
    """One difference from the migrated schema."""

    sentence: str
    remedy: str
    """SQL, for the SQL editor or psql."""


def tables(actual: Mapping[str, Any], _expected: Mapping[str, Any]) -> Iterator[Drift]:
    """Find tables without row-level security, where every signed-in user sees every row."""
    for table, secured in actual["row_security"].items():
        if not secured:
            name = _TABLES.get(table, f"storage.{table}")
            consequence = {
                "trained_identities": ": users can see each other's rows",
                "objects": ": users can see all files",
            }
            yield Drift(
                f"Row-level security is off on {name}{consequence.get(table, '')}.",
                f"alter table {name} enable row level security;",
            )


def policies(actual: Mapping[str, Any], expected: Mapping[str, Any]) -> Iterator[Drift]:
    """Find missing, changed and additional policies on our tables and on the bucket's objects."""
    expected_by_name = {_name(policy): policy for policy in expected["policies"] if _applies(policy)}
    actual_by_name = {_name(policy): policy for policy in actual["policies"]}
    for name, policy in expected_by_name.items():
        drop = f"drop policy {_quoted(policy['name'])} on {policy['table']};"
        if name not in actual_by_name:
            yield Drift(f'The policy "{policy["name"]}" on {policy["table"]} is missing.', _create(policy))
        elif actual_by_name[name] != policy:
            yield Drift(
                f'The policy "{policy["name"]}" on {policy["table"]} was changed.',
                f"{drop}\n{_create(policy)}",
            )
    for name, policy in actual_by_name.items():
        if name not in expected_by_name and _applies(policy) and policy["permissive"]:
            yield Drift(
                f'An additional policy grants access: "{policy["name"]}" on {policy["table"]}.',
                f"drop policy {_quoted(policy['name'])} on {policy['table']};",
            )


def grants(actual: Mapping[str, Any], expected: Mapping[str, Any]) -> Iterator[Drift]:
    """Find missing and additional privileges on functions, tables and columns."""
    for line in sorted(set(expected["grants"]) - set(actual["grants"])):
        if _is_gone(line.partition(" on ")[2], actual["definitions"]):
            continue  # what it is on has to be restored first
        yield Drift(f"A grant is missing: {line}.", _grant(line, "grant {} to {};"))
    for line in sorted(set(actual["grants"]) - set(expected["grants"])):
        remedy = [_grant(line, "revoke {} from {};")]
        # Revoking a privilege on a table revokes it on the columns as well.
        role_and_privilege, _, table = line.partition(" on ")
        columns = re.compile(rf"{re.escape(role_and_privilege)} \(\w+\) on {re.escape(table)}")
        remedy += [_grant(kept, "grant {} to {};") for kept in expected["grants"] if columns.fullmatch(kept)]
        yield Drift(f"Unexpected grant: {line}.", "\n".join(remedy))


def _is_gone(name: str, definitions: Mapping[str, str]) -> bool:
    """Whether the table or function of a grant is missing."""
    if name.startswith("schema "):
        return False
    if "." in name and "(" not in name:
        return f"table {name}" not in definitions
    whole = name if "(" in name else f"public.{name}("
    return not any(known.startswith(f"function {whole}") for known in definitions)


def bucket(actual: Mapping[str, Any], expected: Mapping[str, Any]) -> Iterator[Drift]:
    """Find out whether the bucket exists, is private and has its limits."""
    expected_bucket, actual_bucket = expected["bucket"], actual["bucket"]
    types = "{" + ",".join(expected_bucket["allowed_mime_types"] or []) + "}"
    if actual_bucket is None:
        yield Drift(
            f"The bucket {BUCKET} is missing.",
            "insert into storage.buckets (id, name, public, file_size_limit, allowed_mime_types)\n"
            f"values ('{BUCKET}', '{BUCKET}', false, {expected_bucket['file_size_limit']}, '{types}');",
        )
        return
    for column, sentence, value in (
        ("public", f"The bucket {BUCKET} is public: anybody who knows a path can see the photo.", "false"),
        (
            "file_size_limit",
            (
                f"The bucket {BUCKET} accepts files of {_bytes(actual_bucket['file_size_limit'])}, "
                f"not {_bytes(expected_bucket['file_size_limit'])}."
            ),
            str(expected_bucket["file_size_limit"]),
        ),
        (
            "allowed_mime_types",
            f"The bucket {BUCKET} accepts {_types(actual_bucket)}, not {_types(expected_bucket)}.",
            f"'{types}'",
        ),
    ):
        if actual_bucket[column] != expected_bucket[column]:
            yield Drift(sentence, f"update storage.buckets set {column} = {value} where id = '{BUCKET}';")  # noqa: S608  (never executed here)


def publication(actual: Mapping[str, Any], expected: Mapping[str, Any]) -> Iterator[Drift]:
    """Find out whether the Realtime publication has our tables and the events that Realtime delivers."""
    if actual["published_events"] is None:
        tables_ = ", ".join(_TABLES.values())
        yield Drift(
            "The Realtime publication supabase_realtime is missing.",
            f"create publication supabase_realtime for table {tables_};",
        )
        return
    for table, name in _TABLES.items():
        if table in expected["published_tables"] and table not in actual["published_tables"]:
            yield Drift(
                f"{name} is not in the Realtime publication supabase_realtime, so its changes are not delivered.",
                f"alter publication supabase_realtime add table {name};",
            )
    if actual["published_events"] != expected["published_events"]:
        yield Drift(
            "The Realtime publication supabase_realtime omits inserts or updates.",
            "alter publication supabase_realtime set (publish = 'insert, update, delete, truncate');",
        )


def _name(policy: Mapping[str, Any]) -> tuple[str, str]:
    return policy["table"], policy["name"]


def _applies(policy: Mapping[str, Any]) -> bool:
    """Whether it applies to our tables or our bucket; a policy that names no bucket applies to all."""
    if policy["table"] != "storage.objects":
        return True
    text = f"{policy['using']} {policy['check']}"
    return BUCKET in text or "bucket_id" not in text


def _create(policy: Mapping[str, Any]) -> str:
    lines = [f"create policy {_quoted(policy['name'])} on {policy['table']}"]
    lines.append(f"  for {policy['command'].lower()} to {', '.join(policy['roles'])}")
    if policy["using"]:
        lines.append(f"  using ({policy['using']})")
    if policy["check"]:
        lines.append(f"  with check ({policy['check']})")
    return "\n".join(lines) + ";"


def _grant(line: str, statement: str) -> str:
    found = _GRANT.fullmatch(line)
    if found is None:
        return f"-- {line}"
    column = f" ({found['column']})" if found["column"] else ""
    name = found["object"]
    if name.startswith("schema "):
        target = name
    elif "(" in name:
        target = f"function {name}"
    else:
        target = f"table {name}" if "." in name else f"function public.{name}"
    return statement.format(f"{found['privilege'].lower()}{column} on {target}", found["role"])


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _bytes(number: int | None) -> str:
    return "any size" if number is None else f"{number / 2**20:.3g} MiB"


def _types(bucket: Mapping[str, Any]) -> str:
    return ", ".join(bucket["allowed_mime_types"] or ["files of any type"])
