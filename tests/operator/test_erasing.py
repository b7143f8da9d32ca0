"""Forget, erasures and export as an operator meets them, and what doctor says of erasures."""

import json
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from click.testing import CliRunner

from tests.operator.commands import watcher
from tests.support.database import Worker
from tests.support.scene import Scene
from watcher.cli import cli


def deleted(scene: Scene) -> UUID:
    """A published row that its user has deleted."""
    identity = scene.insert()
    worker = Worker(scene.database)
    worker.complete(worker.claim_one(), answered=True)
    scene.database.run("delete from public.trained_identities")
    return identity


def finish(scene: Scene) -> None:
    worker = Worker(scene.database)
    attempt = worker.claim_one(kind="erase")
    scene.database.overwrite("delete from storage.objects")
    worker.erased(attempt, answered=True)


def test_forget_says_what_it_would_erase_before_it_does(scene: Scene) -> None:
    identity = scene.insert()
    user = str(scene.database.row(identity)["user_id"])
    dry = watcher(scene, "forget", user, "--dry-run")
    says = "Would erase 1 row, 0 repos and 3 photos, and what is kept of the user's limits."
    assert dry.output.splitlines()[0] == says
    assert "The account is still there" in dry.output
    unasked = watcher(scene, "forget", user)
    assert (unasked.exit_code, "no terminal" in unasked.output) == (2, True)
    assert scene.database.status(identity) == "pending"
    done = watcher(scene, "forget", user, "--yes")
    assert f"Erasing {identity}" in done.output
    assert scene.database.value("select count(*) from public.trained_identities") == 0
    scene.database.delete_account(UUID(user))
    again = watcher(scene, "forget", user, "--yes")
    assert again.exit_code == 0
    assert "Being erased already: 1 deleted row" in again.output


def test_forget_brings_forward_what_is_to_go_later(scene: Scene) -> None:
    watcher(scene, "limits", "erase_photos", "0")
    watcher(scene, "limits", "erase_after_hours", "720")
    identity = deleted(scene)
    user = str(scene.database.value("select owner_id from watcher.erasures"))
    scene.database.overwrite("delete from storage.objects")
    scene.database.delete_account(UUID(user))  # what it used of its limits goes, too
    assert watcher(scene, "forget", user, "--dry-run").output.splitlines() == [
        "Would erase 0 rows, 1 repo and 0 photos.",
        "Being erased already: 1 deleted row; see `watcher erasures`.",
    ]
    assert f"Erasing {identity}" in watcher(scene, "forget", user, "--yes").output.splitlines()
    assert "There is nothing of this user to erase." in watcher(scene, "forget", user, "--yes").output
    assert Worker(scene.database).claim({"erase": 1}) == []
    scene.database.pass_time(600)
    assert Worker(scene.database).claim({"erase": 1}) != []


def test_forget_of_nobody_does_nothing(scene: Scene) -> None:
    result = watcher(scene, "forget", str(uuid4()), "--yes")
    assert (result.exit_code, result.output) == (0, "There is nothing of this user to erase.\n")


def test_erasures_say_why_they_wait_and_then_are_receipts(scene: Scene) -> None:
    assert watcher(scene, "erasures").output.splitlines()[0] == "No erasure is open."
    identity = deleted(scene)
    worker = Worker(scene.database)
    worker.defer(worker.claim_one(kind="erase"), "The Hub is away.", answered=True)
    [line] = [line for line in watcher(scene, "erasures").output.splitlines() if str(identity) in line]
    assert "1 repo, 3 photos" in line
    assert "The Hub is away." in line
    assert "1 erasure open" in watcher(scene, "status").output
    scene.database.pass_time(30)
    finish(scene)
    output = watcher(scene, "erasures").output
    assert "No erasure is open." in output
    assert str(identity) in output.partition("Receipts")[2]


def test_an_erasure_is_closed_with_a_reason(scene: Scene) -> None:
    identity = deleted(scene)
    assert watcher(scene, "erasures", "--close", str(identity)).exit_code == 2
    done = watcher(scene, "erasures", "--close", str(identity), "--because", "The namespace is gone.")
    assert "closed: The namespace is gone." in done.output
    again = watcher(scene, "erasures", "--close", str(identity), "--because", "Again.")
    assert (again.exit_code, "no open erasure" in again.output) == (1, True)


def test_what_goes_with_a_row_is_set_and_shown(scene: Scene) -> None:
    assert (
        "When a row is deleted, its repos and photos are erased at once." in watcher(scene, "erasures").output
    )
    watcher(scene, "limits", "erase_photos", "0")
    watcher(scene, "limits", "erase_after_hours", "720")
    assert "When a row is deleted, its repos are erased 30 days later." in watcher(scene, "erasures").output


def test_what_the_sweep_holds_back_is_confirmed(scene: Scene) -> None:
    for user in [scene.database.user() for _ in range(3)]:
        scene.database.upload(user, 1)
    scene.database.overwrite("delete from auth.users")
    scene.database.run(
        "insert into watcher.work (kind, identity_id, turn_at) values ('sweep', watcher.sweep_id(), now())"
    )
    Worker(scene.database).sweep()
    for command in ("erasures", "status"):
        assert "leaves 3 users without an account alone" in watcher(scene, command).output
    done = watcher(scene, "erasures", "--confirm")
    assert "The next sweeps erase what is left of 3 users without an account." in done.output


def test_what_the_sweep_could_not_erase_is_shown_with_the_reason(scene: Scene) -> None:
    scene.database.run("update watcher.sweep set failed = 2, failed_because = 'A constraint.'")
    for command in ("erasures", "status", "doctor"):
        shown = " ".join(watcher(scene, command).output.split())
        assert "The sweep could not erase what is left of 2 users: A constraint." in shown, command


def test_receipts_are_put_back_after_a_restore(scene: Scene, tmp_path: Path) -> None:
    identity = deleted(scene)
    file = tmp_path / "receipts.json"
    file.write_text(watcher(scene, "erasures", "--json").output)
    scene.database.overwrite("delete from watcher.erasures")
    assert "Added 1 of 1 receipts." in watcher(scene, "erasures", "--add-receipts", str(file)).output
    assert scene.database.value("select identity_id from watcher.erasures") == identity
    file.write_text("{}")
    assert watcher(scene, "erasures", "--add-receipts", str(file)).exit_code == 2


def test_export_prints_all_that_is_known_of_a_user(scene: Scene) -> None:
    identity = scene.insert()
    user = scene.database.row(identity)["user_id"]
    known = json.loads(watcher(scene, "export", str(user)).output)
    assert [row["id"] for row in known["rows"]] == [str(identity)]
    assert len(known["objects"]) == 3


# Doctor.


def found(scene: Scene, tmp_path: Path) -> dict[str, list[tuple[str, str]]]:
    settings = {**scene.sandbox.settings(), "WATCHER_SPOOL": str(tmp_path), "WATCHER_INSTANCE": "attic"}
    output = CliRunner().invoke(cli, ["doctor", "--json"], env=settings).output
    checks: dict[str, list[tuple[str, str]]] = {}
    for check in json.loads(output)["checks"]:
        checks.setdefault(check["check"], []).append((check["state"], check["sentence"]))
    return checks


def test_an_erasure_that_waits_as_told_is_not_late(scene: Scene, tmp_path: Path) -> None:
    watcher(scene, "limits", "erase_after_hours", "720")
    deleted(scene)
    scene.database.pass_time(719 * 3600)
    assert ("ok", "1 erasure open, not due yet.") in found(scene, tmp_path)["erasures"]
    assert "1 erasure open, not due yet: watcher erasures" in watcher(scene, "status").output
    scene.database.pass_time(2 * 3600)
    assert found(scene, tmp_path)["erasures"][0][0] == "warning"


@pytest.mark.parametrize(("age", "state"), [(60, "ok"), (3600, "warning"), (90000, "error")])
def test_doctor_says_how_long_an_erasure_is_open_and_why(
    scene: Scene, tmp_path: Path, age: float, state: str
) -> None:
    deleted(scene)
    worker = Worker(scene.database)
    worker.defer(worker.claim_one(kind="erase"), "The Hub is away.")
    scene.database.pass_time(age)
    findings = found(scene, tmp_path)["erasures"]
    assert findings[0][0] == state
    assert findings[0][1].startswith("1 erasure open, due for")
    # Its repo is in a namespace that is not the token's.
    assert findings[1][0] == "error"
    assert "Repos in acme are to be erased, which HF_TOKEN cannot write to" in findings[1][1]


def test_doctor_finds_versioning_and_what_is_kept_of_deleted_accounts(scene: Scene, tmp_path: Path) -> None:
    identity = scene.insert()
    scene.database.delete_account(scene.database.row(identity)["user_id"])
    finish(scene)
    assert "versioning" not in found(scene, tmp_path)
    watcher(scene, "limits", "erase_photos", "0")
    scene.database.run("alter table storage.buckets add column versioning_status text", role="supabase_admin")
    scene.database.run("update storage.buckets set versioning_status = 'Enabled'", role="supabase_admin")
    try:
        findings = found(scene, tmp_path)
    finally:
        scene.database.run("alter table storage.buckets drop column versioning_status", role="supabase_admin")
    assert findings["versioning"][0][0] == "error"
    assert ("warning", "Accounts are deleted, but their photos are kept.") in findings["erasures"]
