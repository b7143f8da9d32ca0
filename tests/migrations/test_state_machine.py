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

from tests.migrations.model import (
    ENDS,
    LEASE,
    LIMIT,
    MINUTE,
    OPEN,
    SECOND_LOOK,
    SILENCE,
    STATE,
    WAIT,
    Attempt,
    Due,
    Model,
    Run,
    State,
)
from tests.support.database import Database, Worker, move_times
from watcher.settings.settings import environment

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., None])

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(0)]

# No sum of these, and of a tick for each step, comes near a lease, the end of a back-off or a minute.
TICK = 0.001
HOPS = (3.1, 9.7, 21.3, 64.9, 1300.3)
ANY = st.integers(0, 1000)
REASONS = ["The Hub is away.", "Stopping."]
CAUSES = ["shutdown", "outage", "unsure"]
# How attempts end that spend nothing, if there are not too many: a release by its cause, a wait, a claim's lost answer.
UNSPENT = [
    ("shutdown",), ("unsure",), ("wait",), ("lost",),
    ("shutdown", "unsure"), ("outage", "unsure"), ("wait", "outage"), ("lost", "outage"),
]  # fmt: skip
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
    """Three users, two hosts and what replaces them, an operator, and time."""

    def __init__(self, database: Database) -> None:
        super().__init__()
        self.database = database
        self.connection = database.connect("supabase_admin")
        self.worker = Worker(database)
        self.worker._connection = self.connection
        # Nothing is left to chance, not even ids and the jitter of back-offs: a failure comes again.
        self.connection.execute("select setseed(0)")
        # Photos have tests of their own; here it is about repos.
        self.connection.execute("insert into watcher.limits (name, value) values ('erase_photos', 0)")
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
                self.before = self.model.before = self.state()
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

    def start(self, instance: str, machine: str = "here") -> None:
        run = Run(instance, str(next(self.ids)), machine)
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
        gone = set(chosen) & set(self.model.of(user, "pending", "publishing", "published", "failed"))
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

    @rule(which=st.none() | st.sets(ANY, min_size=1, max_size=3), batch=st.sampled_from([1, 2, 1000]))
    @only_if(lambda self: self.any_is("failed"))
    def the_operator_replays(self, which: set[int] | None, batch: int) -> None:
        """In batches, up to the last."""
        chosen = None if which is None else self.some_rows(which)
        failed = [
            identity
            for identity, row in self.model.rows.items()
            if row.status == "failed" and (chosen is None or identity in chosen)
        ]
        answers = [self.replay(chosen, batch, None)]
        while (last := answers[-1]["last"]) is not None:
            answers.append(self.replay(chosen, batch, last))
        assert len(answers) == len(failed) // batch + 1
        assert sum(answer["replayed"] for answer in answers) == len(failed)
        for status in ("pending", "publishing", "published"):
            others = [id_ for id_ in chosen or () if self.model.rows[id_].status == status]
            assert sum(answer[status] for answer in answers) == len(others)
        self.begin_anew(failed)

    def replay(self, chosen: list[str] | None, limit: int, after: str | None) -> Any:
        ids = None if chosen is None else [UUID(id_) for id_ in chosen]
        return self.do(
            lambda: self.worker.replay(ids=ids, limit=limit, after=None if after is None else UUID(after))
        )

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
        slots=st.dictionaries(st.sampled_from(["publish", "erase"]), st.integers(0, 5), min_size=1),
        lost=st.sampled_from([None, None, None, 0.0, *HOPS[:3]]),
        rounds=st.lists(st.lists(st.sampled_from(["", *ENDS]), max_size=5), min_size=1, max_size=3),
    )
    @only_if(lambda self: bool(self.model.work))
    def a_daemon_claims(
        self, who: int, slots: dict[str, int], lost: float | None, rounds: list[list[str]]
    ) -> None:
        """And ends some of what it got, then claims again. If an answer is lost, it asks anew some seconds later."""
        run = pick(self.runs, who)
        if lost is not None:
            self.claim(run, slots, heard=False)
            self.time_passes(lost)
        for verbs in rounds:
            for number, verb in zip(self.claim(run, slots), verbs, strict=False):
                if verb:
                    self.end(number, verb)

    def claim(self, run: Run, slots: dict[str, int], *, heard: bool = True) -> list[int]:
        """Claim, and hold the answer against what was due; unless `heard`, the answer is lost."""
        # What it was told it has ended it holds no longer, as far as it knows.
        holding = [number for number in self.knows[run] if self.believes(number)]
        heir = run in self.heirs
        self.worker.instance, self.worker.run, self.worker.machine = run.instance, UUID(run.id), run.machine
        answer = self.do(lambda: self.worker.ask(slots, holding, LEASE, predecessor_is_dead=heir))
        if self.model.name_taken(run):
            known = self.before["instances"][run.instance]
            assert answer["name_taken"] == {
                "machine": known["machine"], "seconds": pytest.approx(SILENCE - known["ago"])
            }  # fmt: skip
            assert answer["claims"] == []
            self.unchanged()
            return []
        assert "name_taken" not in answer
        heard_of = self.after["instances"][run.instance]
        assert (heard_of["run_id"], heard_of["machine"], heard_of["ago"]) == (run.id, run.machine, 0)
        self.heirs.discard(run)
        wanted = [kind for kind, limit in slots.items() if limit]
        due = self.model.due(wanted, run, holding, predecessor_is_dead=heir)
        claims = {(claim["identity_id"], claim["kind"]): claim for claim in answer["claims"]}
        assert len(claims) == len(answer["claims"])
        handled = [one for one in due if one.key in claims or self.was_ended(one)]
        new = [key for key in claims if " ".join(key) not in self.before["work"]]
        assert {one.key for one in handled if not self.was_ended(one)} == claims.keys() - set(new)
        stops = self.stops(run, holding)
        if stops:
            assert not handled, "It was to make way, or to let it run alone."
        self.way_was_made(run, holding, due, handled)
        for kind in wanted:
            self.in_turn(kind, slots[kind], due, handled, claims.keys(), holding, run)
        # In the order of the answer: what became due at the same moment may come in any.
        for one in sorted(handled, key=lambda one: claims.get(one.key, {"attempt": 0})["attempt"]):
            self.model.take(one, claims.get(one.key), run)
        for key in new:
            # What a row that ended in this very claim has left.
            fresh = Due(key, 0, False, None, False, False, 0, 0, False, False)
            self.model.take(fresh, claims[key], run)
        for claim in claims.values():
            attempt = self.after["attempts"][str(claim["attempt"])]
            assert (attempt["left"], attempt["machine"]) == (LEASE, run.machine)
            if claim["kind"] == "publish":
                assert self.after["rows"][claim["identity_id"]]["images_published"] == 0
        self.agree()
        self.next_due(answer["next_due_seconds"], run, slots)
        numbers = [claim["attempt"] for claim in answer["claims"]]
        if heard:
            self.knows[run] += numbers
        return numbers

    def was_ended(self, due: Due) -> bool:
        """Whether a claim ended due work or put it off, instead of handing it out."""
        if due.held is not None and due.put_off:
            return bool(self.after["attempts"][str(due.held.number)]["outcome"])
        before, after = (state["work"].get(" ".join(due.key)) for state in (self.before, self.after))
        return before is not None and (after is None or after["id"] != before["id"])

    def stops(self, run: Run, holding: list[int]) -> bool:
        """Whether a run makes way for what must run alone, or works on that."""
        named = run.id in {work["isolated_for"] for work in self.before["work"].values()}
        return bool(holding) and (named or self.holds_alone(holding))

    def holds_alone(self, holding: list[int]) -> bool:
        return any((a := self.model.holds(number)) is not None and a.alone for number in holding)

    def way_was_made(self, run: Run, holding: list[int], due: list[Due], handled: list[Due]) -> None:
        """What must run alone does, and one run at most makes way for it."""
        alone = [one for one in handled if one.alone]
        if alone:
            assert not holding
            assert len([one for one in handled if not self.was_ended(one)]) == 1
        names = [
            {key: work["isolated_for"] for key, work in state["work"].items() if work["isolated_for"] is not None}
            for state in (self.before, self.after)
        ]  # fmt: skip
        for one in due:
            if names[0].get(" ".join(one.key)) == run.id and not holding:
                assert one in handled, "It has made way, and did not take what it made way for."
        now_named = {key for key, name in names[1].items() if name == run.id and names[0].get(key) != name}
        assert len(now_named) <= 1
        for one in due:
            if " ".join(one.key) in now_named:
                assert one.alone
                assert one.since > MINUTE
                assert self.is_silent(names[0].get(" ".join(one.key)))
                now_named.remove(" ".join(one.key))
        assert not now_named
        assert not {" ".join(one.key) for one in handled} & names[1].keys()

    def is_silent(self, run: str | None) -> bool:
        """Whether a run was not heard for half a minute, or has no name any more."""
        seen = [one["ago"] for one in self.before["instances"].values() if one["run_id"] == run]
        return not seen or seen[0] >= SILENCE

    def in_turn(
        self,
        kind: str,
        limit: int,
        due: list[Due],
        handled: list[Due],
        claimed: Collection[tuple[str, str]],
        holding: list[int],
        run: Run,
    ) -> None:
        """Of one kind no more than fits, the first first, and nothing stays behind without a reason."""
        taken = [key for key in claimed if key[1] == kind]
        assert len(taken) <= limit
        mine = [one for one in handled if one.key[1] == kind]
        left = [one for one in due if one.key[1] == kind and one not in handled]
        making_way = run.id in {work["isolated_for"] for work in self.after["work"].values()}
        if any(one.alone for one in handled) or making_way or len(taken) == limit:
            pass
        elif not self.holds_alone(holding):
            # Only what goes alone, and only where that cannot be.
            assert all(one.alone for one in left), f"Left behind: {left}"
            assert not left or holding or claimed
            for one in left:
                assert one.since <= MINUTE or not self.is_silent(
                    self.before["work"][" ".join(one.key)]["isolated_for"]
                ), "Nobody makes way."
        order = self.model.order(kind, due, mine)
        in_line = [one for one in mine if self.before["work"][" ".join(one.key)]["isolated_for"] != run.id]
        # What it makes way for lets nothing pass that comes after it.
        passed = [
            one for one in left
            if not one.alone or self.after["work"][" ".join(one.key)]["isolated_for"] == run.id
        ]  # fmt: skip
        if in_line and passed:
            last, first = max(order[one.key] for one in in_line), min(order[one.key] for one in passed)
            assert last <= first, "Out of turn."

    def believes(self, number: int) -> bool:
        """Whether a daemon that was told of the attempt still works on it."""
        attempt = self.model.attempts.get(number)
        waited = any(work.waited == number for work in self.model.work.values())
        return not waited and (attempt is None or attempt.outcome in (None, "crashed", "revoked"))

    def next_due(self, told: float | None, run: Run, slots: Collection[str]) -> None:
        times = [
            work["due_in"] for work in self.after["work"].values()
            if work["due_in"] is not None and work["kind"] in slots
        ]  # fmt: skip
        for number, attempt in self.model.attempts.items():
            if attempt.outcome is None and attempt.run != run and attempt.kind in slots:
                times.append(self.after["attempts"][str(number)]["left"])
        soonest = min((time for time in times if time > 0), default=None)
        assert told == soonest or (told is not None and soonest is not None and abs(told - soonest) < 0.01)

    @rule(who=ANY, images=st.integers(-1, 4))
    @only_if(lambda self: bool(self.model.attempts))
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
            if int(number) in held and attempt["kind"] == "publish":
                identity = attempt["identity_id"]
                shown = [state["rows"][identity]["images_published"] for state in (self.before, self.after)]
                assert shown[1] == max(shown[0], min(images, 3))
        self.agree()

    @rule(which=ANY, namespace=st.sampled_from(["acme", "acme", "other"]), refuse=st.booleans())
    @only_if(lambda self: self.any_is("publishing"))
    def a_daemon_reserves(self, which: int, namespace: str, refuse: bool) -> None:
        number = self.an_attempt(which)
        attempt = self.model.holds(number)
        attempt = attempt if attempt is not None and attempt.kind == "publish" else None
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
            st.tuples(
                ANY,
                st.sampled_from(sorted(ENDS)),
                st.integers(1, 2),
                st.sampled_from(REASONS),
                st.sampled_from(CAUSES),
                st.booleans(),
            ),
            min_size=1,
            max_size=6,
        )
    )
    @only_if(lambda self: bool(self.model.attempts))
    def daemons_end_attempts(self, ends: list[tuple[int, str, int, str, str, bool]]) -> None:
        """Any that ever were, and perhaps twice, as when the first answer was lost."""
        for which, verb, times, reason, cause, answered in ends:
            number = self.an_attempt(which)
            for _ in range(times):
                self.end(number, verb, reason=reason, cause=cause, answered=answered)

    def end(
        self,
        number: int,
        verb: str,
        *,
        reason: str = REASONS[0],
        cause: str = "outage",
        answered: bool = True,
    ) -> None:
        attempt = self.model.holds(number)
        if verb == "complete" and attempt is not None:
            name = self.do(lambda: self.worker.reserve(number))
            assert (name is None) == (attempt.kind == "erase")
            if name is not None:
                self.model.reserve(attempt, name, namespace="acme", refused=None)
        arguments: dict[str, dict[str, Any]] = {
            "complete": {"answered": answered},
            "erased": {"answered": answered, "lines": self.lines_of(attempt)},
            "fail": {"message": reason, "answered": answered},
            "defer": {"reason": reason, "answered": answered},
            "release": {"reason": reason, "cause": cause, "answered": answered},
            "wait": {"reason": reason, "answered": answered},
        }
        answer = self.do(lambda: getattr(self.worker, verb)(number, **arguments[verb]))
        if attempt is None:
            assert answer == self.model.answer(verb, number)
            self.unchanged()
        else:
            lines = dict(self.model.lines)
            assert answer == self.model.end(verb, attempt, reason=reason, answered=answered, cause=cause)
            self.backed_off(attempt, answer)
            self.looked_at_twice(lines)
        self.agree()

    def lines_of(self, attempt: Attempt | None) -> list[int]:
        """What the claim of an erasure has listed, and what was added since."""
        if attempt is None:
            return []
        return [
            line["id"] for line in self.state()["lines"].values() if line["identity_id"] == attempt.identity
        ]

    def backed_off(self, attempt: Attempt, answer: str) -> None:
        work = self.model.work.get(attempt.key)
        if work is None or not work.deferred or (attempt.kind == "erase" and attempt.outcome != "deferred"):
            return
        due_in = self.after["work"][" ".join(attempt.key)]["due_in"]
        if answer == "waited":
            key = " ".join(attempt.key)
            before, left = (state["work"][key]["wait_left"] for state in (self.before, self.after))
            assert left == (WAIT if before is None else before), "The first wait sets the deadline."
            assert due_in == pytest.approx(min(2, left))
        elif due_in != 3600:  # an erasure, once its budget is spent
            assert 0.75 <= due_in / min(5 * 3 ** (work.spent - 1), 900) <= 1.25

    def looked_at_twice(self, before: Collection[str]) -> None:
        for name in self.model.lines.keys() - set(before):
            again_in = self.after["lines"][name]["again_in"]
            assert again_in is None or SECOND_LOOK - 120 <= again_in <= SECOND_LOOK

    @rule(who=ANY, machine=st.sampled_from(["here", "here", "there"]))
    def a_daemon_is_killed_and_started_again(self, who: int, machine: str) -> None:
        """What it was about to say may still arrive: the attempts stay where `an_attempt` finds them."""
        run = pick(self.runs, who)
        self.runs.remove(run)
        self.start(run.instance, machine)

    @rule(who=ANY)
    def another_machine_claims_under_its_name(self, who: int) -> None:
        self.start(pick(self.runs, who).instance, "there")
        self.claim(self.runs.pop(), {"publish": 1, "erase": 1})

    @rule(
        times=st.integers(1, 10),
        which=st.sampled_from(["kill", "defer"]),
        reserve=st.booleans(),
        down=st.sampled_from(HOPS[:3]),
    )
    @only_if(lambda self: self.any_is("pending") or self.any_is("publishing"))
    def a_host_wears_rows_out(self, times: int, which: str, reserve: bool, down: float) -> None:
        """It comes with nothing in hand, claims one row, and dies of it or defers it, again and again.

        If it comes back while its lease runs, it takes the same row first.
        """
        for _ in range(times):
            self.start("hapless")
            run = self.runs.pop()
            for number in self.claim(run, {"publish": 1}):
                if reserve:
                    name = self.do(partial(self.worker.reserve, number, "other"))
                    self.model.reserve(self.model.attempts[number], name, namespace="other", refused=None)
                if which == "defer":
                    self.end(number, "defer")
            self.time_passes(1300.3 if which == "defer" else down)

    @rule(
        times=st.integers(3, 9),
        kind=st.sampled_from(["publish", "publish", "erase"]),
        ends=st.sampled_from(UNSPENT),
        dies=st.booleans(),
    )
    @only_if(lambda self: bool(self.model.work))
    def a_host_ends_attempts_that_do_not_count(
        self, times: int, kind: str, ends: Sequence[str], dies: bool
    ) -> None:
        """All that it claims, again and again, in one way or in two by turns; then it may die of the next."""
        self.start("hesitant")
        run = self.runs.pop()
        for turn in range(times):
            how = pick(ends, turn)
            for number in self.claim(run, {kind: 8}, heard=how != "lost"):
                if how == "wait":
                    self.end(number, "wait", reason=REASONS[1])
                elif how != "lost":
                    self.end(number, "release", cause=how)
            if "wait" in ends:
                self.time_passes(3.1)
        if dies:
            self.claim(run, {kind: 8})
            self.time_passes(21.3)

    # Time.

    @rule(seconds=st.sampled_from(HOPS))
    def time_passes(self, seconds: float) -> None:
        self.database.pass_time(seconds)

    # In the end.

    def nothing_is_stuck(self) -> None:
        """One daemon that works, and hours: every row ends, and nothing is left of what is to be erased."""
        self.start("healthy")
        run = self.runs[-1]
        for _ in range(2):
            self.time_passes(4000.7)
            for _ in range(2 * len(self.model.work) + 2):
                for number in self.claim(run, {"publish": 64, "erase": 64}):
                    self.end(
                        number, "complete" if self.model.attempts[number].kind == "publish" else "erased"
                    )
        assert not self.model.work
        assert not self.model.lines
        assert not [row for row in self.model.rows.values() if row.status in OPEN]

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
        waited = {work.waited for work in self.model.work.values() if work.waited is not None}
        # Those of a wait that left no line in the history, too.
        ended = sorted({number for number in attempts if number not in holding} | waited)
        return pick((holding, taken, ended)[which % 3] or [self.model.highest], which // 3)


def pick(choices: Sequence[T], number: int) -> T:
    return choices[number % len(choices)]


def test_whatever_happens_in_whatever_order(database: Database) -> None:
    examples = int(environment().get("EXAMPLES", "0"))
    machine: Any = lambda: Machine(database)  # noqa: E731  (one is made for each example, and hypothesis wants a class)
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples or 24,
            stateful_step_count=40,
            derandomize=not examples,
            database=None,
            deadline=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
