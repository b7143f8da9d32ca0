"""The sandbox's Realtime is by default as slow as the real one was, and drops as many events."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import pytest
from websockets.exceptions import InvalidStatus

from tests.sandbox.project import INSERTS, JOBS, Project, running, template
from tests.sandbox.transcripts import Step, fields, lines, row, steps, system
from watcher.sandbox import Postgres
from watcher.sandbox.realtime.rate import Rate
from watcher.sandbox.realtime.timing import Timing


@pytest.fixture(scope="module")
def project(postgres: Postgres) -> Iterator[Project]:
    with template(postgres, JOBS) as tables, running(postgres, tables) as project:
        yield project


def _measured(recording: str, first: Callable[[Step], object], then: Callable[[Step], object]) -> list[float]:
    """Return the seconds from each step of one kind back to the last of another, on the same connection and topic."""
    began: dict[object, float] = {}
    found = []
    for step in steps(recording):
        where = step.line.get("conn"), fields(step.line["frame"])[0] if step.received or step.sent else None
        if then(step) and where in began:
            found.append(step.at - began.pop(where))
        if first(step):
            began[where] = step.at
    return found


def _reply(status: str) -> Callable[[Step], bool]:
    def is_one(step: Step) -> bool:
        topic, event, _, payload = fields(step.line["frame"]) if step.received else ("", "", None, {})
        return event == "phx_reply" and topic != "phoenix" and payload["status"] == status

    return is_one


def _sent(event: str) -> Callable[[Step], bool]:
    return lambda step: step.sent and fields(step.line["frame"])[1] == event


def _event(name: str) -> Callable[[Step], bool]:
    return lambda step: bool(step.line.get("ev") == name)


def _polls(recording: str) -> list[float]:
    """Return how long after each statement its first event came."""
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
    # A change that is written right after a poll waits for the next.
    "poll_idle": [max(_polls("01"))],
    # It checked every minute, and found a change twice.
    "publication_check": [max(_measured("05", system, system))],
}


@pytest.mark.parametrize("delay", MEASURED)
def test_each_default_is_within_what_was_recorded(delay: str) -> None:
    default = getattr(Timing(), delay)
    assert min(MEASURED[delay]) * 0.9 <= default <= max(MEASURED[delay]) * 1.1


async def test_each_delay_can_be_set(project: Project) -> None:
    """All are longer than those with which the project was started."""
    delays = {"handshake_error": 0.2, "join_error": 0.3, "cold": 0.25, "warm": 0.25, "resubscribe": 0.35}
    project.realtime.set_timing(**delays)
    took: dict[str, float] = {}
    with _timed(took, "handshake_error"), pytest.raises(InvalidStatus):
        async with project.raw("garbage"):
            pass
    async with project.raw() as raw:
        with _timed(took, "join_error"):
            assert (await raw.join(topic=""))[4]["status"] == "error"
        for delay, ref in (("cold", "2"), ("warm", "3")):
            with _timed(took, delay):
                await raw.subscribe(INSERTS, ref=ref, topic=delay)
        with _timed(took, "resubscribe"):
            token = {"access_token": project.token(role="service_role")}
            await raw.send("3", "4", "realtime:warm", "access_token", token)
            await raw.receive()
    for delay, seconds in delays.items():
        assert took[delay] >= seconds, delay


@contextmanager
def _timed(took: dict[str, float], delay: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    took[delay] = time.monotonic() - began


def test_events_over_the_limit_are_dropped_until_the_average_is_below_it() -> None:
    rate = Rate(per_second=10, window=1.2)
    rate.add(12, now=0.05)
    assert not rate.exceeded(now=0.09), "Only a tenth of a second that has ended counts."
    assert rate.exceeded(now=0.1)
    assert rate.exceeded(now=1.29)
    assert not rate.exceeded(now=1.3)


def test_at_300_rows_a_second_as_many_are_dropped_as_in_05() -> None:
    """Recorded are 179 batches of 150 rows, then a probe every 5 s, but not when the server's intervals of 5 s began."""
    [sums] = [line for line in lines("05") if line.get("lost")]
    probes = [
        (line["t"] - 5 - _BURST, bool(line["delivered"])) for line in lines("05") if "after_burst_s" in line
    ]
    found = [_under_load(sums["sent"], [at for at, _ in probes], phase / 20) for phase in range(100)]
    assert (sums["delivered"], [received for _, received in probes]) in found
    # Whenever they began, about half is lost, and nothing comes for long after.
    for sent, received in found:
        assert abs(sent - sums["delivered"]) <= 1500
        assert not any(received[:5])


# When the burst began, and how long from one batch to the next.
_BURST, _PERIOD = 162.428, 66.04 / 131


def _under_load(rows: int, probes: Iterable[float], phase: float) -> tuple[int, list[bool]]:
    """Return how many of `rows` events are sent, and which of the probes after them."""
    rate, sent = Rate(), 0
    for number in range(rows // 150):
        now = 1000 + phase + number * _PERIOD
        if not rate.exceeded(now):
            rate.add(150, now)
            sent += 150
    return sent, [not rate.exceeded(1000 + phase + probe) for probe in probes]
