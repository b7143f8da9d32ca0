"""What may be, told in Python: the rows, the open work and who holds it, and what each verb makes of it.

It keeps no clock: what time has done is read from what Postgres says of its own, as seconds from its now().
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

BUDGET, LIMIT, LEASE, MINUTE = 8, 20, 20, 60
FREE_RELEASES = FREE_LOST_ANSWERS = 2
SILENCE, LATE, SECOND_LOOK, WAIT = 30, 120, 150, 15
OPEN = {"pending", "publishing"}
ENDS = {
    "complete": "published", "erased": "erased", "fail": "failed", "defer": "deferred", "release": "released",
    "wait": "waited",
}  # fmt: skip
CRASHED = "The lease expired: the worker crashed or lost contact."
ANSWERS_LOST = "The answers to three claims in a row were lost."

State = dict[str, Any]
Key = tuple[str, str]
"""An identity and a kind of work."""

# Everything there is, with times as seconds from now.
STATE = """
select jsonb_build_object(
  'rows', (select coalesce(jsonb_object_agg(t.id, to_jsonb(t) || jsonb_build_object(
      'due_in', extract(epoch from t.next_attempt_at - now()))), '{}') from public.trained_identities t),
  'work', (select coalesce(jsonb_object_agg(w.identity_id || ' ' || w.kind, to_jsonb(w) || jsonb_build_object(
      'queued', extract(epoch from now() - w.turn_at),
      'due_in', extract(epoch from w.next_at - now()),
      'wait_left', extract(epoch from w.wait_until - now()),
      'idle', extract(epoch from now() - w.created_at))), '{}') from watcher.work w where w.kind <> 'sweep'),
  'attempts', (select coalesce(jsonb_object_agg(a.number, to_jsonb(a) || jsonb_build_object(
      'ended_ago', extract(epoch from now() - a.ended_at),
      'left', extract(epoch from a.lease_expires_at - now()))), '{}') from watcher.attempts a),
  'names', (select coalesce(jsonb_object_agg(n.model_id, n.identity_id), '{}') from watcher.names n),
  'used', (select coalesce(jsonb_agg(encode(u.digest, 'hex')), '[]') from watcher.used_names u),
  'lines', (select coalesce(jsonb_object_agg(l.name, to_jsonb(l) || jsonb_build_object(
      'due_in', extract(epoch from l.due_at - now()),
      'again_in', extract(epoch from l.look_again_at - now()))), '{}') from watcher.erase_lines l),
  'instances', (select coalesce(jsonb_object_agg(i.name, to_jsonb(i) || jsonb_build_object(
      'ago', extract(epoch from now() - i.seen_at))), '{}') from watcher.instances i)
) as state
"""


@dataclass(frozen=True)
class Run:
    """One run of a daemon, as its claims name it."""

    instance: str
    id: str
    machine: str = "here"


@dataclass
class Attempt:
    """One attempt, from its claim on."""

    number: int
    identity: str
    kind: str
    run: Run
    alone: bool
    look_only: bool
    outcome: str | None = None
    answered: bool = False

    @property
    def key(self) -> Key:
        return (self.identity, self.kind)


@dataclass
class Row:
    """One row, as far as the verbs decide about it."""

    owner: str
    status: str = "pending"
    name: str | None = None


@dataclass
class Work:
    """One piece of open work: what it has spent, and what did not count."""

    identity: str
    kind: str
    spent: int = 0
    crashes: int = 0
    shutdowns: int = 0
    unsures: int = 0
    lost_answers: int = 0
    reason: str | None = None
    deferred: bool = False
    wait_spent: int | None = None
    waited: int | None = None

    @property
    def counters(self) -> tuple[int, ...]:
        return (self.spent, self.crashes, self.shutdowns, self.unsures, self.lost_answers)

    def clear(self) -> None:
        self.crashes = self.shutdowns = self.unsures = self.lost_answers = 0


@dataclass
class Line:
    """A repo that has to go."""

    identity: str
    again: bool
    """Whether it is looked at twice."""
    gone: bool = False


@dataclass(frozen=True)
class Due:
    """Work that a claim may take, and what it makes of it."""

    key: Key
    since: float
    at_once: bool
    held: Attempt | None
    crashed: bool
    put_off: bool
    """The third lost answer in a row: it counts, and the work is not handed out."""
    spent: int
    crashes: int
    look_only: bool
    hopeless: bool

    @property
    def alone(self) -> bool:
        return not self.hopeless and not self.put_off and (self.look_only or self.crashes >= 2)

    @property
    def age(self) -> tuple[bool, float]:
        return (not self.at_once, -self.since)


@dataclass
class Model:
    """All that was done so far, and what it must have come to."""

    rows: dict[str, Row] = field(default_factory=dict)
    work: dict[Key, Work] = field(default_factory=dict)
    attempts: dict[int, Attempt] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    lines: dict[str, Line] = field(default_factory=dict)
    before: State = field(default_factory=dict)
    """What Postgres said before the step."""
    highest: int = 0

    def of(self, owner: str, *statuses: str) -> list[str]:
        return [id_ for id_, row in self.rows.items() if row.owner == owner and row.status in statuses]

    def holder(self, key: Key) -> Attempt | None:
        held = [a for a in self.attempts.values() if a.key == key and a.outcome is None]
        assert len(held) <= 1, f"More than one attempt holds {key}: {held}"
        return held[0] if held else None

    def holds(self, number: int) -> Attempt | None:
        """The attempt, if it holds its work."""
        attempt = self.attempts.get(number)
        return attempt if attempt is not None and attempt.outcome is None else None

    def needs_look(self, key: Key) -> bool:
        return key[1] == "publish" and self.rows[key[0]].name is not None

    # Users and operators.

    def insert(self, owner: str, identities: Iterable[str]) -> None:
        for identity in identities:
            self.rows[identity] = Row(owner)
            self.work[identity, "publish"] = Work(identity, "publish")

    def remove(self, identities: Collection[str]) -> None:
        """What is to be erased of a row outlives it: every name it ever had."""
        for identity in identities:
            self.list_row(identity)
            del self.rows[identity]
            self.work.pop((identity, "publish"), None)
        gone = [a for a in self.attempts.values() if a.identity in identities and a.kind == "publish"]
        for attempt in gone:
            if attempt.outcome is None:
                attempt.outcome = "revoked"
            else:
                del self.attempts[attempt.number]

    def list_row(self, identity: str) -> None:
        """A repo is not touched while an attempt may write to it."""
        writing = 0.0
        if (running := self.holder((identity, "publish"))) is not None:
            writing = max(0.0, self.before["attempts"][str(running.number)]["left"])
        again = running is not None or self.may_be_late(identity)
        names = {name for name, owner in self.names.items() if owner == identity}
        for name in names:
            self.used.add(name)
            line = self.lines.setdefault(name, Line(identity, again=False))
            line.again = line.again or again
        times = [writing] * len(names - self.before["lines"].keys())
        for told in self.before["lines"].values():
            if told["identity_id"] == identity:
                times.append(told["due_in"] if told["gone_at"] is None else told["again_in"])
        due_in = min(times, default=0.0)
        work = self.work.get((identity, "erase"))
        if work is None:
            self.work[identity, "erase"] = Work(identity, "erase", deferred=due_in > 0)
        elif work.deferred and (due_in <= 0 or due_in < self.before["work"][f"{identity} erase"]["due_in"]):
            work.deferred = due_in > 0

    def begin_anew(self, identities: Iterable[str]) -> None:
        """A retry or a replay."""
        for identity in sorted(identities):
            row = self.rows[identity]
            assert row.status == "failed"
            row.status = "pending"
            self.work[identity, "publish"] = Work(identity, "publish")

    def by_hand(self, identity: str, status: str) -> None:
        """Somebody sets the status past the verbs."""
        holder = self.holder((identity, "publish"))
        if holder is not None and status != "publishing":
            holder.outcome = "revoked"
        self.rows[identity].status = status
        self.work[identity, "publish"].deferred = False

    # Names, and what is behind them.

    def reserve(self, attempt: Attempt, name: str, *, namespace: str, refused: str | None) -> None:
        row = self.rows[attempt.identity]
        assert name.startswith(f"{namespace}/identity-ada-")
        if row.name is not None and row.name.startswith(f"{namespace}/") and refused != row.name:
            assert name == row.name
            return
        assert name not in self.names, "A name was given out twice."
        assert name not in self.used, "A name was given out again that somebody gave up."
        if row.name is not None and not row.name.startswith(f"{namespace}/"):
            self.abandon(attempt.identity, row.name)
        self.names[name] = attempt.identity
        row.name = name

    def abandon(self, identity: str, name: str) -> None:
        """Nobody gets the name again; its repo is looked at twice where a request may still be on its way."""
        self.used.add(name)
        self.lines[name] = Line(identity, again=self.may_be_late(identity))
        work = self.work.setdefault((identity, "erase"), Work(identity, "erase"))
        work.deferred = False

    def may_be_late(self, identity: str) -> bool:
        """Whether a request of one of its attempts may still be on its way."""
        return any(
            self.ended_ago(attempt) < LATE
            for attempt in self.attempts.values()
            if attempt.key == (identity, "publish") and not attempt.answered
        )

    def ended_ago(self, attempt: Attempt) -> float:
        ago = self.before["attempts"].get(str(attempt.number), {}).get("ended_ago")
        return 0.0 if ago is None else float(ago)

    # Ends.

    def fail_work(self, key: Key, reason: str | None) -> None:
        identity, kind = key
        del self.work[key]
        if kind == "erase":  # is never given up: it comes again in an hour
            self.work[key] = Work(identity, kind, spent=BUDGET - 1, deferred=True, reason=reason)
            return
        row = self.rows[identity]
        row.status = "failed"
        if row.name is not None:
            self.abandon(identity, row.name)
            row.name = None

    def put_off(self, work: Work, *, look_only: bool, reason: str) -> None:
        """An end that counts."""
        key = (work.identity, work.kind)
        if look_only or (work.spent >= BUDGET and not self.needs_look(key)):
            last = work.reason if look_only else reason
            self.fail_work(key, f"Gave up after {work.spent} attempts. The last one: {last}")
            return
        work.clear()
        work.reason, work.deferred = reason, work.spent < BUDGET
        self.put_back(work)

    def put_back(self, work: Work) -> None:
        if work.kind == "publish":
            self.rows[work.identity].status = "pending"

    def answer(self, verb: str, number: int) -> str:
        """What a write-back is told by an attempt that does not hold its work."""
        attempt = self.attempts.get(number)
        outcome = None if attempt is None else attempt.outcome
        if verb == "wait":
            if outcome in {"waited", "failed", "deferred"}:
                return str(outcome)
            return "waited" if any(work.waited == number for work in self.work.values()) else "lost"
        return "done" if outcome == ENDS[verb] else "lost"

    def end(self, verb: str, attempt: Attempt, *, reason: str, answered: bool, cause: str = "") -> str:
        """A write-back by the attempt that holds the work; its answer."""
        work = self.work[attempt.key]
        if verb == "wait":
            return self.wait(attempt, work, reason=reason, answered=answered)
        if (verb, attempt.kind) in {("complete", "erase"), ("erased", "publish")}:
            return "lost"
        attempt.outcome, attempt.answered = ENDS[verb], answered
        match verb:
            case "complete":
                self.rows[attempt.identity].status = "published"
                del self.work[attempt.key]
            case "erased":
                self.erase(work, attempt)
            case "fail":
                self.fail_work(attempt.key, reason)
            case "defer":
                self.put_off(work, look_only=attempt.look_only, reason=reason)
            case _:
                self.release(attempt, work, reason, cause)
        return "done"

    def release(self, attempt: Attempt, work: Work, reason: str, cause: str) -> None:
        work.shutdowns += cause == "shutdown"
        work.unsures += cause == "unsure"
        counts = {"shutdown": work.shutdowns, "unsure": work.unsures}.get(cause, 0) > FREE_RELEASES
        if counts and attempt.look_only:
            self.put_off(work, look_only=True, reason=reason)
            return
        if counts:
            work.reason = reason
            work.shutdowns, work.unsures = (
                0 if cause == "shutdown" else work.shutdowns,
                0 if cause == "unsure" else work.unsures,
            )
        elif not attempt.look_only:
            work.spent -= 1
        work.deferred = False
        self.put_back(work)

    def wait(self, attempt: Attempt, work: Work, *, reason: str, answered: bool) -> str:
        left = self.before["work"][" ".join(attempt.key)]["wait_left"]
        if left is not None and left <= 0:
            attempt.outcome, attempt.answered = "failed", answered
            self.fail_work(attempt.key, "Image 2 is gone.")
            return "failed"
        if work.waited is not None and work.reason == reason and answered:
            del self.attempts[attempt.number]
        else:
            attempt.outcome, attempt.answered = "waited", answered
        since_the_last = work.spent if attempt.look_only else work.spent - 1
        work.spent = work.wait_spent = since_the_last if work.wait_spent is None else work.wait_spent
        work.waited, work.reason, work.deferred = attempt.number, reason, True
        self.put_back(work)
        return "waited"

    def erase(self, work: Work, attempt: Attempt) -> None:
        """What was due is gone; what is to be looked at once more stays until then."""
        for name, line in list(self.lines.items()):
            again_in = self.before["lines"][name]["again_in"]
            if line.identity != work.identity or not self.is_due(name, line):
                continue
            if again_in is not None and again_in > 0:
                line.gone = True
                continue
            del self.lines[name]
            self.names.pop(name, None)
        if not any(line.identity == work.identity for line in self.lines.values()):
            del self.work[work.identity, "erase"]
            if work.identity not in self.rows:  # of a deleted row, the history goes, too
                for other in [a for a in self.attempts.values() if a.identity == work.identity]:
                    if other is not attempt:
                        del self.attempts[other.number]
            return
        work.clear()
        work.spent, work.deferred = 0, True

    def is_due(self, name: str, line: Line) -> bool:
        told = self.before["lines"][name]
        return bool((told["again_in"] if line.gone else told["due_in"]) <= 0)

    # Claims.

    def name_taken(self, run: Run) -> bool:
        known = self.before["instances"].get(run.instance)
        return known is not None and known["machine"] != run.machine and known["ago"] < SILENCE

    def due(
        self, kinds: Collection[str], run: Run, holding: Collection[int], *, predecessor_is_dead: bool
    ) -> list[Due]:
        """What a claim finds, in the order of each kind."""
        found = []
        for key, work in self.work.items():
            told, held = self.before["work"][" ".join(key)], self.holder(key)
            if key[1] not in kinds or (told["due_in"] is not None and told["due_in"] > 0):
                continue
            at_once = lost_answer = False
            if held is not None:
                left = self.before["attempts"][str(held.number)]["left"]
                forgotten = held.number not in holding
                orphan = predecessor_is_dead and held.run != run and (
                    (held.run.instance, held.run.machine) == (run.instance, run.machine)
                )  # fmt: skip
                if not (forgotten and (left <= 0 or held.run == run)) and not orphan:
                    continue
                since, at_once = -left, left > 0
                lost_answer = held.run == run and left > 0
            elif told["due_in"] is not None:
                since = -told["due_in"]
            else:
                # Set by hand, it has kept its place in the queue, if it had one.
                since = told["idle"] if told["queued"] is None else told["queued"]
            crashed = held is not None and not lost_answer
            put_off = lost_answer and work.lost_answers >= FREE_LOST_ANSWERS
            unspent = lost_answer and not put_off and held is not None and not held.look_only
            spent = work.spent - unspent
            look_only = spent >= BUDGET
            looked = crashed and held is not None and held.look_only
            hopeless = look_only and not put_off and (looked or not self.needs_look(key))
            found.append(
                Due(
                    key, since, at_once, held, crashed, put_off, spent, work.crashes + crashed, look_only, hopeless
                )
            )  # fmt: skip
        return sorted(found, key=lambda due: due.age)

    def order(
        self, kind: str, due: Iterable[Due], taken: Collection[Due]
    ) -> dict[Key, tuple[bool, bool, float]]:
        """The order of a kind's work: one of each user who has none running, and then the rest."""
        busy = {
            self.rows[attempt.identity].owner
            for attempt in self.attempts.values()
            if attempt.kind == kind == "publish"
            and attempt.outcome is None
            and self.before["attempts"][str(attempt.number)]["left"] > 0
        }
        order = {}
        # Of those that became due at the same moment, any may be the first.
        for one in sorted(due, key=lambda one: (*one.age, one not in taken)):
            if one.key[1] == kind:
                owner = self.rows[one.key[0]].owner if kind == "publish" else None
                order[one.key] = (not one.at_once, owner in busy, -one.since)
                if owner is not None:
                    busy.add(owner)
        return order

    def take(self, due: Due, claim: State | None, run: Run) -> None:
        """A claim has handed work out, put it off, or ended it where there is nothing left to try."""
        work = self.work[due.key]
        if due.put_off:
            assert claim is None, f"{due} was handed out though it was to be put off."
            assert due.held is not None
            due.held.outcome = "deferred"
            self.put_off(work, look_only=due.held.look_only, reason=ANSWERS_LOST)
            return
        if due.held is not None:
            due.held.outcome = "crashed" if due.crashed else "released"
            if due.crashed:
                work.clear()
                work.reason = CRASHED
            else:
                work.lost_answers += 1
        work.spent, work.crashes, work.deferred = due.spent, due.crashes, False
        if claim is None:
            assert due.hopeless, f"{due} was passed over for ever."
            self.fail_work(due.key, f"Gave up after {work.spent} attempts. The last one: {work.reason}")
            return
        assert not due.hopeless, f"{due} was handed out once too often."
        assert claim["attempt"] > self.highest, "A number was given out twice."
        assert claim["look_only"] == due.look_only
        assert (claim["exhausted"] is not None) == due.look_only
        tried = {a.key for a in self.attempts.values() if a.outcome != "revoked"}
        assert claim["never_tried"] == (due.key not in tried)
        identity, kind = due.key
        if kind == "publish":
            assert claim["details"]["model_id"] == self.rows[identity].name
            self.rows[identity].status = "publishing"
        else:
            told = {line["name"] for line in claim["details"]["lines"]}
            assert told or identity not in self.rows
            assert told == {
                name
                for name, line in self.lines.items()
                if line.identity == identity and self.is_due(name, line)
            }
        self.highest = claim["attempt"]
        self.attempts[self.highest] = Attempt(self.highest, identity, kind, run, due.alone, due.look_only)
        work.spent += 0 if due.look_only else 1

    # What is always so.

    def agree(self, state: State) -> None:
        """Hold everything that Postgres shows against the model, and against what is always so."""
        assert state["rows"].keys() == self.rows.keys()
        assert state["names"] == self.names
        assert len(state["used"]) == len(self.used)
        assert {name: (line["identity_id"], line["gone_at"] is not None, line["look_again_at"] is not None)
                for name, line in state["lines"].items()} == {
            name: (line.identity, line.gone, line.again) for name, line in self.lines.items()
        }  # fmt: skip
        assert {int(number): (a["outcome"], a["answered"]) for number, a in state["attempts"].items()} == {
            number: (a.outcome, a.answered) for number, a in self.attempts.items()
        }
        assert state["work"].keys() == {" ".join(key) for key in self.work}
        for key, work in self.work.items():
            self.agree_on_work(key, work, state["work"][" ".join(key)])
        for identity, row in self.rows.items():
            told, open_work = state["rows"][identity], self.work.get((identity, "publish"))
            assert (told["status"], told["model_id"], told["user_id"]) == (row.status, row.name, row.owner)
            assert (open_work is not None) == (row.status in OPEN)
            assert row.name is None or self.names[row.name] == identity
            assert self.holder((identity, "publish")) is None or row.status == "publishing"
            published = [
                told[key] is not None for key in ("huggingface_repo_url", "commit_sha", "published_at")
            ]
            assert published == [row.status == "published"] * 3
            failed = [told[key] is not None for key in ("error_code", "error_message")]
            assert failed == [row.status == "failed"] * 2
            deferred = row.status == "pending" and open_work is not None and open_work.deferred
            assert (told["next_attempt_at"] is not None) == deferred

    def agree_on_work(self, key: Key, work: Work, told: State) -> None:
        counters = tuple(told[name] for name in ("spent", "crashes", "shutdowns", "unsures", "lost_answers"))
        assert counters == work.counters
        assert told["last_reason"] == work.reason
        assert (told["wait_spent"], told["waited"]) == (work.wait_spent, work.waited)
        assert 0 <= work.spent <= BUDGET
        # Not one end that does not count can be had for ever.
        assert max(work.shutdowns, work.unsures) <= FREE_RELEASES
        assert work.lost_answers <= FREE_LOST_ANSWERS
        assert (told["wait_left"] is not None) == (work.waited is not None)
        # Its place in the queue: by its turn, or by its time, or held.
        assert (told["next_at"] is not None) == work.deferred
        by_hand = key[1] == "publish" and self.rows[key[0]].status == "publishing"
        waits = self.holder(key) is None and not work.deferred and not by_hand
        assert told["turn_at"] is not None or not waits, "It would never be found."
        if key[1] == "erase" and key[0] in self.rows:
            assert any(line.identity == key[0] for line in self.lines.values()), "For nothing."
