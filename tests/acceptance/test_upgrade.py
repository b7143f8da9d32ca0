"""The next schema beside a daemon of this version: nothing is lost, and what the daemon does not know it leaves alone."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg

from tests.acceptance.person import Person, Row
from tests.acceptance.places import at
from tests.acceptance.running import Watcher, environment
from tests.acceptance.stage import Stage
from watcher.sandbox import Sandbox
from watcher.sandbox.faults import Hold

NEXT = Path(__file__).with_name("next_migration.sql")
FINISHED = ("published", "failed")


def claimed(stage: Stage, *, lease: float = 600) -> dict[str, int]:
    """Claim whatever is due, as a daemon that is then gone; the attempts by row."""
    answer = stage.rpc(
        "watcher_claim",
        instance="an older one", run=str(uuid4()), slots={"publish": 64}, lease_seconds=lease,
    )  # fmt: skip
    return {claim["identity_id"]: claim["attempt"] for claim in answer["claims"]}


def every_kind_of_row(stage: Stage, person: Person) -> dict[str, str]:
    """Rows in every status, with attempts in every outcome, by what happened to them last."""
    names = ("published", "failed", "deferred", "released", "crashed", "revoked")
    rows = {name: person.insert(name) for name in names}
    attempts = claimed(stage)

    def end(name: str, verb: str, **arguments: Any) -> None:
        assert stage.rpc(f"watcher_{verb}", attempt=attempts[rows[name]], **arguments) == "done"

    stage.rpc("watcher_reserve", attempt=attempts[rows["published"]], namespace=stage.namespace, slug="ada")
    end("published", "complete", url="https://hub/ada", commit_sha="0" * 40, training_config={"a": 1})
    end("failed", "fail", code="hub_refused", message="No.")
    end("deferred", "defer", reason="Later.", retry_after_seconds=2)
    end("released", "release", reason="Stopping.")
    stage.sql("update public.trained_identities set status = 'pending' where id = %s", rows["revoked"])
    stage.sql(
        "update watcher.attempts set lease_expires_at = now() - interval '1 second' where ended_at is null"
    )
    return {**rows, "pending": person.insert("pending")}


def history(stage: Stage, identity: str) -> list[Row]:
    """The attempts that have ended, as they are told for good."""
    return [
        {
            name: attempt[name]
            for name in ("number", "instance", "outcome", "reason", "started_at", "ended_at")
        }
        for attempt in stage.story(identity)["attempts"]
        if attempt["ended_at"]
    ]


def asked(stage: Stage, *command: str) -> Any:
    """What an operator's command of this version prints as JSON."""
    done = subprocess.run(
        [sys.executable, "-m", "watcher", *command, "--json"],
        env=environment(stage.settings, stage.folder), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return json.loads(done.stdout)


def test_the_next_migration_beside_a_running_daemon_loses_nothing(
    stage: Stage, sandbox: Sandbox, person: Person
) -> None:
    rows = every_kind_of_row(stage, person)
    held = sandbox.faults.add(Hold("before"), **at("fetch"), times=None)
    with Watcher(stage, WATCHER_RENEWAL="0.5", WATCHER_LEASE="10") as watcher:
        held.wait_reached()  # rows are in flight, and their leases are being renewed
        finished = {name: person.row(rows[name]) for name in FINISHED}
        before = {name: history(stage, identity) for name, identity in rows.items()}
        with psycopg.connect(stage.settings["SUPABASE_DB_URL"], autocommit=True) as connection:
            connection.execute(NEXT.read_bytes())
        sandbox.faults.remove(held)
        for name in set(rows) - set(FINISHED):
            person.wait_for(rows[name], "published")
        for name in FINISHED:
            after = person.row(rows[name])
            assert {column: after[column] for column in finished[name]} == finished[name]
        for name, identity in rows.items():
            ended = before[name]
            assert history(stage, identity)[: len(ended)] == ended
        # What it does not know, it leaves alone: the kind, and a row in a status of tomorrow.
        stage.sql("alter table public.trained_identities disable trigger a_guard_transitions")
        stage.sql(
            "update public.trained_identities set status = 'archived', error_code = null, error_message = null"
            " where id = %s", rows["failed"],
        )  # fmt: skip
        last = person.insert("last")
        person.wait_for(last, "published")
        assert asked(stage, "status")["pending"] == 0
        assert asked(stage, "show", rows["failed"])["status"] == "archived"
        found = asked(stage, "doctor")
        assert [check for check in found["checks"] if check["state"] == "error"] == []
        watcher.stop()
    assert not watcher.said("unexpected")
    assert not watcher.said("outage")
    with psycopg.connect(stage.settings["SUPABASE_DB_URL"]) as connection:
        left = connection.execute(
            "select kind, turn_at is not null, count(*) from watcher.work where kind <> 'sweep' group by 1, 2"
        )
        assert left.fetchall() == [("archive", True, len(rows))]
    # And it starts again beside that schema.
    with Watcher(stage) as again:
        again.wait_for("ready")
        again.stop()
