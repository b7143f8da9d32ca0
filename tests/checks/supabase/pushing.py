"""The migrations with the real Supabase CLI, together with those of an app."""

import json
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.acceptance.running import environment
from tests.checks.node import CACHE, node, run
from tests.checks.verdict import Wrong, expect
from tests.support.database import Database, schema
from watcher import migrate
from watcher.sandbox import Postgres

FOLDER = CACHE / "check-supabase"
PACKAGES = Path(__file__).with_name("package.json")
_VERSION = json.loads(PACKAGES.read_text())["dependencies"]["supabase"]
_CLI = FOLDER / "node_modules" / "supabase" / "dist" / "supabase.js"
# No telemetry, no check for updates, and no use of the keyring.
_QUIET = {
    "DO_NOT_TRACK": "1",
    "SUPABASE_TELEMETRY_DISABLED": "1",
    "SUPABASE_NO_UPDATE_NOTIFIER": "1",
    "SUPABASE_NO_KEYRING": "1",
}
_OURS = [file.name for file in migrate.files()]
_NOTHING = "Nothing to do: the database has every migration."
_NOTES = (
    "create table public.notes (id bigint primary key); alter table public.notes enable row level security;"
)
_OPEN = "create table public.{0} (id bigint primary key); grant select on public.{0} to anon;"


class App:
    """An app's folder and database, and the commands of its developer."""

    def __init__(self, folder: Path, database: Database) -> None:
        self.database = database
        self._folder = folder / database.name
        self.migrations = self._folder / "supabase" / "migrations"
        self.migrations.mkdir(parents=True)

    def supabase(self, *arguments: str) -> dict[str, Any]:
        """Run the CLI on the database and return its answer; raises Wrong."""
        given = [*arguments, f"--remote={self.database.dsn()}", "--output-format", "json", "--agent", "no"]
        done = node([_CLI, *given, "--workdir", str(self._folder)], cwd=self._folder, own=_QUIET)
        answer = json.loads(done.stdout.splitlines()[-1]) if done.stdout else {}
        if done.returncode != 0 or "error" in answer:
            raise Wrong(f"supabase {' '.join(arguments)} failed: {answer.get('error') or done.stderr}")
        return answer

    def push(self, *flags: str) -> list[str]:
        """Run `supabase db push`; returns the files that were pushed."""
        return list(self.supabase("db", "push", "--yes", *flags)["migrations"])

    def advisors(self) -> list[str]:
        """Run `supabase db advisors`; returns the findings with their objects."""
        found = self.supabase("db", "advisors", "--level", "warn")["results"]
        return [f"{one['name']} ({one['metadata']['schema']}.{one['metadata']['name']})" for one in found]

    def migrate(self, *arguments: str) -> list[str]:
        """Run `watcher migrate`; returns its output."""
        own = environment({"SUPABASE_DB_URL": self.database.dsn()}, self._folder)
        command = [sys.executable, "-m", "watcher", "migrate", *arguments]
        done = run(command, cwd=self._folder, env=own, within=60)
        if done.returncode != 0:
            raise Wrong(f"watcher migrate {' '.join(arguments)} failed: {done.stderr}")
        return done.stdout.splitlines()

    def add(self, name: str, text: str) -> str:
        """Add a migration to the app."""
        (self.migrations / name).write_text(text)
        return name


def check(folder: Path) -> Iterator[str]:
    """Yield a line for each order of steps that works; raises Wrong."""
    cli = f"Supabase CLI {_VERSION}"
    with Postgres() as postgres:
        for name, auto_expose in (("new_project", False), ("old_project", True)):
            postgres.create(name, auto_expose=auto_expose)
            with closing(Database(postgres, name)) as database:
                yield f"{cli}, {name.replace('_', ' ')}: {_push_first(App(folder, database))}"
        postgres.create("by_url")
        with closing(Database(postgres, "by_url")) as database:
            yield f"{cli}, migrated by URL: {_url_first(App(folder, database))}"


def _push_first(app: App) -> str:
    notes = app.add("20250101000000_notes.sql", _NOTES)
    expect("The push of the app's own", app.push(), [notes])
    app.migrate("--into", "supabase/migrations")
    expect("The push of what --into wrote", app.push("--include-all"), _OURS)
    expect("What the advisors find", app.advisors(), [])
    expect("`watcher migrate` after the push", app.migrate(), [_NOTHING])
    # The app exposes a table, to verify that the advisors find it.
    later = app.add("20270101000000_open.sql", _OPEN.format("exposed"))
    expect("The push of the app's next", app.push(), [later])
    expect("What the advisors find then", app.advisors(), ["rls_disabled_in_public (public.exposed)"])
    return f"pushed {len(_OURS)}, advisors at warn: 0 findings, migrate by URL: nothing to do, the app's next: pushed"


def _url_first(app: App) -> str:
    notes = app.add("20250101000000_notes.sql", _NOTES)
    expect("The push of the app's own", app.push(), [notes])
    expect("`watcher migrate`", app.migrate(), [f"Applied {name.partition('_')[0]}" for name in _OURS])
    later = app.add("20270101000000_later.sql", _OPEN.format("later"))
    expect("The push of the app's next, in a folder without ours", app.push(), [later])
    before = schema(app.database)
    app.migrate("--into", "supabase/migrations")
    expect("The push of what --into wrote", app.push("--include-all"), _OURS)
    if schema(app.database) != before:
        raise Wrong("The push of migrations that had been applied by URL changed the schema.")
    last = app.add("20270102000000_last.sql", _OPEN.format("last"))
    expect("The push of the app's last", app.push(), [last])
    expect("A push of nothing", app.push(), [])
    return f"the app's next pushed, then --into and push of {len(_OURS)}: nothing changed, the app's last: pushed"
