"""The planned events of one run, a pure function of its seed. Which request meets which fault depends on timing."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

LASTS = 11.0
"""Seconds of faults in a run."""
NAMES = ("John", "John", "Zoë", "李雷", "Ada `Countess` Lovelace")

FETCHES = "/object/authenticated/"
# The requests at which faults can be injected.
PLACES = {
    "claim": ("rest", "POST", "/rpc/watcher_claim$"),
    "renew": ("rest", "POST", "/rpc/watcher_renew$"),
    "reserve": ("rest", "POST", "/rpc/watcher_reserve$"),
    "complete": ("rest", "POST", "/rpc/watcher_complete$"),
    "fail": ("rest", "POST", "/rpc/watcher_fail$"),
    "defer": ("rest", "POST", "/rpc/watcher_defer$"),
    "release": ("rest", "POST", "/rpc/watcher_release$"),
    "wait": ("rest", "POST", "/rpc/watcher_wait$"),
    "erased": ("rest", "POST", "/rpc/watcher_erased$"),
    "settle": ("rest", "POST", "/rpc/watcher_settle_repo$"),
    "left": ("rest", "POST", "/rpc/watcher_erase_left$"),
    "sweep": ("rest", "POST", "/rpc/watcher_sweep$"),
    "beat": ("rest", "POST", "/rpc/watcher_beat$"),
    "version": ("rest", "POST", "/rpc/watcher_version$"),
    "insert": ("rest", "POST", "/trained_identities$"),
    "fetch": ("storage", "GET", FETCHES),
    "whoami": ("hub", "GET", "^/api/whoami-v2$"),
    "create": ("hub", "POST", "^/api/repos/create$"),
    "look": ("hub", "GET", "/commits/main$"),
    "info": ("hub", "GET", "^/api/models/[^/]+/[^/]+(/revision/main)?$"),
    "card": ("hub", "POST", "^/api/validate-yaml$"),
    "batch": ("hub", "POST", "/info/lfs/objects/batch$"),
    "put": ("hub", "PUT", "^/_lfs/put/"),
    "commit": ("hub", "POST", "/commit/main$"),
    "delete": ("hub", "DELETE", "^/api/repos/delete$"),
    "lfs delete": ("hub", "POST", "/lfs-files/batch$"),
    "remove": ("storage", "DELETE", "/object/identity-images$"),
    "hub": ("hub", None, None),
    "verbs": ("rest", "POST", "/rpc/watcher_"),
    "start": ("rest", "POST", "/rpc/watcher_training_start$"),
    "intend": ("rest", "POST", "/rpc/watcher_training_intend$"),
    "undo": ("rest", "POST", "/rpc/watcher_training_undo$"),
    "postpone": ("rest", "POST", "/rpc/watcher_training_postpone$"),
    "job": ("rest", "POST", "/rpc/watcher_training_job$"),
    "ended": ("rest", "POST", "/rpc/watcher_training_ended$"),
    "trained": ("rest", "POST", "/rpc/watcher_trained$"),
    "followed": ("rest", "POST", "/rpc/watcher_followed$"),
    "run job": ("hub", "POST", "^/api/jobs/[^/]+$"),
    "hardware": ("hub", "GET", "^/api/jobs/hardware$"),
    "list jobs": ("hub", "GET", "^/api/jobs/(?!hardware)[^/]+$"),
    "inspect": ("hub", "GET", "^/api/jobs/[^/]+/[^/]+$"),
    "cancel": ("hub", "POST", "^/api/jobs/[^/]+/[^/]+/cancel$"),
    "sample": ("storage", "POST", "/object/identity-samples/"),
}
MUTATING = {
    "claim": 2, "renew": 1, "reserve": 2, "complete": 6, "fail": 2, "defer": 1, "release": 1, "wait": 1,
    "create": 4, "put": 2, "commit": 5, "delete": 3, "erased": 2, "lfs delete": 1, "remove": 2, "settle": 1, "sweep": 1,
}  # fmt: skip
"""Requests that change something, with weights."""
OF_TRAININGS = {
    "run job": 12, "start": 4, "job": 3, "intend": 2, "undo": 2, "postpone": 1, "ended": 2, "trained": 4, "followed": 2,
    "cancel": 2, "commit": 2, "sample": 2, "wait": 2, "claim": 1,
}  # fmt: skip
"""The same, of a training; those at `commit` are also the job's own."""
LONGEST_FREEZE = 4.0
"""Seconds for which a daemon is frozen."""
LONGEST_DELAY = 4.0
"""Seconds by which all faults together delay a request before it is processed."""
LATE_SECONDS = 8
"""Seconds within which a sent request is processed, at least LONGEST_FREEZE + LONGEST_DELAY: a daemon can be frozen
between checking its lease and sending."""
ANYWHERE = {
    **MUTATING, "left": 1, "fetch": 4, "look": 3, "batch": 3, "hub": 2, "verbs": 2,
    "beat": 1, "version": 1, "insert": 1, "whoami": 1, "info": 1, "card": 1,
}  # fmt: skip
LIST_LAG_SECONDS = 2
"""Seconds for which a new job may be missing from lists."""
# A longer wait than an attempt allows, so that each attempt ends at once and the budget is spent quickly.
LONG_WAIT = {"Retry-After": "30"}
NOT_FOUND = {"statusCode": "404", "error": "not_found", "message": "Object not found"}
DISABLED = {"error": "Access to this resource is disabled.", "message": "Access denied."}
REFUSED_KEY = {"message": "Invalid API key", "hint": None}


@dataclass(frozen=True, slots=True)
class Row:
    """One row that a user inserts."""

    at: float
    """Seconds since the run began."""
    id: str
    person: int
    name: str
    pictures: tuple[tuple[str, int], ...]
    """The kind of each and the seed of its content; see `users.picture`."""
    train: bool = False
    """Whether it is inserted with the wish that a LoRA be trained."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event: `do` names a method of `Harm` or of `User`, `how` its arguments."""

    at: float
    do: str
    how: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Schedule:
    """One run."""

    seed: int
    lasts: float
    """Seconds until all faults are removed."""
    slots: tuple[int, ...]
    """The slots of each daemon."""
    latency: float
    """Round-trip time in seconds of the daemons' requests to the Hub and to Storage."""
    people: int
    rows: tuple[Row, ...]
    acts: tuple[Event, ...]
    """What users do with their rows and their accounts."""
    harms: tuple[Event, ...]
    usd_a_day: float = 5.0
    """The budget for trainings. Each reserves 0.45 dollars, and then costs 0.03 a minute."""
    trainings_a_day: int = 3
    """Of each user."""


def draw(seed: int, lasts: float = LASTS) -> Schedule:
    """Draw the schedule of a seed."""
    rnd = random.Random(seed)
    people = rnd.randint(2, 4)
    rows = [_row(rnd, rnd.uniform(0, 0.8 * lasts), rnd.randrange(people)) for _ in range(rnd.randint(8, 14))]
    rows.sort(key=lambda row: row.at)
    # The mix differs between runs: a family of faults may be missing or dominate.
    families = {family: rnd.choice((0, 1, 1, 2, 4)) * share for family, share in _FAMILIES.items()}
    many = rnd.randint(int(1.5 * lasts), int(3.5 * lasts))
    drawn = [family(rnd) for family in rnd.choices(list(families), list(families.values()), k=many)]
    # Every run has lost answers, delayed and late requests. Faults that wait for a request begin early, so that one meets
    # them.
    drawn += [_lost_answer(rnd) for _ in range(rnd.randint(int(lasts), int(2 * lasts)))]
    drawn += [_delayed(rnd) for _ in range(rnd.randint(2, 6))]
    drawn += [_late(rnd) for _ in range(rnd.randint(int(lasts / 2), int(lasts)))]
    harms = [Event(rnd.uniform(0, 0.6 if "times" in how else 1.0) * lasts, do, how) for do, how in drawn]
    schedule = Schedule(
        seed=seed,
        lasts=lasts,
        slots=tuple(rnd.randint(1, 4) for _ in range(rnd.randint(2, 4))),
        latency=rnd.choice((0, 0.02, 0.05, 0.1, 0.2)),
        people=people,
        rows=tuple(rows),
        acts=tuple(sorted(_acts(rnd, rows, people, lasts), key=lambda act: act.at)),
        harms=tuple(sorted(harms, key=lambda harm: harm.at)),
    )
    return _with_trainings(random.Random(f"trainings of {seed}"), schedule)


def _with_trainings(rnd: random.Random, schedule: Schedule) -> Schedule:
    """Let users ask for trainings, and add what can go wrong with them."""
    wish = rnd.choice((0.5, 0.8, 1.0))
    rows = [replace(row, train=rnd.random() < wish) for row in schedule.rows]
    families = {family: rnd.choice((0, 1, 1, 2)) * share for family, share in _FAMILIES_OF_TRAININGS.items()}
    families[_lost_job] = 2
    many = rnd.randint(int(schedule.lasts / 2), int(1.5 * schedule.lasts))
    drawn = [family(rnd) for family in rnd.choices(list(families), list(families.values()), k=many)]
    harms = [Event(rnd.uniform(0.1, 0.9) * schedule.lasts, do, how) for do, how in drawn]
    acts = _acts_of_trainings(rnd, rows)
    return replace(
        schedule,
        rows=tuple(rows),
        acts=tuple(sorted([*schedule.acts, *acts], key=lambda act: act.at)),
        harms=tuple(sorted([*schedule.harms, *harms], key=lambda harm: harm.at)),
        usd_a_day=rnd.choice((0.45, 0.6, 1.0, 2.0, 5.0, 5.0)),
        trainings_a_day=rnd.choice((1, 3, 10, 10)),
    )


def _acts_of_trainings(rnd: random.Random, rows: list[Row]) -> list[Event]:
    acts = []
    for number, row in enumerate(rows):
        chance, later = rnd.random(), row.at + rnd.uniform(1, 6)
        if chance < 0.12:
            acts.append(Event(row.at + rnd.uniform(0.1, 3), "withdraw", {"row": number}))
        elif chance < 0.24:
            acts.append(Event(later, "delete_training", {"row": number}))
        elif chance < 0.7:
            acts.append(Event(later, "ask", {"row": number}))
        if chance < 0.5:
            acts.append(Event(later + rnd.uniform(0.1, 3), "ask", {"row": number}))
    return acts


def _row(rnd: random.Random, at: float, person: int) -> Row:
    pictures = [(rnd.choice(("jpeg", "jpeg", "png")), rnd.randrange(200)) for _ in range(rnd.randint(3, 6))]
    if rnd.random() < 0.12:
        flaw = rnd.choice(("cut", "text"))
        pictures[rnd.randrange(len(pictures))] = (flaw, rnd.randrange(200))
    new = str(UUID(int=rnd.getrandbits(128), version=4))
    return Row(at, new, person, rnd.choice(NAMES), tuple(pictures))


def _acts(rnd: random.Random, rows: list[Row], people: int, lasts: float) -> list[Event]:
    acts = []
    # In a third of the runs, users delete much: half of their rows, and accounts.
    much = rnd.random() < 1 / 3
    for number, row in enumerate(rows):
        chance = rnd.random()
        later = row.at + rnd.uniform(0.1, 4)
        if chance < (0.5 if much else 0.08):
            acts.append(Event(later, "delete", {"row": number}))
        elif chance < (0.6 if much else 0.14):
            acts.append(Event(later, "insert_again", {"row": number}))
    # Users retry failed rows from time to time.
    acts += [
        Event(rnd.uniform(1, lasts), "retry_failed", {"person": rnd.randrange(people)})
        for _ in range(rnd.randint(2, 8))
    ]
    for person in rnd.sample(range(people), people - 2):
        if much or rnd.random() < 0.2:
            leave = {"person": person, "softly": rnd.random() < 0.5}
            acts.append(Event(rnd.uniform(0.4 * lasts, lasts), "leave", leave))
    return acts


# The families of faults: each draws a method of `Harm` and its arguments.

Drawn = tuple[str, dict[str, Any]]
_SKIP = (0, 0, 0, 1, 2, 4, 8)
"""Numbers of requests that pass before one meets the fault."""


def _place(rnd: random.Random, places: dict[str, int]) -> str:
    return rnd.choices(list(places), list(places.values()))[0]


def _kill(rnd: random.Random) -> Drawn:
    return "kill", {
        "daemon": rnd.randrange(4),
        "again_after": rnd.uniform(0, 2),
        "moved": rnd.random() < 0.25,
    }


def _freeze(rnd: random.Random) -> Drawn:
    return "freeze", {"daemon": rnd.randrange(4), "seconds": rnd.uniform(0.5, LONGEST_FREEZE)}


def _stop(rnd: random.Random) -> Drawn:
    return "stop", {"daemon": rnd.randrange(4), "twice": rnd.random() < 0.3, "again_after": rnd.uniform(0, 1)}


def _ambush(rnd: random.Random) -> Drawn:
    """On a request to the place, all daemons are killed or frozen for longer than the lease; the request is done later."""
    freeze = rnd.choice((0, 0, 0, rnd.uniform(2.5, LONGEST_FREEZE)))
    return "ambush", {
        "place": _place(rnd, MUTATING),
        "when": rnd.choice(("before", "after")),
        "skip": rnd.choice(_SKIP),
        "freeze": freeze,
        "late": rnd.choice((0, freeze / 2, rnd.uniform(1, 4))),
    }


def _lost_answer(rnd: random.Random) -> Drawn:
    status, body = rnd.choice(((None, None), (None, None), (None, None), (500, "trouble"), (504, "time-out")))
    return "fault", {
        "action": "LoseAnswer",
        "options": {"status": status, "body": body},
        "place": _place(rnd, MUTATING),
        "times": rnd.choice((1, 1, 2, 3)),
        "skip": rnd.choice(_SKIP),
    }


def _delayed(rnd: random.Random) -> Drawn:
    """A request that the network delays for longer than the lease."""
    return "fault", {
        "action": "Delay",
        "options": {"seconds": rnd.uniform(2.2, LONGEST_DELAY)},
        "place": _place(rnd, MUTATING),
        "times": rnd.choice((1, 1, 2)),
        "skip": rnd.choice((0, 0, 1)),
    }


def _late(rnd: random.Random) -> Drawn:
    """A request that is not answered, and is processed after its sender has retried it, timed out or been killed."""
    return "fault", {
        "action": "Late",
        "options": {
            "seconds": rnd.uniform(0.3, LONGEST_DELAY),
            "connection": rnd.choice(("cut", "cut", "hang")),
        },
        "place": _place(rnd, MUTATING),
        "times": rnd.choice((1, 1, 2)),
        "skip": rnd.choice((0, 0, 0, 1, 2)),
    }


def _request(rnd: random.Random) -> Drawn:
    action, options = rnd.choice(
        (
            ("Answer", {"status": rnd.choice((500, 502, 503, 504)), "body": "trouble"}),
            ("Answer", {"status": 503, "body": "away", "headers": {"Retry-After": "1"}}),
            ("Answer", {"status": 429, "body": "slowly", "headers": {"Retry-After": "1"}}),
            ("Answer", {"status": 429, "body": "slowly"}),
            ("Delay", {"seconds": rnd.uniform(0.2, 3)}),
            ("Cut", {"side": "request"}),
            ("Cut", {"side": "request", "after": 0}),
            ("Cut", {"side": "response"}),
            ("Truncate", {}),
        )
    )
    return "fault", {
        "action": action,
        "options": options,
        "place": _place(rnd, ANYWHERE),
        "times": rnd.choice((1, 1, 2, 3)),
        "skip": rnd.choice(_SKIP),
    }


def _for_a_while(rnd: random.Random) -> Drawn:
    action, options = rnd.choice(
        (
            ("Hang", {}),
            ("Hold", {"when": "before"}),
            ("Hold", {"when": "after"}),
            ("Rate", {"bytes_per_second": rnd.uniform(8_000, 40_000)}),
            ("Answer", {"status": rnd.choice((500, 503)), "body": "trouble", "headers": LONG_WAIT}),
        )
    )
    return "fault", {
        "action": action,
        "options": options,
        "place": _place(rnd, {**ANYWHERE, "insert": 0}),
        "times": None,
        "skip": rnd.choice(_SKIP),
        "lasts": rnd.uniform(0.3, 4),
    }


def _hub(rnd: random.Random) -> Drawn:
    return rnd.choice(
        (
            ("knob", {"knob": "conflict", "value": rnd.randint(1, 3)}),
            ("knob", {"knob": "omit_url", "value": rnd.randint(1, 3)}),
            ("knob", {"knob": "exceed", "value": "create"}),
            ("knob", {"knob": "exceed", "value": "commit"}),
            ("knob", {"knob": "hide_new_repo", "value": rnd.randint(1, 3)}),
            ("limit_requests", {"quota": rnd.randint(0, 10), "lasts": rnd.uniform(0.5, 3)}),
            ("regular", {"lasts": rnd.uniform(1, 4)}),
            ("knob", {"knob": "edit_attributes", "value": rnd.randint(1, 3)}),
            ("edit_by_hand", {}),
            ("refuse_once", {"place": "commit", "status": 412, "sentence": "A commit has happened since."}),
            ("refuse_once", {"place": "commit", "status": 400, "sentence": "No."}),
            ("refuse_once", {"place": "create", "status": 422, "sentence": "No."}),
        )
    )


def _outage(rnd: random.Random) -> Drawn:
    return rnd.choice(
        (
            ("revoke", {"lasts": rnd.uniform(0.3, 2)}),
            ("limit_storage", {"lasts": rnd.uniform(0.3, 2)}),
            ("take_writing", {"lasts": rnd.uniform(0.3, 2)}),
            ("refuse_key", {"lasts": rnd.uniform(0.3, 2)}),
        )
    )


def _one_refused(rnd: random.Random) -> Drawn:
    """One row's repo or photo is refused, and nobody else's."""
    return rnd.choice(("refuse_repo", "refuse_photo")), {"lasts": rnd.uniform(1, 6)}


def _realtime(rnd: random.Random) -> Drawn:
    return rnd.choice(
        (
            ("close_sockets", {"code": rnd.choice((1000, 1006, 1011, 1012))}),
            ("mute", {"lasts": rnd.uniform(0.5, 4)}),
            ("drop_events", {"seconds": rnd.uniform(0.5, 3)}),
            ("refuse_sockets", {"status": rnd.choice((401, 502, 503)), "times": rnd.randint(1, 6)}),
            ("accept_then_drop", {"times": rnd.randint(1, 4)}),
            ("system_error", {}),
        )
    )


def _postgres(rnd: random.Random) -> Drawn:
    return rnd.choice(
        (
            ("restart_postgres", {}),
            ("kill_backends", {}),
            ("kill_backends", {}),
            ("halt_postgres", {"lasts": rnd.uniform(0.2, 2.5)}),
        )
    )


def _late_object(rnd: random.Random) -> Drawn:
    return "late_objects", {"lasts": rnd.uniform(0.3, 3)}


def _replay(rnd: random.Random) -> Drawn:
    return "replay", {}


_FAMILIES: dict[Callable[[random.Random], Drawn], float] = {
    _kill: 2,
    _freeze: 2,
    _stop: 1,
    _ambush: 1.5,
    _request: 4,
    _for_a_while: 3,
    _hub: 2,
    _outage: 0.7,
    _one_refused: 1.5,
    _realtime: 1.5,
    _postgres: 0.8,
    _late_object: 0.5,
    _replay: 0.5,
}


# The same for trainings.


def _lost_job(rnd: random.Random) -> Drawn:
    """A job is made, now or later, and its requester does not learn of it."""
    do, how = rnd.choice((_lost_answer, _late, _delayed))(rnd)
    return do, {**how, "place": "run job", "skip": rnd.choice((0, 0, 1))}


def _unanswered(rnd: random.Random) -> Drawn:
    do, how = rnd.choice((_lost_answer, _late, _delayed))(rnd)
    return do, {**how, "place": _place(rnd, OF_TRAININGS), "skip": rnd.choice((0, 0, 0, 1, 2))}


def _ambush_of_trainings(rnd: random.Random) -> Drawn:
    do, how = _ambush(rnd)
    return do, {**how, "place": _place(rnd, OF_TRAININGS), "skip": rnd.choice((0, 0, 0, 1, 2))}


def _request_of_trainings(rnd: random.Random) -> Drawn:
    do, how = _request(rnd)
    places = {**OF_TRAININGS, "hardware": 1, "list jobs": 4, "inspect": 3}
    return do, {**how, "place": _place(rnd, places), "skip": rnd.choice((0, 0, 0, 1, 2))}


def _refused_job(rnd: random.Random) -> Drawn:
    """The Hub takes no job for a while, or not this one."""
    status = rnd.choice((400, 402, 402, 403, 403, 401, 404, 429, 503))
    if status == 400:
        return "refuse_once", {"place": "run job", "status": status, "sentence": "No."}
    return rnd.choice(
        (
            ("take_credit", {"lasts": rnd.uniform(0.3, 3)}),
            ("knob", {"knob": "exceed", "value": "job"}),
            (
                "fault",
                {
                    "action": "Answer",
                    "options": {"status": status, "body": {"error": "No."}},
                    "place": rnd.choice(("run job", "run job", "list jobs", "cancel")),
                    "times": rnd.choice((1, 2)),
                    "skip": rnd.choice((0, 0, 1)),
                },
            ),
        )
    )


def _jobs(rnd: random.Random) -> Drawn:
    stage = rnd.choice(("SCHEDULING", "RUNNING"))
    return rnd.choice(
        (
            ("lag_lists", {"seconds": rnd.uniform(0.3, LIST_LAG_SECONDS), "lasts": rnd.uniform(2, 6)}),
            ("hold_jobs", {"stage": stage, "many": rnd.randint(1, 3), "lasts": rnd.uniform(1, 6)}),
            (
                "exit_jobs",
                {"code": rnd.choice((1, 11, 12, 13, 14, 15, 16, 17, 137)), "many": rnd.randint(1, 2)},
            ),
            (
                "end_job",
                {"stage": rnd.choice(("CANCELED", "DELETED", "ERROR")), "newest": rnd.random() < 0.5},
            ),
            ("end_slowly", {"seconds": rnd.uniform(0.5, 3), "lasts": rnd.uniform(1, 5)}),
        )
    )


_FAMILIES_OF_TRAININGS: dict[Callable[[random.Random], Drawn], float] = {
    _unanswered: 2,
    _ambush_of_trainings: 1,
    _request_of_trainings: 2,
    _refused_job: 1,
    _jobs: 4,
}
