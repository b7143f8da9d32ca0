"""A worker that comes back after somebody else has taken its row: whatever it says, nothing of it is written."""

import random
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, Literal
from uuid import uuid4

from tests.acceptance.person import Person
from tests.acceptance.places import SHORT_LEASE, at
from tests.acceptance.repo import audit
from tests.acceptance.running import Watcher
from watcher.sandbox.faults import Hold

from .figure import Figure, Measured
from .scene import Scene, scene, until

Run = dict[str, str]

_ROWS_EACH = 21
# Where a daemon is frozen, how many of its requests are kept there, and with how many rows.
_FREEZES: tuple[tuple[str, Literal["before", "after"], int, int], ...] = (
    ("reserve", "after", 4, 4),
    ("create", "before", 1, 4),
    ("upload", "before", 3, 1),
    ("commit", "before", 4, 4),
    ("complete", "before", 4, 4),
)


def _stale() -> Measured:
    with scene() as here:
        calls, accepted = _calls_of_woken_workers(here)
        frozen, changed = _frozen_daemons(here)
    kept = calls >= 1000 and accepted == changed == 0
    return Measured(
        kept,
        f"{accepted} of {calls} calls accepted; {changed} of {frozen} rows changed by frozen daemons that woke",
        {"calls": calls, "accepted": accepted, "frozen_rows": frozen, "changed": changed},
    )


def _calls_of_woken_workers(here: Scene) -> tuple[int, int]:
    """All verbs with the numbers of attempts whose rows others hold or have ended, in every way there is."""
    calls = accepted = 0
    for end in (_held, _published, _failed, _deferred, _released, _replayed, _deleted, _inserted_again):
        person = Person(here.stage)
        rows = here.insert(20, person) + here.insert(_ROWS_EACH - 20, Person(here.stage))
        woken = {"instance": "woken", "run": str(uuid4())}
        stale = _claimed(here, rows, woken, lease=0.1)
        time.sleep(0.2)
        end(here, rows, _claimed(here, rows, _another(), lease=600))
        for row, attempt in zip(rows, stale, strict=True):
            said = _sayings(here, woken, attempt)
            random.shuffle(said)
            for say in said:
                before = _known(here, row)
                calls += 1
                accepted += int(say() or _known(here, row) != before)
    return calls, accepted


def _another() -> Run:
    return {"instance": "another", "run": str(uuid4())}


def _claimed(here: Scene, rows: Sequence[str], run: Run, *, lease: float) -> list[int]:
    """Claim these rows, and no other is due; the attempts in their order."""
    answer = here.stage.rpc("watcher_claim", **run, slots={"publish": 64}, lease_seconds=lease)
    attempts = {claim["identity_id"]: int(claim["attempt"]) for claim in answer["claims"]}
    assert attempts.keys() == set(rows)
    return [attempts[row] for row in rows]


def _sayings(here: Scene, run: Run, attempt: int) -> list[Callable[[], bool]]:
    """All that a worker may say of its attempt; each returns whether it was believed."""

    def say(verb: str, **arguments: Any) -> Callable[[], Any]:
        return lambda: here.stage.rpc(f"watcher_{verb}", **arguments)

    claim = say("claim", **run, slots={"publish": 4}, lease_seconds=20, holding=[attempt])
    renew = say("renew", progress={attempt: {"images_published": 2}}, lease_seconds=20)
    reserve = say("reserve", attempt=attempt, namespace="sandbox", slug="stale")
    write_backs = [
        say(
            "complete",
            attempt=attempt,
            url="https://example.com",
            commit_sha="0" * 40,
            training_config={"a": 1},
        ),
        say("fail", attempt=attempt, code="hub_refused", message="Stale."),
        say("defer", attempt=attempt, reason="Stale.", retry_after_seconds=1),
        say("release", attempt=attempt, reason="Stale."),
    ]
    return [
        lambda: claim()["claims"] != [],
        lambda: renew() != {"held": [], "busy": []},
        lambda: reserve() is not None,
        *(lambda verb=verb: verb() != "lost" for verb in write_backs),
    ]


def _known(here: Scene, row: str) -> str:
    """All that the database holds of a row, as text."""
    return str(
        here.one(
            "select jsonb_build_array("
            "(select to_jsonb(t) from public.trained_identities t where id = %(id)s),"
            "(select to_jsonb(w) from watcher.work w where identity_id = %(id)s),"
            "(select jsonb_agg(a order by number) from watcher.attempts a where identity_id = %(id)s),"
            "(select jsonb_agg(n order by model_id) from watcher.names n where identity_id = %(id)s))",
            id=row,
        )
    )


# What became of the rows, by those who hold them now.


def _held(here: Scene, rows: Sequence[str], attempts: Sequence[int]) -> None:
    """They are being worked on."""


def _published(here: Scene, rows: Sequence[str], attempts: Sequence[int]) -> None:
    for attempt in attempts:
        here.stage.rpc("watcher_reserve", attempt=attempt, namespace="sandbox", slug="ada")
        done = {"url": "https://example.com/ada", "commit_sha": "1" * 40, "training_config": {}}
        assert here.stage.rpc("watcher_complete", attempt=attempt, **done) == "done"


def _failed(here: Scene, rows: Sequence[str], attempts: Sequence[int]) -> None:
    for attempt in attempts:
        failed = {"code": "image_missing", "message": "Image 2 is gone."}
        assert here.stage.rpc("watcher_fail", attempt=attempt, **failed) == "done"


def _deferred(here: Scene, rows: Sequence[str], attempts: Sequence[int]) -> None:
    for attempt in attempts:
        later = {"reason": "The Hub is away.", "retry_after_seconds": 3600}
        assert here.stage.rpc("watcher_defer", attempt=attempt, **later) == "done"


def _released(here: Scene, rows: Sequence[str], attempts: Sequence[int]) -> None:
    for attempt in attempts:
        assert here.stage.rpc("watcher_release", attempt=attempt, reason="Stopping.") == "done"
    # They are due, and must not be what the next way finds.
    here.stage.sql(
        "update public.trained_identities set next_attempt_at = now() + '1 hour' where status = 'pending'"
    )


def _replayed(here: Scene, rows: Sequence[str], attempts: Sequence[int]) -> None:
    """Ended, set back by the operator, and held by a third."""
    _failed(here, rows, attempts)
    assert here.stage.rpc("watcher_replay", ids=list(rows))["replayed"] == len(rows)
    _claimed(here, rows, _another(), lease=600)


def _deleted(here: Scene, rows: Sequence[str], attempts: Sequence[int]) -> None:
    _delete(here, rows)


def _inserted_again(here: Scene, rows: Sequence[str], attempts: Sequence[int]) -> None:
    """Deleted, inserted anew under the same ids, and held by a third."""
    _delete(here, rows)
    owners = [Person(here.stage), Person(here.stage)]
    for number, row in enumerate(rows):
        owner = owners[number // 20]
        owner.insert("Ada", owner.photos(), id=row)
    _claimed(here, rows, _another(), lease=600)


def _delete(here: Scene, rows: Sequence[str]) -> None:
    here.database.execute("delete from public.trained_identities where id = any (%s::uuid[])", [list(rows)])


def _frozen_daemons(here: Scene) -> tuple[int, int]:
    """Real daemons, frozen where they hold a row or four, woken when others have published these."""
    here.database.execute("delete from auth.users where id <> %s", [here.person.id])
    frozen_rows = changed = 0
    for place, when, requests, count in _FREEZES:
        with ExitStack() as stack:
            frozen = stack.enter_context(Watcher(here.stage, **SHORT_LEASE)).ready()
            held = here.sandbox.faults.add(Hold(when), **at(place), times=requests)
            rows = here.insert(count)
            held.wait_reached(count=requests)
            until(lambda: len(frozen.said("claimed")) == count)  # noqa: B023  (asked at once)
            frozen.send(signal.SIGSTOP)
            other = stack.enter_context(Watcher(here.stage, **SHORT_LEASE))
            here.all_become(rows, "published")
            before = [_known(here, row) for row in rows]
            held.release()
            frozen.send(signal.SIGCONT)
            frozen.wait_for("lease_lost", count=count)
            time.sleep(1)  # what it still had under way may come to its end
            frozen.stop()
            other.stop()
        for row, known in zip(rows, before, strict=True):
            audit(here.stage, here.person.row(row))
            changed += int(_known(here, row) != known)
            frozen_rows += 1
    return frozen_rows, changed


FIGURES = [
    Figure("stale", "woken workers, 1,000 calls over all verbs: 0 accepted", _stale),
]
