"""What may be, told in Python: the rows, who holds them and what they have spent, and what each verb makes of it.

It keeps no clock: what time has done is read from what Postgres says of its own, as seconds from its now().
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

BUDGET, LIMIT, LEASE, MINUTE = 8, 20, 20, 60
OPEN = {"pending", "publishing"}
ENDS = {"complete": "published", "fail": "failed", "defer": "deferred", "release": "released"}

State = dict[str, Any]

# Everything there is, with times as seconds from now.
STATE = """
select jsonb_build_object(
  'rows', (select coalesce(jsonb_object_agg(t.id, to_jsonb(t) || jsonb_build_object(
      'due_in', extract(epoch from t.next_attempt_at - now()))), '{}') from public.trained_identities t),
  'lines', (select coalesce(jsonb_object_agg(w.identity_id, to_jsonb(w) || jsonb_build_object(
      'waited', extract(epoch from now() - w.turn_at),
      'idle', extract(epoch from now() - w.created_at))), '{}') from watcher.work w),
  'attempts', (select coalesce(jsonb_object_agg(a.number, to_jsonb(a) || jsonb_build_object(
      'left', extract(epoch from a.lease_expires_at - now()))), '{}') from watcher.attempts a),
  'names', (select coalesce(jsonb_object_agg(n.model_id, n.identity_id), '{}') from watcher.names n)
) as state
"""


@dataclass(frozen=True)
class Run:
    """One run of a daemon, as its claims name it."""

    instance: str
    id: str


@dataclass
class Attempt:
    """One attempt, from its claim on."""

    number: int
    identity: str
    run: Run
    alone: bool
    look_only: bool
    outcome: str | None = None


@dataclass
class Row:
    """One row, as far as the verbs decide about it."""

    owner: str
    status: str = "pending"
    spent: int = 0
    crashes: int = 0
    name: str | None = None
    deferred: bool = False


@dataclass(frozen=True)
class Due:
    """A row that a claim may take, and what it makes of it."""

    identity: str
    since: float
    at_once: bool
    held: Attempt | None
    crashed: bool
    spent: int
    crashes: int
    look_only: bool
    hopeless: bool

    @property
    def alone(self) -> bool:
        return not self.hopeless and (self.look_only or self.crashes >= 2)

    @property
    def order(self) -> tuple[bool, float]:
        return (not self.at_once, -self.since)


@dataclass
class Model:
    """All that was done so far, and what it must have come to."""

    rows: dict[str, Row] = field(default_factory=dict)
    attempts: dict[int, Attempt] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    highest: int = 0

    def of(self, owner: str, *statuses: str) -> list[str]:
        return [id_ for id_, row in self.rows.items() if row.owner == owner and row.status in statuses]

    def holder(self, identity: str) -> Attempt | None:
        held = [a for a in self.attempts.values() if a.identity == identity and a.outcome is None]
        assert len(held) <= 1, f"More than one attempt holds {identity}: {held}"
        return held[0] if held else None

    def holds(self, number: int) -> Attempt | None:
        """The attempt, if it holds its row."""
        attempt = self.attempts.get(number)
        return attempt if attempt is not None and attempt.outcome is None else None

    def insert(self, owner: str, identities: Iterable[str]) -> None:
        self.rows.update({identity: Row(owner) for identity in identities})

    def remove(self, identities: Collection[str]) -> None:
        for identity in identities:
            del self.rows[identity]
        self.attempts = {
            n: a for n, a in self.attempts.items() if a.identity not in identities or a.outcome is None
        }
        for attempt in self.attempts.values():
            if attempt.identity in identities:
                attempt.outcome = "revoked"

    def begin_anew(self, identities: Iterable[str]) -> None:
        """A retry or a replay."""
        for identity in identities:
            row = self.rows[identity]
            assert row.status == "failed"
            self.rows[identity] = Row(row.owner, name=row.name)

    def reserve(self, attempt: Attempt, name: str, *, namespace: str, refused: str | None) -> None:
        row = self.rows[attempt.identity]
        assert name.startswith(f"{namespace}/identity-ada-")
        if row.name is not None and row.name.startswith(f"{namespace}/") and refused != row.name:
            assert name == row.name
            return
        assert name not in self.names, "A name was given out twice."
        self.names[name] = attempt.identity
        row.name = name

    def end(self, verb: str, attempt: Attempt) -> None:
        """A write-back by the attempt that holds the row."""
        row = self.rows[attempt.identity]
        attempt.outcome = ENDS[verb]
        match verb:
            case "complete" | "fail":
                row.status = ENDS[verb]
            case "release":
                row.status, row.deferred = "pending", False
                row.spent -= 0 if attempt.look_only else 1
            case "defer" if attempt.look_only or (row.spent >= BUDGET and row.name is None):
                row.status = "failed"
            case "defer":
                row.status, row.crashes, row.deferred = "pending", 0, row.spent < BUDGET

    def by_hand(self, identity: str, status: str) -> None:
        """Somebody sets the status past the verbs."""
        holder = self.holder(identity)
        if holder is not None and status != "publishing":
            holder.outcome = "revoked"
        self.rows[identity].status, self.rows[identity].deferred = status, False

    def due(
        self, before: State, run: Run, holding: Collection[int], *, predecessor_is_dead: bool
    ) -> list[Due]:
        """What a claim finds, in its order."""
        found = []
        for identity, row in self.rows.items():
            told, held = before["rows"][identity], self.holder(identity)
            if row.status not in OPEN:
                continue
            lost_answer = False
            at_once = False
            if row.status == "pending":
                since = before["lines"][identity]["waited"] if told["due_in"] is None else -told["due_in"]
                if told["due_in"] is not None and told["due_in"] > 0:
                    continue
            elif held is None:
                # Set by hand; it has kept its place in the queue, if it had one.
                line = before["lines"][identity]
                since = line["idle"] if line["waited"] is None else line["waited"]
            else:
                left = before["attempts"][str(held.number)]["left"]
                forgotten = held.number not in holding
                orphan = predecessor_is_dead and held.run.instance == run.instance and held.run != run
                if not (forgotten and (left <= 0 or held.run == run)) and not orphan:
                    continue
                since, at_once = -left, left > 0
                lost_answer = held.run == run and left > 0
            crashed = held is not None and not lost_answer
            spent = row.spent - (1 if held is not None and lost_answer and not held.look_only else 0)
            look_only = spent >= BUDGET
            hopeless = look_only and (row.name is None or (crashed and held is not None and held.look_only))
            found.append(
                Due(
                    identity, since, at_once, held, crashed, spent, row.crashes + crashed, look_only, hopeless
                )
            )
        return sorted(found, key=lambda due: due.order)

    def take(self, due: Due, claim: State | None, run: Run) -> None:
        """A claim has handed a row out, or ended it where there is nothing left to try."""
        row = self.rows[due.identity]
        if due.held is not None:
            due.held.outcome = "crashed" if due.crashed else "released"
        row.spent, row.crashes, row.deferred = due.spent, due.crashes, False
        if claim is None:
            assert due.hopeless, f"{due} was passed over for ever."
            row.status = "failed"
            return
        assert not due.hopeless, f"{due} was handed out once too often."
        assert claim["attempt"] > self.highest, "A number was given out twice."
        assert (claim["details"]["model_id"], claim["look_only"]) == (row.name, due.look_only)
        assert (claim["exhausted"] is not None) == due.look_only
        tried = {a.identity for a in self.attempts.values() if a.outcome != "revoked"}
        assert claim["never_tried"] == (due.identity not in tried)
        self.highest = claim["attempt"]
        self.attempts[self.highest] = Attempt(self.highest, due.identity, run, due.alone, due.look_only)
        row.status = "publishing"
        row.spent += 0 if due.look_only else 1

    def agree(self, state: State) -> None:
        """Hold everything that Postgres shows against the model, and against what is always so."""
        assert state["rows"].keys() == self.rows.keys()
        assert state["names"] == self.names
        assert state["lines"].keys() == {id_ for id_, row in self.rows.items() if row.status in OPEN}
        assert {int(number): a["outcome"] for number, a in state["attempts"].items()} == {
            number: a.outcome for number, a in self.attempts.items()
        }
        for identity, row in self.rows.items():
            told, holder = state["rows"][identity], self.holder(identity)
            assert (told["status"], told["model_id"], told["user_id"]) == (row.status, row.name, row.owner)
            assert row.name is None or self.names[row.name] == identity
            assert holder is None or row.status == "publishing", "Held, though nobody publishes it."
            published = [
                told[key] is not None for key in ("huggingface_repo_url", "commit_sha", "published_at")
            ]
            assert published == [row.status == "published"] * 3
            failed = [told[key] is not None for key in ("error_code", "error_message")]
            assert failed == [row.status == "failed"] * 2
            assert (told["next_attempt_at"] is not None) == (row.deferred and row.status == "pending")
            if row.status in OPEN:
                line = state["lines"][identity]
                assert (line["spent"], line["crashes"]) == (row.spent, row.crashes)
                assert 0 <= row.spent <= BUDGET
                # Its place in the queue: by its turn, or by its time, or held.
                waits = row.status == "pending" and not row.deferred
                assert line["turn_at"] is not None or not waits, "It would never be found."
