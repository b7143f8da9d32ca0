"""How long the real Realtime took is how long the sandbox takes, unless it is told otherwise; and what it drops."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import pytest
from websockets.exceptions import InvalidStatus

from tests.sandbox.live import INSERTS, JOBS, QUICK, Project, running, template
from tests.sandbox.transcripts import Step, fields, lines, row, steps, system
from watcher.sandbox import Postgres
from watcher.sandbox.realtime.rate import Rate
from watcher.sandbox.realtime.timing import Timing

TABLES = f"""
{JOBS}
grant all on public.jobs to service_role;
alter publication supabase_realtime add table public.jobs;
"""


@pytest.fixture(scope="module")
def project(postgres: Postgres) -> Iterator[Project]:
    with template(postgres, TABLES) as tables, running(postgres, tables, QUICK) as project:
        yield project


def _measured(recording: str, first: Callable[[Step], object], then: Callable[[Step], object]) -> list[float]:
    """Return how long it took from the last step of one kind to each of another, on one connection and topic."""
    began: dict[object, float] = {}
    found = []
    for step in steps(recording):
        where = step.line.get("conn"), fields(step.line["frame"])[0] if step.told or step.sent else None
        if then(step) and where in began:
            found.append(step.at - began.pop(where))
        if first(step):
            began[where] = step.at
    return found


def _reply(status: str) -> Callable[[Step], bool]:
    def is_one(step: Step) -> bool:
        topic, event, _, payload = fields(step.line["frame"]) if step.told else ("", "", None, {})
        return event == "phx_reply" and topic != "phoenix" and payload["status"] == status

    return is_one


def _sent(event: str) -> Callable[[Step], bool]:
    return lambda step: step.sent and fields(step.line["frame"])[1] == event


def _event(name: str) -> Callable[[Step], bool]:
    return lambda step: bool(step.line.get("ev") == name)


def _polls(recording: str) -> list[float]:
    """Return how long after each statement something was heard of it."""
    found = []
    written: float | None = None
    for step in steps(recording):
        if step.line.get("ev") == "sql":
            written = step.at
        elif row(step) and written is not None:
            found.append(step.at - written)
            written = None
    return found


MEASURED = {
    "handshake_error": _measured("02", _event("open"), _event("upstream_rejected")),
    "join_error": [
        *_measured("02", _sent("phx_join"), _reply("error")),
        _measured("04", _sent("phx_join"), _reply("error"))[-1],
    ],
    "warm": [*_measured("03", _reply("ok"), system), *_measured("08", _reply("ok"), system)],
    "cold": [
        _measured("01", _reply("ok"), system)[0],
        *_measured("07", _reply("ok"), system),
        *[seconds for seconds in _measured("14", _reply("ok"), system) if seconds > 1],
    ],
    "resubscribe": _measured("01", _sent("access_token"), system),
    "idle": [line["closed_after"] for line in lines("17") if line["test"].startswith("idle")],
    # What is written right after a poll is heard of at the next.
    "poll_idle": [max(_polls("01"))],
    # It looked every minute, and found a change twice.
    "publication_check": [max(_measured("05", system, system))],
}


@pytest.mark.parametrize("knob", MEASURED)
def test_by_default_it_takes_as_long_as_it_did(knob: str) -> None:
    default = getattr(Timing(), knob)
    assert min(MEASURED[knob]) * 0.9 <= default <= max(MEASURED[knob]) * 1.1


async def test_it_takes_as_long_as_its_knobs_say(project: Project) -> None:
    knobs = {"handshake_error": 0.2, "join_error": 0.3, "warm": 0.25, "resubscribe": 0.35}
    project.realtime.set_timing(**knobs, cold=0.25)
    took: dict[str, float] = {}
    with _timed(took, "handshake_error"), pytest.raises(InvalidStatus):
        async with project.raw("garbage"):
            pass
    async with project.raw() as raw:
        with _timed(took, "join_error"):
            assert (await raw.join(topic=""))[4]["status"] == "error"
        assert (await raw.join(INSERTS, ref="2"))[4]["status"] == "ok"
        with _timed(took, "warm"):
            await raw.hear()
        with _timed(took, "resubscribe"):
            token = {"access_token": project.token(role="service_role")}
            await raw.send("2", "3", "realtime:jobs", "access_token", token)
            await raw.hear()
    for knob, seconds in knobs.items():
        assert seconds <= took[knob] < seconds + 1, knob


@contextmanager
def _timed(took: dict[str, float], knob: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    took[knob] = time.monotonic() - began


def test_05_at_300_rows_a_second_as_many_are_dropped_as_were() -> None:
    """Recorded: 179 batches of 150 rows, then a probe every 5 s; but not when in its 5 s the server counts."""
    [sums] = [line for line in lines("05") if line.get("lost")]
    probes = [
        (line["t"] - 5 - _BURST, bool(line["delivered"])) for line in lines("05") if "after_burst_s" in line
    ]
    found = [_under_load(sums["sent"], [at for at, _ in probes], phase / 20) for phase in range(100)]
    assert (sums["delivered"], [heard for _, heard in probes]) in found
    # However it counts, about half is lost, and for long after.
    for told, heard in found:
        assert abs(told - sums["delivered"]) <= 1500
        assert not any(heard[:5])


# When the burst began, and how long from one batch to the next.
_BURST, _PERIOD = 162.428, 66.04 / 131


def _under_load(sent: int, probes: Iterable[float], phase: float) -> tuple[int, list[bool]]:
    """Return how many of so many rows are told, and which of the probes after them."""
    rate, told = Rate(), 0
    for number in range(sent // 150):
        now = 1000 + phase + number * _PERIOD
        if not rate.exceeded(now):
            rate.add(150, now)
            told += 150
    return told, [not rate.exceeded(1000 + phase + probe) for probe in probes]
