"""What has changed in the database since it was migrated, and the SQL that puts it back.

Compares the answer of `watcher_catalogue` with what the migrations make, which ships beside this file.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from watcher import migrate

_GRANT = re.compile(r"(?P<role>\S+) (?P<right>\w+)(?: \((?P<column>\w+)\))? on (?P<thing>\S+)")
_TABLES = {"trained_identities": "public.trained_identities", "watcher_pulse": "public.watcher_pulse"}
BUCKET = "identity-images"


def expected() -> dict[str, Any]:
    """Return the catalogue of a database as the migrations make it."""
    catalogue: dict[str, Any] = json.loads(Path(__file__).with_name("catalogue.json").read_text("utf-8"))
    return catalogue


@dataclass(frozen=True, slots=True)
class Drift:
    """One thing that is not as it was migrated."""

    sentence: str
    remedy: str
    """SQL, for the SQL editor or psql."""


def tables(now: Mapping[str, Any], _expected: Mapping[str, Any]) -> Iterator[Drift]:
    """Row-level security, without which every signed-in user sees every row."""
    for table, secured in now["row_security"].items():
        if not secured:
            place = _TABLES.get(table, f"storage.{table}")
            what = {
                "trained_identities": ": users can see each other's rows",
                "objects": ": users can see all files",
            }
            yield Drift(
                f"Row-level security is off on {place}{what.get(table, '')}.",
                f"alter table {place} enable row level security;",
            )


def policies(now: Mapping[str, Any], expected: Mapping[str, Any]) -> Iterator[Drift]:
    """The policies on our tables, and on the bucket's objects."""
    before = {_name(policy): policy for policy in expected["policies"] if _ours(policy)}
    after = {_name(policy): policy for policy in now["policies"]}
    for name, policy in before.items():
        drop = f"drop policy {_quoted(policy['name'])} on {policy['table']};"
        if name not in after:
            yield Drift(f'The policy "{policy["name"]}" on {policy["table"]} is gone.', _create(policy))
        elif after[name] != policy:
            yield Drift(
                f'The policy "{policy["name"]}" on {policy["table"]} was changed.',
                f"{drop}\n{_create(policy)}",
            )
    for name, policy in after.items():
        if name not in before and _ours(policy) and policy["permissive"]:
            yield Drift(
                f'A policy that the watcher does not know opens a door: "{policy["name"]}" on {policy["table"]}.',
                f"drop policy {_quoted(policy['name'])} on {policy['table']};",
            )


def grants(now: Mapping[str, Any], expected: Mapping[str, Any]) -> Iterator[Drift]:
    """Who may call which function, and read or write which column."""
    for line in sorted(set(expected["grants"]) - set(now["grants"])):
        yield Drift(f"A grant is gone: {line}.", _grant(line, "grant {} to {};"))
    for line in sorted(set(now["grants"]) - set(expected["grants"])):
        remedy = [_grant(line, "revoke {} from {};")]
        # To revoke a right on a table takes it from its columns, too.
        role_and_right, _, thing = line.partition(" on ")
        columns = re.compile(rf"{re.escape(role_and_right)} \(\w+\) on {re.escape(thing)}")
        remedy += [_grant(kept, "grant {} to {};") for kept in expected["grants"] if columns.fullmatch(kept)]
        yield Drift(f"A grant opens a door: {line}.", "\n".join(remedy))


def triggers(now: Mapping[str, Any], expected: Mapping[str, Any]) -> Iterator[Drift]:
    """The triggers that keep the queue and the rules."""
    for name in expected["triggers"]:
        if name not in now["triggers"]:
            # The catalogue does not tell which. To make it anew mends both.
            drop = f"drop trigger if exists {_quoted(name)} on public.trained_identities;"
            yield Drift(
                f"The trigger {name} on public.trained_identities is off or gone.",
                f"{drop}\n{migrate.statement(f'create trigger {name} ')}",
            )


def bucket(now: Mapping[str, Any], expected: Mapping[str, Any]) -> Iterator[Drift]:
    """The bucket: there, private, with its limits."""
    was, is_ = expected["bucket"], now["bucket"]
    types = "{" + ",".join(was["allowed_mime_types"] or []) + "}"
    if is_ is None:
        yield Drift(
            f"The bucket {BUCKET} is gone.",
            "insert into storage.buckets (id, name, public, file_size_limit, allowed_mime_types)\n"
            f"values ('{BUCKET}', '{BUCKET}', false, {was['file_size_limit']}, '{types}');",
        )
        return
    for column, sentence, value in (
        ("public", f"The bucket {BUCKET} is public: whoever knows a path can see the photo.", "false"),
        (
            "file_size_limit",
            f"The bucket {BUCKET} takes files of {_bytes(is_['file_size_limit'])}, not {_bytes(was['file_size_limit'])}.",
            str(was["file_size_limit"]),
        ),
        (
            "allowed_mime_types",
            f"The bucket {BUCKET} takes {_types(is_)}, not {_types(was)}.",
            f"'{types}'",
        ),
    ):
        if is_[column] != was[column]:
            yield Drift(sentence, f"update storage.buckets set {column} = {value} where id = '{BUCKET}';")  # noqa: S608  (to be read)


def publication(now: Mapping[str, Any], expected: Mapping[str, Any]) -> Iterator[Drift]:
    """What Realtime may tell of."""
    if now["published_events"] is None:
        tables_ = ", ".join(_TABLES.values())
        yield Drift(
            "The publication supabase_realtime is gone.",
            f"create publication supabase_realtime for table {tables_};",
        )
        return
    for table, place in _TABLES.items():
        if table in expected["published_tables"] and table not in now["published_tables"]:
            yield Drift(
                f"{place} is not in the publication supabase_realtime: Realtime does not tell of it.",
                f"alter publication supabase_realtime add table {place};",
            )
    if now["published_events"] != expected["published_events"]:
        yield Drift(
            "The publication supabase_realtime leaves out inserts or updates.",
            "alter publication supabase_realtime set (publish = 'insert, update, delete, truncate');",
        )


def _name(policy: Mapping[str, Any]) -> tuple[str, str]:
    return policy["table"], policy["name"]


def _ours(policy: Mapping[str, Any]) -> bool:
    """Whether it has a say over our tables or our bucket; a policy that names no bucket holds for all."""
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


def _grant(line: str, sentence: str) -> str:
    found = _GRANT.fullmatch(line)
    if found is None:
        return f"-- {line}"
    column = f" ({found['column']})" if found["column"] else ""
    thing = found["thing"]
    what = f"table {thing}" if "." in thing else f"function public.{thing}"
    return sentence.format(f"{found['right'].lower()}{column} on {what}", found["role"])


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _bytes(number: int | None) -> str:
    return "any size" if number is None else f"{number / 2**20:.3g} MiB"


def _types(bucket: Mapping[str, Any]) -> str:
    return ", ".join(bucket["allowed_mime_types"] or ["files of any type"])
