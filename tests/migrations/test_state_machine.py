"""Any order of claims, write-backs, kills, users and hours: the model says what may be, and Postgres is held to it.

Each step is one transaction, so that what was before, what a verb answered and what is after share one now(). Between
two steps the stored times are moved along with the clock, so how long the machine takes over a step decides nothing.
Always the same examples; with EXAMPLES=2000 in the environment so many others.
"""

import json
import sys
from collections.abc import Callable, Collection, Sequence
from functools import partial, wraps
from itertools import count as numbers
from typing import Any, TypeVar, cast
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)

from tests.migrations.model import ENDS, LEASE, LIMIT, MINUTE, OPEN, STATE, Attempt, Model, Run, State
from tests.support.database import Database, Worker, move_times
from watcher.settings.settings import environment

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., None])

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(0)]

# No sum of these, and of a tick for each step, comes near a lease, the end of a back-off or a minute.
TICK = 0.001
HOPS = (3.1, 9.7, 21.3, 64.9, 1300.3)
ANY = st.integers(0, 1000)
INSERT = """
insert into public.trained_identities (id, identity_name, image_paths) select unnest(%s), 'Ada', %s returning id
"""
RETRY = "update public.trained_identities set status = 'pending' where id = any (%s::uuid[]) returning id"
DELETE = "delete from public.trained_identities where id = any (%s::uuid[]) returning id"


class Refused(Exception):
    """Postgres refused a step, and nothing has changed."""


def only_if(condition: Callable[["Machine"], bool]) -> Callable[[F], F]:
    """Let a rule do nothing unless this is so.

    Not hypothesis's own precondition: which rules it offers may not depend on what differs from run to run, as ids, jitter
    and the time that has passed do here.
    """

    def decorate(act: F) -> F:
        @wraps(act)
        def guarded(machine: "Machine", **drawn: Any) -> None:
            if condition(machine):
                act(machine, **drawn)

        return cast("F", guarded)

    return decorate


class Machine(RuleBasedStateMachine):
    """Three users, two hosts, an operator, and time."""

    def __init__(self, database: Database) -> None:
        super().__init__()
        self.database = database
        self.connection = database.connect("supabase_admin")
        self.worker = Worker(database)
        self.worker._connection = self.connection
        # Nothing is left to chance, not even ids and the jitter of back-offs: a failure comes again.
        self.connection.execute("select setseed(0)")
        self.ids = (UUID(int=number) for number in numbers(1))
        self.clock: float | None = None
        """The last step's now(), in seconds."""
        self.model = Model()
        self.runs: list[Run] = []
        self.knows: dict[Run, list[int]] = {}
        self.heirs: set[Run] = set()
        self.users: list[str] = []
        self.paths: dict[str, list[str]] = {}

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None:  # what failed before would only be hidden
                self.nothing_is_stuck()
        finally:
            self.connection.close()
            self.database.clear()

    # How a step is made.

    def state(self) -> State:
        [row] = self.connection.execute(STATE.encode()).fetchall()
        state = row["state"]
        assert isinstance(state, dict)
        return state

    def do(self, act: Callable[[], Any], role: str = "service_role", user: str | None = None) -> Any:
        """Do one thing in somebody's role; `before` and `after` are what it found and what it left."""
        token = {"role": role, **({"sub": user} if user else {})}
        try:
            with self.connection.transaction():
                clock = self.hold_the_clock()
                self.before = self.state()
                self.connection.execute(
                    "select set_config('request.jwt.claims', %s, true)", [json.dumps(token)]
                )
                self.connection.execute(f"set local role {role}".encode())
                answer = act()
                self.connection.execute("reset role")
                self.after = self.state()
        except psycopg.errors.CheckViolation as error:
            raise Refused(str(error)) from error
        self.clock = clock
        return answer

    def hold_the_clock(self) -> float:
        """Undo what has gone by since the last step, but for a tick; this step's now()."""
        [row] = self.connection.execute("select extract(epoch from now())::float8 as seconds").fetchall()
        if self.clock is not None:
            self.connection.execute("set local session_replication_role = replica")
            move_times(self.connection, row["seconds"] - self.clock - TICK)
            self.connection.execute("set local session_replication_role = origin")
        return float(row["seconds"])

    def run_as(self, user: str, query: str, *parameters: Any) -> list[str]:
        """Run a user's statement; the ids it answers."""
        return [str(row["id"]) for row in self.do(
            lambda: self.connection.execute(query.encode(), parameters).fetchall(), "authenticated", user
        )]  # fmt: skip

    def agree(self) -> None:
        self.model.agree(self.after)

    def unchanged(self) -> None:
        assert self.after == self.before, "It was to change nothing."

    # Where it begins.

    @initialize()
    def begin(self) -> None:
        for _ in range(3):
            self.sign_up()
        for instance in ("one", "two"):
            self.start(instance)
        for who in range(3):
            self.a_user_inserts(who=who, count=2)

    def sign_up(self) -> None:
        user = str(next(self.ids))
        self.database.run("insert into auth.users (id) values (%s)", [user])
        self.paths[user] = [f"{user}/{number}.jpg" for number in range(3)]
        self.database.store(self.paths[user])
        self.users.append(user)

    def start(self, instance: str) -> None:
        run = Run(instance, str(next(self.ids)))
        self.runs.append(run)
        self.knows[run] = []
        self.heirs.add(run)

    # Users.

    @rule(who=ANY, count=st.sampled_from([1, 1, 1, 2, 3, 7, 20, 21]))
    def a_user_inserts(self, who: int, count: int) -> None:
        user = pick(self.users, who)
        fits = len(self.model.of(user, *OPEN)) + count <= LIMIT
        try:
            made = self.run_as(user, INSERT, [next(self.ids) for _ in range(count)], self.paths[user])
        except Refused:
            assert not fits
            return
        assert fits
        self.model.insert(user, made)
        self.agree()

    @rule(who=ANY, which=st.sets(ANY, min_size=1, max_size=3))
    @only_if(lambda self: self.any_is("failed"))
    def a_user_tries_again(self, who: int, which: set[int]) -> None:
        user, chosen = pick(self.users, who), self.some_rows(which)
        failed = set(chosen) & set(self.model.of(user, "failed"))
        fits = not failed or len(self.model.of(user, *OPEN)) + len(failed) <= LIMIT
        try:
            changed = self.run_as(user, RETRY, chosen)
        except Refused:
            assert not fits
            return
        assert fits
        assert set(changed) == failed
        self.begin_anew(failed)

    @rule(who=ANY, which=st.sets(ANY, min_size=1, max_size=3))
    @only_if(lambda self: len(self.model.rows) > 6)
    def a_user_deletes(self, who: int, which: set[int]) -> None:
        user, chosen = pick(self.users, who), self.some_rows(which)
        gone = set(chosen) & set(self.model.of(user, "pending", "published", "failed"))
        assert set(self.run_as(user, DELETE, chosen)) == gone
        self.model.remove(gone)
        self.agree()

    @rule(who=ANY)
    @only_if(lambda self: len(self.model.rows) > 12)
    def a_user_leaves(self, who: int) -> None:
        """The one with the fewest rows, more often than not: what happens to rows should take its time."""
        users = sorted(
            self.users, key=lambda user: sum(row.owner == user for row in self.model.rows.values())
        )
        user = users[who % 5 // 2]
        delete = "delete from auth.users where id = %s"
        self.do(lambda: self.connection.execute(delete, [user]), "supabase_auth_admin")
        self.model.remove(self.model.of(user, "pending", "publishing", "published", "failed"))
        self.agree()
        self.users.remove(user)
        self.sign_up()

    # The operator.

    @rule(which=st.none() | st.sets(ANY, min_size=1, max_size=3))
    @only_if(lambda self: self.any_is("failed"))
    def the_operator_replays(self, which: set[int] | None) -> None:
        chosen = None if which is None else self.some_rows(which)
        failed = [
            identity
            for identity, row in self.model.rows.items()
            if row.status == "failed" and (chosen is None or identity in chosen)
        ]
        answer = self.do(
            lambda: self.worker.replay(ids=None if chosen is None else [UUID(id_) for id_ in chosen])
        )
        assert answer["replayed"] == len(failed)
        for status in ("pending", "publishing", "published"):
            others = [id_ for id_ in chosen or () if self.model.rows[id_].status == status]
            assert answer[status] == len(others)
        self.begin_anew(failed)

    @rule(which=ANY, back=st.booleans())
    @only_if(lambda self: self.any_is("pending") and self.any_is("publishing"))
    def somebody_sets_a_status_by_hand(self, which: int, back: bool) -> None:
        old, new = ("publishing", "pending") if back else ("pending", "publishing")
        rows = [identity for identity, row in self.model.rows.items() if row.status == old]
        if rows:
            by_hand = "update public.trained_identities set status = %s, next_attempt_at = null where id = %s"
            self.do(lambda: self.connection.execute(by_hand, [new, pick(rows, which)]), "postgres")
            self.model.by_hand(pick(rows, which), new)
            self.agree()

    def begin_anew(self, identities: Collection[str]) -> None:
        self.model.begin_anew(identities)
        self.agree()
        assert {self.after["rows"][identity]["images_published"] for identity in identities} <= {0}

    # Daemons.

    @rule(
        who=ANY,
        limit=st.integers(0, 5),
        lost=st.sampled_from([None, None, None, 0.0, *HOPS[:3]]),
        rounds=st.lists(st.lists(st.sampled_from(["", *ENDS]), max_size=5), min_size=1, max_size=3),
    )
    @only_if(lambda self: self.any_is("pending") or self.any_is("publishing"))
    def a_daemon_claims(self, who: int, limit: int, lost: float | None, rounds: list[list[str]]) -> None:
        """And ends some of what it got, then claims again. If an answer is lost, it asks anew some seconds later."""
        run = pick(self.runs, who)
        if lost is not None:
            self.claim(run, limit, heard=False)
            self.time_passes(lost)
        for verbs in rounds:
            for number, verb in zip(self.claim(run, limit), verbs, strict=False):
                if verb:
                    self.end(number, verb)

    def claim(self, run: Run, limit: int, *, heard: bool = True) -> list[int]:
        """Claim, and hold the answer against what was due; unless `heard`, the answer is lost."""
        # What it was told it has ended it holds no longer, as far as it knows.
        holding = [number for number in self.knows[run] if self.believes(number)]
        heir = run in self.heirs
        self.worker.instance, self.worker.run = run.instance, UUID(run.id)
        answer = self.do(lambda: self.worker.ask(limit, holding, LEASE, predecessor_is_dead=heir))
        self.heirs.discard(run)
        due = self.model.due(self.before, run, holding, predecessor_is_dead=heir)
        claims = {claim["identity_id"]: claim for claim in answer["claims"]}
        assert len(claims) == len(answer["claims"]) <= limit
        held_alone = [n for n in holding if (a := self.model.holds(n)) is not None and a.alone]
        ended = {
            id_ for id_, row in self.after["rows"].items()
            if row["status"] == "failed" != self.before["rows"][id_]["status"]
        }  # fmt: skip
        handled = [one for one in due if one.identity in claims or one.identity in ended]
        left = [one for one in due if one not in handled]
        assert {one.identity for one in handled} == claims.keys() | ended, "It took what was not due."
        if held_alone:
            assert not handled
            assert answer["more_due"] or not limit
        alone = [one for one in handled if one.identity in claims and one.alone]
        if alone:
            assert not holding
            assert len(claims) == 1
            assert answer["more_due"]
        elif len(claims) < limit and not held_alone:
            # Nothing stays behind but what goes alone, or what makes way for it after a minute.
            waiting = [one for one in left if one.alone]
            assert not left or (waiting and (holding or claims)), f"Left behind: {left}"
            assert not left or answer["more_due"]
            assert waiting == left or max(one.since for one in waiting) > MINUTE
            assert answer["more_due"] == bool(left)
        elif limit and not held_alone:
            assert answer["more_due"], "As many as were asked for: there may be more."
        # What goes alone and has waited for a minute lets nothing pass that comes after it.
        passed = [one for one in left if not one.alone or one.since > MINUTE]
        if handled and passed:
            assert max(one.order for one in handled) <= min(one.order for one in passed), "Out of turn."
        # In the order of the answer: rows that became due at the same moment may come in any.
        for one in sorted(handled, key=lambda one: claims.get(one.identity, {"attempt": 0})["attempt"]):
            self.model.take(one, claims.get(one.identity), run)
        for claim in claims.values():
            lease = self.after["attempts"][str(claim["attempt"])]["left"]
            assert lease == LEASE
            assert self.after["rows"][claim["identity_id"]]["images_published"] == 0
        self.agree()
        self.next_due(answer["next_due_seconds"], run)
        numbers = [claim["attempt"] for claim in answer["claims"]]
        if heard:
            self.knows[run] += numbers
        return numbers

    def believes(self, number: int) -> bool:
        """Whether a daemon that was told of the attempt still works on it."""
        attempt = self.model.attempts.get(number)
        return attempt is None or attempt.outcome in (None, "crashed", "revoked")

    def next_due(self, told: float | None, run: Run) -> None:
        times = [row["due_in"] for row in self.after["rows"].values() if row["due_in"] is not None]
        for number, attempt in self.model.attempts.items():
            if attempt.outcome is None and attempt.run != run:
                times.append(self.after["attempts"][str(number)]["left"])
        soonest = min((time for time in times if time > 0), default=None)
        assert told == soonest or (told is not None and soonest is not None and abs(told - soonest) < 0.01)

    @rule(who=ANY, images=st.integers(-1, 4))
    @only_if(lambda self: self.any_is("publishing"))
    def a_daemon_renews(self, who: int, images: int) -> None:
        """All that it ever knew of, also what it holds no longer."""
        numbers = self.knows[pick(self.runs, who)]
        answer = self.do(lambda: self.worker.renew(numbers, [images] * len(numbers)))
        held = {number for number in numbers if self.model.holds(number)}
        assert (set(answer["held"]), answer["busy"]) == (held, [])
        for number, attempt in self.after["attempts"].items():
            was = self.before["attempts"][number]
            assert attempt == ({**was, "left": LEASE, "lease_expires_at": attempt["lease_expires_at"]}
                               if int(number) in held else was)  # fmt: skip
            if int(number) in held:
                identity = attempt["identity_id"]
                shown = [state["rows"][identity]["images_published"] for state in (self.before, self.after)]
                assert shown[1] == max(shown[0], min(images, 3))
        self.agree()

    @rule(which=ANY, namespace=st.sampled_from(["acme", "acme", "other"]), refuse=st.booleans())
    @only_if(lambda self: self.any_is("publishing"))
    def a_daemon_reserves(self, which: int, namespace: str, refuse: bool) -> None:
        number = self.an_attempt(which)
        attempt = self.model.holds(number)
        refused = self.model.rows[attempt.identity].name if attempt is not None and refuse else None
        name = self.do(lambda: self.worker.reserve(number, namespace, refused=refused))
        if attempt is None:
            assert name is None
            self.unchanged()
        else:
            self.model.reserve(attempt, name, namespace=namespace, refused=refused)
        self.agree()

    @rule(
        ends=st.lists(
            st.tuples(ANY, st.sampled_from(sorted(ENDS)), st.integers(1, 2)), min_size=1, max_size=6
        )
    )
    @only_if(lambda self: self.any_is("publishing"))
    def daemons_end_attempts(self, ends: list[tuple[int, str, int]]) -> None:
        """Any that ever were, and perhaps twice, as when the first answer was lost."""
        for which, verb, times in ends:
            number = self.an_attempt(which)
            for _ in range(times):
                self.end(number, verb)

    def end(self, number: int, verb: str) -> None:
        attempt = self.model.holds(number)
        if verb == "complete" and attempt is not None:
            name = self.do(lambda: self.worker.reserve(number))
            self.model.reserve(attempt, name, namespace="acme", refused=None)
        answer = self.do(lambda: getattr(self.worker, verb)(number))
        if attempt is None:
            said_before = number in self.model.attempts and self.model.attempts[number].outcome == ENDS[verb]
            assert answer == ("done" if said_before else "lost")
            self.unchanged()
        else:
            assert answer == "done"
            self.model.end(verb, attempt)
            self.backed_off(attempt)
        self.agree()

    def backed_off(self, attempt: Attempt) -> None:
        row = self.model.rows[attempt.identity]
        if row.deferred:
            due_in = self.after["rows"][attempt.identity]["due_in"]
            assert 0.75 <= due_in / min(5 * 3 ** (row.spent - 1), 900) <= 1.25

    @rule(who=ANY)
    def a_daemon_is_killed_and_started_again(self, who: int) -> None:
        """What it was about to say may still arrive: the attempts stay where `an_attempt` finds them."""
        run = pick(self.runs, who)
        self.runs.remove(run)
        self.start(run.instance)

    @rule(times=st.integers(1, 9), which=st.sampled_from(["kill", "defer"]), reserve=st.booleans())
    @only_if(lambda self: self.any_is("pending") or self.any_is("publishing"))
    def a_host_wears_rows_out(self, times: int, which: str, reserve: bool) -> None:
        """It comes with nothing in hand, claims one row, and dies of it or defers it, again and again."""
        for _ in range(times):
            self.start("hapless")
            run = self.runs.pop()
            for number in self.claim(run, 1):
                if reserve:
                    name = self.do(partial(self.worker.reserve, number, "other"))
                    self.model.reserve(self.model.attempts[number], name, namespace="other", refused=None)
                if which == "defer":
                    self.end(number, "defer")
            self.time_passes(1300.3 if which == "defer" else 21.3)

    # Time.

    @rule(seconds=st.sampled_from(HOPS))
    def time_passes(self, seconds: float) -> None:
        self.database.pass_time(seconds)

    # In the end.

    def nothing_is_stuck(self) -> None:
        """One daemon that works, and hours: every row ends."""
        self.time_passes(4000.7)
        self.start("healthy")
        run = self.runs[-1]
        for _ in range(len(self.model.rows) + 2):
            for number in self.claim(run, 64):
                self.end(number, "complete")
        open_rows = [row for row in self.model.rows.values() if row.status in OPEN]
        assert not open_rows

    # Choices.

    def any_is(self, status: str) -> bool:
        return any(row.status == status for row in self.model.rows.values())

    def some_rows(self, which: Collection[int]) -> list[str]:
        """Failed ones more often than others, which are many."""
        failed = [identity for identity, row in self.model.rows.items() if row.status == "failed"]
        rows = [*self.model.rows, *(failed * len(self.model.rows))]
        return list(dict.fromkeys(pick(rows, number) for number in sorted(which))) if rows else []

    def an_attempt(self, which: int) -> int:
        """One that holds its row or one that comes too late, as often; now and then one that never was."""
        if which >= 950:
            return which
        attempts = self.model.attempts
        holding = [number for number in attempts if attempts[number].outcome is None]
        taken = [number for number in attempts if attempts[number].outcome in {"crashed", "revoked"}]
        ended = [number for number in attempts if number not in holding]
        return pick((holding, taken, ended)[which % 3] or [self.model.highest], which // 3)


def pick(choices: Sequence[T], number: int) -> T:
    return choices[number % len(choices)]


def test_whatever_happens_in_whatever_order(database: Database) -> None:
    examples = int(environment().get("EXAMPLES", "0"))
    machine: Any = lambda: Machine(database)  # noqa: E731  (one is made for each example, and hypothesis wants a class)
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples or 36,
            stateful_step_count=40,
            derandomize=not examples,
            database=None,
            deadline=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
