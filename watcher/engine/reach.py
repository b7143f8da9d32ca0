"""Finds out whether a service that refused a request about one row refuses that row alone or every row.

The evidence is kept in memory: which rows have lately passed the step at which a row was refused, and which were refused
there. What it does not settle, a check does: a request that concerns no row, or another row's things; many share one.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from watcher.errors import Misconfigured, Outage, Refused

_EVIDENCE = 60.0
"""Seconds for which a row that passed a step shows that others can."""
_ASK_AGAIN = {False: 30.0, True: 1.0}
"""Seconds for which an answer about the key is believed: less if a service says that it does not know the key."""
_REMEMBER = 3600.0
"""Seconds for which a row counts as refused."""


@dataclass(frozen=True, slots=True)
class Checks:
    """How a service is asked. Both raise Outage or Misconfigured if it refuses every row, and Transient."""

    key: Callable[[], Awaitable[object]]
    """Asks whether the key is good for anything."""
    others: Callable[[str], Awaitable[bool]] | None = None
    """Asks whether it is good for the things of other rows than this one; returns False if there are none. None where `key`
    has asked that already."""


class Reach:
    """What this daemon knows about refusals."""

    def __init__(self, services: Mapping[str, Checks]) -> None:
        self._services = {name: _Service(checks) for name, checks in services.items()}
        self._steps: dict[str, _Step] = {}

    def passed(self, row: str, step: str) -> None:
        """Note that a row has passed a step."""
        self._steps.setdefault(step, _Step()).pass_by(row, _now())

    async def judge(self, refusal: Refused, row: str, attempt: int) -> None:
        """Return if the refusal concerns this row alone, or may; raise Outage if it concerns every row.

        An Outage that is not `certain` lasts until another row has decided. Raises Transient if the service does not answer.
        """
        now, step = _now(), self._steps.setdefault(refusal.step, _Step())
        step.refuse(row, attempt, now)
        try:
            await self._judge(refusal, row, step, now)
        except Misconfigured as error:
            raise step.outage(Outage(str(error)), row, attempt) from error
        except Outage as outage:
            raise step.outage(outage, row, attempt) from None

    async def _judge(self, refusal: Refused, row: str, step: "_Step", now: float) -> None:
        service = self._services[refusal.service]
        await service.ask_key(now, believed=_ASK_AGAIN[refusal.now])
        others_pass = step.passed_by_another(row, now)
        others_refused = step.others_refused(row, now)
        if others_pass and not others_refused:
            return
        asked = await service.ask_others(row, now)
        if not others_pass and (others_refused or not asked):
            raise Outage(refusal.everybody, certain=False, of_kind=True)


@dataclass(slots=True)
class _Step:
    """Who passed a step, and who was refused there since."""

    passed: dict[str, float] = field(default_factory=dict)
    """The last two rows: whichever is refused, one of them is another. With loop times."""
    refused: dict[str, tuple[float, list[int]]] = field(default_factory=dict)
    """The rows that were refused since another passed: when, and at which attempts."""

    def pass_by(self, row: str, now: float) -> None:
        self.passed.pop(row, None)
        self.passed[row] = now
        for oldest in list(self.passed)[:-2]:
            del self.passed[oldest]
        # A row that can pass again was not refused for itself, and says nothing about the others' refusals.
        self.refused.clear()

    def refuse(self, row: str, attempt: int, now: float) -> None:
        self.refused = {one: what for one, what in self.refused.items() if now - what[0] < _REMEMBER}
        _, attempts = self.refused.get(row, (now, []))
        self.refused[row] = (now, [*attempts, attempt])

    def passed_by_another(self, row: str, now: float) -> bool:
        return any(one != row and now - at < _EVIDENCE for one, at in self.passed.items())

    def others_refused(self, row: str, now: float) -> bool:
        return any(one != row and now - at < _REMEMBER for one, (at, _) in self.refused.items())

    def outage(self, outage: Outage, row: str, attempt: int) -> Outage:
        """Add the attempts that it cost: those of other rows and, if it is certain, earlier ones of this row. Each once."""
        rows = [one for one in self.refused if outage.certain or one != row]
        outage.spent_by = [number for one in rows for number in self.refused[one][1] if number != attempt]
        self.refused = {one: (at, []) for one, (at, _) in self.refused.items()}
        return outage


class _Shared:
    """One question for all who want to know the same at about the same time."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._accepted_at = float("-inf")
        self._refused_at = float("-inf")
        self._refusal = ""

    async def ask(self, request: Callable[[], Awaitable[object]], now: float, *, believed: float) -> bool:
        """Return True if a request of the last `believed` seconds was accepted, else send one; False if it returns that.

        Raises what it raises. Those who wait while another's request is refused are refused, too: in an outage many rows
        ask at once, and if each sent its own, the last ones would not be answered in time.
        """
        async with self._lock:
            if self._refused_at >= now:
                raise Outage(self._refusal)
            if self._accepted_at >= now - believed:
                return True
            asked_at = _now()
            try:
                accepted = await request() is not False
            except (Outage, Misconfigured) as error:
                self._refused_at, self._refusal = _now(), str(error)
                raise
            if accepted:
                self._accepted_at = asked_at
            return accepted


class _Service:
    """The checks of one service, each shared."""

    def __init__(self, checks: Checks) -> None:
        self.checks = checks
        self._key, self._right = _Shared(), _Shared()

    async def ask_key(self, now: float, *, believed: float) -> None:
        """Return if the key is good, known for at most `believed` seconds."""
        await self._key.ask(self.checks.key, now, believed=believed)

    async def ask_others(self, row: str, now: float) -> bool:
        """Return whether there was something to ask, raise Outage if it is refused; if not, one request a minute."""
        if self.checks.others is None:
            return True
        request = partial(self.checks.others, row)
        try:
            return await self._right.ask(request, now, believed=_EVIDENCE)
        except Outage as outage:
            outage.of_kind = True
            outage.probe = request
            raise


def _now() -> float:
    return asyncio.get_running_loop().time()
