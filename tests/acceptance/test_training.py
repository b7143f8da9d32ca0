"""A row that is to be trained: the program goes on to the weights, whatever happens to it on the way."""

import signal
from collections.abc import Iterator

import pytest

from tests.acceptance.person import Person
from tests.acceptance.running import Watcher
from tests.acceptance.stage import Stage
from tests.support.waiting import wait_until
from watcher.sandbox import Sandbox


@pytest.fixture
def offered(stage: Stage, sandbox: Sandbox) -> Iterator[dict[str, str]]:
    """Trainings are on, in the sandbox, since they cost money elsewhere; gives the settings of a daemon that trains."""
    stage.sql(
        "create or replace function watcher.first_look_seconds() returns integer language sql as 'select 1'"
    )
    stage.rpc("watcher_set_training", settings={"enabled": True, "usd_a_day": 1000})
    stage.rpc("watcher_set_limit", name="trainings_per_day", value=100, user=None)
    yield {"WATCHER_TRAINING_TOKEN": stage.token}
    stage.rpc("watcher_set_training", settings={"enabled": False})
    sandbox.hub.jobs.reset()


def test_a_row_that_asks_for_it_becomes_ready(stage: Stage, person: Person, offered: dict[str, str]) -> None:
    with Watcher(stage, **offered) as watcher:
        watcher.ready()
        identity = person.insert(train=True, trigger_word="zoe42")
        row = person.wait_for(identity, "ready")
        files = stage.api.list_repo_files(row["model_id"])
        assert "pytorch_lora_weights.safetensors" in files
        card = stage.api.model_info(row["model_id"]).card_data
        assert card is not None
        assert "zoe42" in card["instance_prompt"]
        pictures = [
            person.client.storage.from_("identity-samples").download(path) for path in row["sample_paths"]
        ]
        assert len(pictures) == 4
        assert watcher.said("trained", identity=identity)
        assert row["training_seconds"] is not None


def test_who_is_killed_at_any_time_leaves_one_job(
    stage: Stage, sandbox: Sandbox, person: Person, offered: dict[str, str]
) -> None:
    sandbox.hub.jobs.hold_next("RUNNING")
    with Watcher(stage, "first", **offered) as watcher:
        watcher.ready()
        identity = person.insert(train=True)
        person.wait_for(identity, "training")
        watcher.kill()
    with Watcher(stage, "first", **offered) as watcher:
        watcher.ready()
        stage.sql("update watcher.trainings set intent_at = intent_at - interval '10 minutes'")
        wait_until(lambda: stage.sql("select job from watcher.trainings where identity_id = %s", identity)[0])
        sandbox.hub.jobs.release()
        person.wait_for(identity, "ready")
        mine = [
            job for job in sandbox.hub.jobs.all() if job.spec.environment["WATCHER_REPO"]
            == person.row(identity)["model_id"]
        ]  # fmt: skip
        assert len(mine) == 1
        watcher.send(signal.SIGTERM)
        assert watcher.wait() == 0


def test_a_daemon_without_the_token_leaves_trainings_to_others(
    stage: Stage, person: Person, offered: dict[str, str]
) -> None:
    with Watcher(stage) as watcher:
        watcher.ready()
        identity = person.insert(train=True)
        person.wait_for(identity, "published")
        person.wait_for(person.insert(), "published")
        assert stage.sql("select count(*) from watcher.trainings where identity_id = %s", identity) == [0]
    with Watcher(stage, **offered):
        person.wait_for(identity, "ready")
