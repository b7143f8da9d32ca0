"""A worker that wakes up after another has taken its row over: none of its calls changes anything."""

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
# The place at which a daemon is frozen, how many of its requests are held there, and its number of rows.
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
    """Every verb with attempts that have been replaced, after each way in which their rows can have gone on."""
    calls = accepted = 0
    for end in (_held, _published, _failed, _deferred, _released, _replayed, _deleted, _inserted_again):
        person = Person(here.stage)
        rows = here.insert(20, person) + here.insert(_ROWS_EACH - 20, Person(here.stage))
        woken = {"instance": "woken", "run": str(uuid4())}
        stale = _claimed(here, rows, woken, lease=0.1)
        time.sleep(0.2)
        end(here, rows, _claimed(here, rows, _another(), lease=600))
        for row, attempt in zip(rows, stale, strict=True):
            stale_calls = _stale_calls(here, woken, attempt)
            random.shuffle(stale_calls)
            for call in stale_calls:
                before = _known(here, row)
                calls += 1
                accepted += int(call() or _known(here, row) != before)
    return calls, accepted


def _another() -> Run:
    return {"instance": "another", "run": str(uuid4())}


def _claimed(here: Scene, rows: Sequence[str], run: Run, *, lease: float) -> list[int]:
    """Claim exactly these rows; returns the attempts in the order of the rows."""
    answer = here.stage.rpc("watcher_claim", **run, slots={"publish": 64}, lease_seconds=lease)
    attempts = {claim["identity_id"]: int(claim["attempt"]) for claim in answer["claims"]}
    assert attempts.keys() == set(rows)
    return [attempts[row] for row in rows]


def _stale_calls(here: Scene, run: Run, attempt: int) -> list[Callable[[], bool]]:
    """All calls that a worker can make for its attempt; each returns whether it was accepted."""

    def rpc(verb: str, **arguments: Any) -> Callable[[], Any]:
        return lambda: here.stage.rpc(f"watcher_{verb}", **arguments)

    claim = rpc("claim", **run, slots={"publish": 4}, lease_seconds=20, holding=[attempt])
    renew = rpc("renew", progress={attempt: {"images_published": 2}}, lease_seconds=20)
    reserve = rpc("reserve", attempt=attempt, namespace="sandbox", slug="stale")
    write_backs = [
        rpc(
            "complete",
            attempt=attempt,
            url="https://example.com",
            commit_sha="0" * 40,
            training_config={"a": 1},
        ),
        rpc("fail", attempt=attempt, code="hub_refused", message="Stale."),
        rpc("defer", attempt=attempt, reason="Stale.", retry_after_seconds=1),
        rpc("release", attempt=attempt, reason="Stale."),
    ]
    return [
        lambda: claim()["claims"] != [],
        lambda: renew() != {"held": [], "busy": []},
        lambda: reserve() is not None,
        *(lambda verb=verb: verb() != "lost" for verb in write_backs),
    ]


def _known(here: Scene, row: str) -> str:
    """Everything in the database about a row, as text."""
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


# How the rows go on after the new attempts have got them.


def _held(here: Scene, rows: Sequence[str], attempts: Sequence[int]) -> None:
    """The new attempts still hold them."""


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
    # They are due now, and must not be claimed by the next case.
    here.stage.sql(
        "update public.trained_identities set next_attempt_at = now() + '1 hour' where status = 'pending'"
    )


def _replayed(here: Scene, rows: Sequence[str], attempts: Sequence[int]) -> None:
    """Failed, replayed by the operator, and held by a third run."""
    _failed(here, rows, attempts)
    assert here.stage.rpc("watcher_replay", ids=list(rows))["replayed"] == len(rows)
    _claimed(here, rows, _another(), lease=600)


def _deleted(here: Scene, rows: Sequence[str], attempts: Sequence[int]) -> None:
    _delete(here, rows)


def _inserted_again(here: Scene, rows: Sequence[str], attempts: Sequence[int]) -> None:
    """Deleted, inserted again under the same ids, and held by a third run."""
    _delete(here, rows)
    owners = [Person(here.stage), Person(here.stage)]
    for number, row in enumerate(rows):
        owner = owners[number // 20]
        owner.insert("Ada", owner.photos(), id=row)
    _claimed(here, rows, _another(), lease=600)


def _delete(here: Scene, rows: Sequence[str]) -> None:
    here.database.execute("delete from public.trained_identities where id = any (%s::uuid[])", [list(rows)])


def _frozen_daemons(here: Scene) -> tuple[int, int]:
    """Real daemons, frozen while they hold rows, and continued when another has published these."""
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
            time.sleep(1)  # for its requests in flight
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
