"""Services, settings and the host are broken in one way after the other: doctor names the cause first.

What can be broken in the database is in test_breakages.py.
"""

import json
import re
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from shutil import disk_usage

import httpx
import pytest
from click.testing import CliRunner
from psycopg.types.json import Jsonb

from tests.operator.commands import bad, only, sql
from tests.operator.conftest import Look
from tests.support.database import Database, Worker
from tests.support.scene import Scene
from tests.support.waiting import PATIENCE
from watcher.cli import cli
from watcher.operator.doctor import as_json, exit_code
from watcher.operator.doctor.supabase import clock
from watcher.process.instance import InstanceLock, machine
from watcher.sandbox import Sandbox
from watcher.sandbox.faults import Answer


def test_what_works_is_said_to_work(look: Look) -> None:
    findings = look()
    assert bad(findings) == []
    assert {finding.state for finding in findings} == {"ok"}
    assert exit_code(findings) == 0
    assert len({finding.sentence for finding in findings}) == len(findings) >= 16


def test_a_bucket_that_is_gone_is_made_anew_with_its_limits(scene: Scene, look: Look) -> None:
    key = scene.sandbox.keys.secret
    scene.http.delete(
        f"{scene.sandbox.supabase_url}/storage/v1/bucket/identity-images",
        headers={"apikey": key, "Authorization": f"Bearer {key}"},
    ).raise_for_status()
    first, storage = bad(look())
    sql(scene.sandbox.db_url, first.remedy)
    assert first.sentence == "The bucket identity-images is missing."
    assert storage.remedy == "Fix the errors above first."
    assert bad(look()) == []


def test_a_revoked_key_is_the_one_thing_that_is_wrong(look: Look) -> None:
    finding = only(look(SUPABASE_SECRET_KEY="sb_secret_revoked"))
    assert finding.sentence == "Supabase refuses the key."


def test_a_public_key_is_a_setting_that_is_wrong(scene: Scene) -> None:
    for key in (scene.sandbox.keys.anon_jwt, scene.sandbox.keys.publishable):
        ended = CliRunner().invoke(
            cli, ["doctor"], env=scene.sandbox.settings() | {"SUPABASE_SECRET_KEY": key}
        )
        assert ended.exit_code == 2
        assert "✗ SUPABASE_SECRET_KEY is the" in ended.output


def test_a_supabase_that_is_nowhere_and_one_that_is_in_trouble(scene: Scene, look: Look) -> None:
    assert "Nothing answers at http://127.0.0.1:9" in only(look(SUPABASE_URL="http://127.0.0.1:9")).sentence
    for service, name in (("auth", "Supabase"), ("rest", "REST"), ("storage", "Storage")):
        scene.sandbox.faults.add(Answer(503, {"message": "No server."}), service=service, times=None)
        finding = only(look())
        assert finding.sentence == f"{name} has a problem: HTTP 503, No server."
        assert finding.remedy.startswith("Try again in a minute")
        scene.sandbox.faults.clear()


def test_a_project_that_is_paused_or_restricted_is_not_waited_for(scene: Scene, look: Look) -> None:
    scene.sandbox.faults.add(Answer(540, "paused"), service="auth", times=None)
    assert (only(look()).sentence, "dashboard" in only(look()).remedy) == ("The project is paused.", True)
    scene.sandbox.faults.clear()
    scene.sandbox.faults.add(Answer(402, {"message": "exceed_egress_quota"}), service="auth", times=None)
    assert only(look()).sentence == "Supabase restricts the project: HTTP 402, exceed_egress_quota."
    scene.sandbox.faults.clear()


def test_a_url_that_is_not_the_projects_own_is_not_waited_for(scene: Scene, look: Look) -> None:
    finding = only(look(SUPABASE_URL=f"{scene.sandbox.supabase_url}/dashboard/project/abc"))
    assert finding.sentence.endswith("/dashboard/project/abc is not a Supabase project (HTTP 404).")
    assert "without a path" in finding.remedy
    assert bad(look(SUPABASE_URL=f"{scene.sandbox.supabase_url}/rest/v1/")) == []


def test_tls_that_fails_is_not_taken_for_silence(scene: Scene, look: Look) -> None:
    finding = only(look(SUPABASE_URL=scene.sandbox.supabase_url.replace("http://", "https://")))
    assert finding.sentence.startswith("TLS failed with")


def test_a_schema_that_is_missing_older_or_too_new(scene: Scene, look: Look, project: Database) -> None:
    with Sandbox(postgres=project.postgres, database=project.name) as bare:
        finding = only(look(SUPABASE_URL=bare.supabase_url, SUPABASE_SECRET_KEY=bare.keys.secret))
        assert "lacks Watcher's tables" in finding.sentence
        assert "watcher migrate" in finding.remedy
    sql(
        scene.sandbox.db_url,
        "begin; update watcher.migrations set version = '20261122100199' where version = '20261122100300'; commit",
    )
    assert "this version needs 20261122100300" in only(look()).sentence
    sql(
        scene.sandbox.db_url,
        "update watcher.migrations set version = '20261122100300' where version = '20261122100199'",
    )
    definition = scene.database.value("select pg_get_functiondef('public.watcher_version'::regproc)")
    too_new = re.sub(r"'serves', '[^']+'", "'serves', '9.0.0'", definition)
    sql(scene.sandbox.db_url, too_new.replace("max(version)", "'20990101000000'"))
    assert "upgrade Watcher" in only(look()).sentence
    sql(scene.sandbox.db_url, definition)
    assert bad(look()) == []


def test_realtime_that_is_down_and_realtime_that_is_deaf(scene: Scene, look: Look) -> None:
    scene.sandbox.realtime.refuse(502, times=1000)
    down = only(look())
    assert "Realtime accepts no subscription" in down.sentence
    assert down.remedy.startswith("Try again in a minute")
    scene.sandbox.realtime.refuse(403, times=1000)
    assert only(look()).remedy.startswith("Enable Realtime")
    scene.sandbox.realtime.refuse(502, times=0)
    scene.sandbox.realtime.drop_events(PATIENCE)
    assert "did not deliver the pulse" in only(look()).sentence


def test_a_pulse_without_a_row_is_put_back(scene: Scene, look: Look) -> None:
    sql(scene.sandbox.db_url, "delete from public.watcher_pulse")
    finding = only(look())
    assert finding.sentence == "The table public.watcher_pulse has no row."
    sql(scene.sandbox.db_url, finding.remedy)
    assert bad(look()) == []


def test_a_hub_that_is_down_and_tokens_that_are_not_enough(scene: Scene, look: Look) -> None:
    token = scene.sandbox.hub_token
    assert "user sandbox is not a member" in only(look(HF_NAMESPACE="somebody-else")).sentence
    assert "refused the token" in only(look(HF_NAMESPACE="sandbox", HF_TOKEN="hf_none")).sentence
    scene.sandbox.hub.access.take_writing(token)
    assert "read-only" in only(look(HF_TOKEN=token)).sentence
    scene.sandbox.hub.access.restore(token)
    scene.sandbox.faults.add(Answer(503), service="hub", times=None)
    assert "HTTP 503" in only(look()).sentence
    scene.sandbox.faults.clear()
    scene.sandbox.hub.knobs.limit_requests(2, window=300)
    assert bad(look()) == []
    assert "rate limit is nearly used up: 0 requests left" in only(look(), "warning").sentence


def test_a_spool_that_cannot_be_written_to_and_a_disk_that_is_full(
    look: Look, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    assert "file is not a folder" in only(look(WATCHER_SPOOL=str(tmp_path / "file" / "spool"))).sentence
    monkeypatch.setattr("watcher.operator.doctor.host.os.access", lambda *_: False)
    assert "cannot be read and written to" in only(look(WATCHER_SPOOL=str(tmp_path))).sentence
    monkeypatch.undo()
    usage = disk_usage(tmp_path)
    monkeypatch.setattr("watcher.operator.doctor.host.disk_usage", lambda _: usage._replace(free=2**30))
    assert (
        "4 slots and one more row need up to 3.9 GiB"
        in only(look(WATCHER_SPOOL=str(tmp_path)), "warning").sentence
    )
    monkeypatch.setattr("watcher.operator.doctor.host.disk_usage", lambda _: usage._replace(free=2**20))
    assert "0.0 GiB free" in only(look()).sentence


def test_looking_leaves_nothing_behind_and_sees_who_runs(scene: Scene, look: Look, tmp_path: Path) -> None:
    assert "No daemon runs on this host as attic" in look()[-1].sentence
    assert list(tmp_path.iterdir()) == []
    with InstanceLock("attic", scene.sandbox.supabase_url).held():
        assert "A daemon runs on this host as attic" in look()[-1].sentence
    assert "No daemon runs" in look()[-1].sentence


@pytest.mark.parametrize("hours", [-2, 2])
def test_a_clock_that_is_off_is_told(hours: int) -> None:
    told = datetime.now(UTC) - timedelta(hours=hours)  # noqa: TID251  (what doctor compares with)
    finding = clock(httpx.Response(200, headers={"Date": format_datetime(told, usegmt=True)}))
    assert finding is not None
    assert finding.sentence == f"This host's clock is 2 h {'fast' if hours > 0 else 'slow'}."
    assert (finding.state, "timedatectl" in finding.remedy) == ("warning", True)


def test_rows_that_nobody_takes(scene: Scene, look: Look) -> None:
    scene.insert()
    scene.database.pass_time(600)
    assert only(look()).sentence == "Rows wait for 10 min, and no daemon was heard in the last 30 s."
    Worker(scene.database, "attic", machine=machine()).claim(0)
    assert only(look(), "warning").sentence.startswith(
        "The oldest due row has waited for 10 min: all slots are"
    )


def test_a_pause_is_told_and_is_no_error(scene: Scene, look: Look) -> None:
    scene.insert()
    Worker(scene.database).call("pause", kind="publish")
    scene.database.pass_time(600)
    finding = only(look(), "warning")
    assert (finding.sentence, finding.remedy) == ("Paused: publish until `watcher resume`.", "watcher resume")


def test_a_pause_of_another_kind_hides_no_row_that_waits(scene: Scene, look: Look) -> None:
    scene.insert()
    Worker(scene.database).call("pause", kind="train")
    scene.database.pass_time(600)
    paused, waiting = bad(look())
    assert (paused.state, paused.sentence) == ("warning", "Paused: train until `watcher resume`.")
    assert (waiting.state, waiting.sentence.startswith("Rows wait for 10 min")) == ("error", True)


def test_an_outage_is_told_as_the_daemon_tells_it(scene: Scene, look: Look) -> None:
    worker = Worker(scene.database, "attic", machine=machine())
    for kind, what in (("every", ""), ("erase", " (erase)")):
        answer = worker.ask({}, outages=Jsonb({kind: "The Hub refused to store data."}))
        assert answer == {"claims": [], "next_due_seconds": None}
        sentence = f"The daemon attic is in an outage{what}: The Hub refused to store data."
        assert only(look()).sentence == sentence
    worker.claim(0)
    assert bad(look()) == []


def test_a_database_that_takes_no_writes_is_not_waited_for(scene: Scene, look: Look) -> None:
    told = {"code": "25006", "message": "cannot execute UPDATE in a read-only transaction"}
    scene.sandbox.faults.add(Answer(405, told), path="watcher_beat")
    finding = only(look())
    assert (finding.check, "read-only, as it becomes when its disk is nearly full" in finding.sentence) == (
        "database",
        True,
    )
    assert "Compute and Disk" in finding.remedy


def test_a_hub_that_stores_nothing_more_is_told_before_a_row_meets_it(scene: Scene, look: Look) -> None:
    worker = Worker(scene.database, "attic", machine=machine())
    scene.insert()
    worker.reserve(attempt := worker.claim_one(), namespace=scene.sandbox.hub_user, slug="ada")
    done = {"url": "https://hub/ada", "commit_sha": "c0ffee", "training_config": Jsonb({"a": 1})}
    worker.call("complete", attempt=attempt, **done)
    name = scene.database.value("select model_id from public.trained_identities")
    scene.make_repo(name)
    assert bad(look()) == []
    scene.sandbox.hub.knobs.limit_storage(0)
    finding = only(look())
    assert (finding.check, "storage" in finding.sentence.lower()) == ("hub storage", True), finding
    assert "settings/billing" in finding.remedy


def test_rows_that_are_tried_again_and_again_and_rows_that_failed_are_told(scene: Scene, look: Look) -> None:
    worker = Worker(scene.database, "attic", machine=machine())
    row = scene.insert()
    for _ in range(3):
        worker.defer(worker.claim_one(), reason="The Hub is away.")
        scene.database.pass_time(3600)
    worker.claim(0)
    finding = only([found for found in look() if found.check != "queue"], "warning")
    assert "tried 3 times or more; the last reason: The Hub is away." in finding.sentence
    assert finding.remedy == f"watcher show {row}"
    worker.fail(worker.claim_one(), code="hub_refused", message="The Hub refused the card.")
    finding = only(look(), "warning")
    assert "not by their photos (hub_refused): The Hub refused the card." in finding.sentence
    assert finding.remedy == "watcher replay --code hub_refused --since 2h"


def test_another_machine_that_has_this_name_is_named_while_it_is_heard(scene: Scene, look: Look) -> None:
    Worker(scene.database, "attic", machine="elsewhere").claim()
    assert "A daemon runs as attic on another host (elsewhere)" in only(look()).sentence
    scene.database.pass_time(31)
    assert bad(look()) == []
    Worker(scene.database, "attic", machine=machine()).claim()
    Worker(scene.database, "cellar", machine="elsewhere").claim()
    assert bad(look()) == []


def test_json_has_every_check_and_the_exit_code(scene: Scene, look: Look) -> None:
    sql(scene.sandbox.db_url, "update storage.buckets set public = true where id = 'identity-images'")
    findings = look()
    sql(scene.sandbox.db_url, bad(findings)[0].remedy)
    told = json.loads(json.dumps(as_json(findings)))
    assert told["exit"] == 2
    assert [check["check"] for check in told["checks"] if check["state"] == "error"] == ["bucket"]
    assert len(told["checks"]) == len(findings)


def test_missing_settings_are_told_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "SUPABASE_URL",
        "SUPABASE_SECRET_KEY",
        "SUPABASE_SERVICE_ROLE_KEY",
        "HF_TOKEN",
        "HUGGINGFACE_TOKEN",
    ):
        monkeypatch.delenv(name, raising=False)
    ended = CliRunner().invoke(cli, ["doctor", "--json"])
    assert ended.exit_code == 2
    [check] = json.loads(ended.output)["checks"]
    for name in ("SUPABASE_URL", "SUPABASE_SECRET_KEY", "HF_TOKEN"):
        assert f"{name} is not set" in check["sentence"]
