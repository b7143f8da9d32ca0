"""Operations on a whole project: replaying any number of rows, and migrating beside somebody who reads."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psycopg

from tests.acceptance.running import environment
from watcher.sandbox import Sandbox

from .figure import Figure, Measured
from .scene import repeating, scene

_ROWS = 100_000
# What `watcher migrate` may make others wait, in seconds: its lock_timeout, and a little for the machine.
_WAIT = 3.2
_READS_FOR = 20.0


def _replay() -> Measured:
    with scene() as here:
        with here.database.transaction():
            here.database.execute("set local session_replication_role = replica")
            here.database.execute(
                """
                insert into public.trained_identities
                  (user_id, identity_name, image_paths, status, error_code, error_message)
                select %s, 'Ada', %s, 'failed', 'attempts_exhausted', 'Gave up.' from generate_series(1, %s)
                """,
                [here.person.id, here.paths, _ROWS],
            )
        here.sandbox.faults.reset()
        command = [sys.executable, "-m", "watcher", "replay", "--failed", "--yes", "--json"]
        began = time.monotonic()
        done = subprocess.run(
            command,
            env=environment(here.stage.settings, here.stage.folder),
            cwd=here.stage.folder,
            check=True,
            capture_output=True,
            text=True,
        )
        took = time.monotonic() - began
        calls = [seen for seen in here.sandbox.faults.log() if seen.path.endswith("/watcher_replay")]
        longest = max(seen.done_at - seen.came_at for seen in calls if seen.done_at is not None)
        replayed = json.loads(done.stdout)["replayed"]
        pending = here.one("select count(*) from public.trained_identities where status = 'pending'")
        queued = here.one("select count(*) from watcher.work where kind = 'publish'")
    return Measured(
        replayed == pending == queued == _ROWS and longest < 2,
        f"{replayed} of {_ROWS} replayed in {took:.0f} s by {len(calls)} calls, the longest {longest:.2f} s",
        {"replayed": replayed, "seconds": round(took), "calls": len(calls), "longest": round(longest, 3)},
    )


def _migrate() -> Measured:
    """A transaction that has read storage.objects stays open; meanwhile everybody reads it, and the schema is migrated."""
    waits: list[float] = []
    with (
        tempfile.TemporaryDirectory(prefix="figures-") as folder,
        Sandbox() as sandbox,
        psycopg.connect(sandbox.admin_db_url, autocommit=True) as somebody,
    ):
        url = sandbox.settings()["SUPABASE_DB_URL"]

        def read() -> None:
            began = time.monotonic()
            somebody.execute("select from storage.objects")
            waits.append(time.monotonic() - began)

        with repeating(read, lambda: 0.01):
            with psycopg.connect(sandbox.admin_db_url) as reader:
                reader.execute("select from storage.objects")
                migrating = subprocess.Popen(
                    [sys.executable, "-m", "watcher", "migrate"],
                    env=environment({"SUPABASE_DB_URL": url}, Path(folder)),
                    cwd=folder,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
                time.sleep(_READS_FOR)
                waited = migrating.poll() is None
            ended = time.monotonic()
            said, _ = migrating.communicate(timeout=120)
            after = time.monotonic() - ended
    longest = max(waits)
    return Measured(
        waited and migrating.returncode == 0 and longest <= _WAIT and "lock" in said,
        f"{len(waits)} reads beside it, the longest {longest:.2f} s; it "
        f"{'waited' if waited else 'did not wait'} for the reader and ended with {migrating.returncode} "
        f"{after:.1f} s after it",
        {
            "longest_wait": round(longest, 2),
            "exit_code": migrating.returncode,
            "after_the_reader": round(after, 1),
        },
    )


FIGURES = [
    Figure("replay", "100,000 failed rows replayed: all of them, each call under 2 s", _replay),
    Figure(
        "migrate",
        "a reader of storage.objects held open: others wait at most 3 s, and migrating succeeds when it ends",
        _migrate,
        waits=True,
    ),
]
