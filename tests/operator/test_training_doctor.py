"""What doctor says of trainings: each thing that they need is taken away in turn, and named."""

from uuid import UUID

import pytest
from psycopg.types.json import Jsonb

from tests.operator.commands import only
from tests.operator.conftest import Look
from tests.support.database import Worker
from tests.support.scene import Scene
from tests.support.trainings import ask, switch_on
from watcher.operator.doctor import Finding
from watcher.process.instance import machine
from watcher.sandbox.faults import Answer
from watcher.sandbox.hub.access import User

TOKEN = "hf_of_trainings"
BASE = "black-forest-labs/FLUX.2-klein-base-4B"


@pytest.fixture(autouse=True)
def _token(scene: Scene) -> None:
    """A token that may do what a job has to, and nothing more."""
    allowed = User(scene.sandbox.hub_user, role="fineGrained", permissions=("repo.write",))
    scene.sandbox.hub.access.add(TOKEN, allowed)


def asked(scene: Scene) -> UUID:
    """A published row whose user wants it trained."""
    worker = Worker(scene.database, "attic", machine=machine())
    identity = scene.insert()
    worker.complete(worker.claim_one(), answered=True)
    assert ask(scene.database, identity)
    return identity


def sentences(findings: list[Finding]) -> list[str]:
    return [finding.sentence for finding in findings]


def test_what_is_off_needs_nothing(scene: Scene, look: Look) -> None:
    asked(scene)
    findings = look()
    assert {finding.state for finding in findings} == {"ok"}
    assert "Trainings are off; 1 row wait." in sentences(findings)


def test_what_works_is_said_to_work(scene: Scene, look: Look) -> None:
    switch_on(scene.database)
    findings = look(WATCHER_TRAINING_TOKEN=TOKEN)
    assert {finding.state for finding in findings} == {"ok"}
    for sentence in (
        "Trainings are on: $0.00 spent and $0.00 reserved of today's $5.00.",
        "A training on l40sx1 costs at most $2.10, of $5.00 a day.",
        "The token of trainings may write to sandbox.",
        f"The token of trainings may read the base model {BASE}.",
    ):
        assert sentence in sentences(findings)


def test_a_token_that_is_missing_is_the_cause_of_trainings_that_wait(scene: Scene, look: Look) -> None:
    switch_on(scene.database)
    assert "WATCHER_TRAINING_TOKEN is not set here" in only(look(), "warning").sentence
    asked(scene)
    scene.database.pass_time(120)
    Worker(scene.database, "attic", machine=machine()).claim(0)
    assert only(look()).sentence.startswith(
        "A training has been due for 2 min, and no daemon takes it: WATCHER_TRAINING_TOKEN"
    )
    assert (
        only(look(WATCHER_TRAINING_TOKEN=TOKEN)).sentence
        == "A training has been due for 2 min, and no daemon takes it."
    )
    worker = Worker(scene.database, "attic", machine=machine())
    worker.ask({}, outages=Jsonb({"erase": "The Hub refused to delete."}))
    told = {finding.sentence for finding in look(WATCHER_TRAINING_TOKEN=TOKEN) if finding.state == "error"}
    assert "A training has been due for 2 min, and no daemon takes it." in told, (
        "Erasing alone is in an outage."
    )
    for kind, what in (("train", " (train)"), ("every", "")):
        worker.ask({}, outages=Jsonb({kind: "No credit."}))
        assert (
            only(look(WATCHER_TRAINING_TOKEN=TOKEN)).sentence
            == f"The daemon attic is in an outage{what}: No credit."
        )
    worker.claim(0)
    Worker(scene.database).call("pause", kind="train")
    assert only(look(WATCHER_TRAINING_TOKEN=TOKEN), "warning").sentence.startswith("Paused: train")


def test_the_tokens_and_the_base_are_tried(scene: Scene, look: Look) -> None:
    switch_on(scene.database)
    access, own = scene.sandbox.hub.access, scene.sandbox.hub_token
    assert "WATCHER_TRAINING_TOKEN is HF_TOKEN" in only(look(WATCHER_TRAINING_TOKEN=own), "warning").sentence
    assert "refused the token" in only(look(WATCHER_TRAINING_TOKEN="hf_none")).sentence
    access.take_writing(TOKEN)
    assert only(look(WATCHER_TRAINING_TOKEN=TOKEN)).sentence.startswith(
        "WATCHER_TRAINING_TOKEN: the token is read-only"
    )
    access.restore(TOKEN)
    access.gate(BASE)
    assert (
        f"The licence of the base model {BASE} is not accepted"
        in only(look(WATCHER_TRAINING_TOKEN=TOKEN)).sentence
    )
    switch_on(scene.database, base="acme/none")
    assert "cannot read a base model acme/none" in only(look(WATCHER_TRAINING_TOKEN=TOKEN)).sentence


def test_the_daemons_token_has_to_be_allowed_to_run_jobs(scene: Scene, look: Look) -> None:
    switch_on(scene.database)
    given = {"WATCHER_TRAINING_TOKEN": TOKEN}
    scene.sandbox.hub.access.add(
        "hf_no_jobs", User(scene.sandbox.hub_user, role="fineGrained", permissions=("repo.write",))
    )
    assert "HF_TOKEN may not run the jobs of sandbox" in only(look(HF_TOKEN="hf_no_jobs", **given)).sentence
    scene.sandbox.faults.add(
        Answer(403, {"error": "No rights."}), service="hub", path="/api/jobs/sandbox", times=None
    )
    assert only(look(**given)).sentence.startswith("The token may not run jobs: No rights.")


def test_a_machine_that_is_gone_or_too_dear_is_told(scene: Scene, look: Look) -> None:
    switch_on(scene.database, flavor="l40sx9")
    assert "no machine 'l40sx9'" in only(look(WATCHER_TRAINING_TOKEN=TOKEN)).sentence
    switch_on(scene.database, flavor="h200")
    assert (
        "A training on h200 costs at most $5.84, and the $5.00 of a day are too little"
        in only(look(WATCHER_TRAINING_TOKEN=TOKEN)).sentence
    )


def test_a_hub_that_is_away_is_told_once(scene: Scene, look: Look) -> None:
    switch_on(scene.database)
    scene.sandbox.faults.add(Answer(503), service="hub", times=None)
    findings = look(WATCHER_TRAINING_TOKEN=TOKEN)
    assert "HTTP 503" in only(findings).sentence
    assert "Not checked: what trainings need of the Hub." in sentences(findings)


def test_trainings_that_do_not_end_are_doubled_or_find_the_day_full(scene: Scene, look: Look) -> None:
    switch_on(scene.database, usd_a_day=3)
    asked(scene)
    worker = Worker(scene.database, "attic", machine=machine())
    attempt = worker.claim_one(kind="train")
    worker.call("training_start", attempt=attempt, namespace="sandbox", usd_per_minute="0.03")
    asked(scene)
    second = worker.claim_one(kind="train", holding=[attempt])
    answer = worker.call("training_start", attempt=second, namespace="sandbox", usd_per_minute="0.03")
    assert answer == {"result": "budget"}
    worker.call("training_postpone", attempt=second, because="budget")
    full = only(look(WATCHER_TRAINING_TOKEN=TOKEN), "warning").sentence
    assert full == "Trainings wait for tomorrow, in UTC: $0.00 spent and $2.10 reserved of today's $3.00."
    scene.database.run("delete from watcher.work where next_at is not null")
    scene.database.run("update watcher.trainings set doubled = true")
    assert "had more than one job" in only(look(WATCHER_TRAINING_TOKEN=TOKEN), "warning").sentence
    scene.database.run(
        "update watcher.trainings set doubled = false, started_at = now() - interval '9 hours'"
    )
    assert "1 training has gone on for longer" in only(look(WATCHER_TRAINING_TOKEN=TOKEN)).sentence
