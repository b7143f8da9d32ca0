"""`make truth`: the sandbox answers the exchanges as the real services do, and a sandbox that does not is found out."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from click.testing import CliRunner

from tests.checks.truth.__main__ import main
from tests.checks.truth.play import Answers, answers, compared, known, untrue
from tests.checks.truth.target import Target
from tests.sandbox.project import QUICK
from tests.support.database import migrate
from watcher.sandbox import Postgres, Sandbox
from watcher.sandbox.faults import Answer

PLANTED = {
    "rest: an exact count": Answer(200, [], {"content-range": "*/7"}),
    "auth: recovering the password of nobody": Answer(404, {"msg": "There is no such user."}),
    "storage: a user empties a bucket": Answer(400, {"message": "Bucket not found"}),
    "hub: an unknown property": Answer(200, {}),
    "storage, recorded: 100 remove own": Answer(200, []),
}
"""Untruths by the exchange that meets them."""
MET_BY = {
    "rest: an exact count": ("rest", "GET", "truth_", 1),
    "auth: recovering the password of nobody": ("auth", "POST", "/recover$", 0),
    "storage: a user empties a bucket": ("storage", "POST", "/empty$", 0),
    "hub: an unknown property": ("hub", "GET", "/api/models/[^/]+/[^/]+$", 2),
    "storage, recorded: 100 remove own": ("storage", "DELETE", "/object/identity-images$", 2),
}
"""Service, method, path, and how many such requests come first."""


@contextmanager
def sandbox(postgres: Postgres) -> Iterator[Sandbox]:
    with Sandbox(postgres=postgres, timing=QUICK) as started:
        migrate(started.db_url)
        yield started


def asked(started: Sandbox) -> Answers:
    with Target.of_sandbox(started).prepared() as target:
        return answers(target)


@pytest.fixture(scope="module")
def given(postgres: Postgres) -> Answers:
    """Play everything once, and see that nothing is left of it."""
    with sandbox(postgres) as started:
        before = state(started)
        found = asked(started)
        assert state(started) == before
        return found


def state(started: Sandbox) -> list[object]:
    """Return what there is in a sandbox."""
    queries = (
        "select count(*) from auth.users",
        "select count(*) from storage.objects",
        "select count(*) from storage.buckets",
        "select relname from pg_class where relnamespace = 'public'::regnamespace order by relname",
        "select count(*) from pg_proc where pronamespace = 'public'::regnamespace",
    )
    with psycopg.connect(started.admin_db_url) as connection:
        rows = [connection.execute(query.encode()).fetchall() for query in queries]
    return [*rows, started.hub.store.repos("models")]


def test_the_sandbox_answers_as_the_real_services_do(given: Answers, subtests: pytest.Subtests) -> None:
    wrong, expected = dict(untrue(given)), known()
    assert len(expected) > 80
    assert expected.keys() <= given.keys()
    for name in expected:
        with subtests.test(name):
            assert name not in wrong, wrong[name]


def test_five_planted_untruths_are_found_and_nothing_else(given: Answers, postgres: Postgres) -> None:
    with sandbox(postgres) as started:
        for name, untruth in PLANTED.items():
            service, method, path, before = MET_BY[name]
            started.faults.add(untruth, service=service, method=method, path=path, skip=before)
        found = dict(compared(asked(started), given))
    assert found.keys() == PLANTED.keys()
    assert 'headers.content-range: "*/7", in the sandbox "*/0"' in found["rest: an exact count"]


def test_it_says_what_it_makes_and_asks_first() -> None:
    settings = {
        "SUPABASE_PUBLISHABLE_KEY": "p",
        "SUPABASE_SECRET_KEY": "s",
        "SUPABASE_DB_URL": "",
        "HF_TOKEN": "",
    }
    answer = CliRunner().invoke(main, ["--against", "http://127.0.0.1:9"], input="n\n", env=settings)
    assert answer.exit_code == 1
    assert "This makes, and removes at the end:\n  - two users, and their photos" in answer.output
    assert "without HF_TOKEN, the Hub is left out" in answer.output
    assert "Go on? [y/N]" in answer.output
    keyless = CliRunner().invoke(main, ["--against", "http://127.0.0.1:9"], env=dict.fromkeys(settings, ""))
    assert "SUPABASE_PUBLISHABLE_KEY is not set: set it to the key of the project" in keyless.output
