"""What may be claimed while an outage is in effect: by which kind of work it is tried, and when."""

import asyncio
import math

import pytest

from watcher.engine.outages import Outages, Refusal
from watcher.engine.room import Room, find_room
from watcher.engine.slots import Slots

pytestmark = pytest.mark.usefixtures("no_waiting")


class Services:
    """Let every refusal be tried, or none, and remember which they were asked about."""

    def __init__(self) -> None:
        self.asked: list[Refusal] = []
        self.well = True

    async def may_be_over(self, refusal: Refusal) -> bool:
        self.asked.append(refusal)
        return self.well


@pytest.fixture
def services() -> Services:
    return Services()


async def room(outages: Outages, services: Services) -> Room:
    sizes = {"publish": 4, "erase": 2, "sweep": 1}
    return await find_room(
        Slots(sizes, on_end=lambda: None, with_extra=["publish"]), outages, services.may_be_over
    )


async def test_only_the_kind_that_met_an_outage_of_every_kind_tries_it(
    outages: Outages, services: Services
) -> None:
    outages.begin_refusal("No.", met_by="publish")
    waiting = await room(outages, services)
    assert (waiting.slots, waiting.tested) == ({}, [])
    assert 0 < waiting.wait <= 1
    assert services.asked == [], "Not before its wait is over."
    await asyncio.sleep(1)
    trial = await room(outages, services)
    assert (trial.slots, trial.extra, trial.wait) == ({"publish": 1}, [], math.inf)
    assert trial.tested == services.asked == outages.of("sweep")


async def test_any_kind_tries_an_outage_that_the_claim_itself_met(
    outages: Outages, services: Services
) -> None:
    outages.begin_refusal("No.")
    await asyncio.sleep(1)
    trial = await room(outages, services)
    assert trial.slots == {"publish": 1, "erase": 1, "sweep": 1}
    assert len(services.asked) == 1, "One question serves all kinds."


async def test_a_kind_that_two_outages_concern_waits_for_both(outages: Outages, services: Services) -> None:
    outages.begin_refusal("The token is refused.", met_by="publish")
    await asyncio.sleep(1)
    outages.begin_refusal("The quota is full.", kind="publish", met_by="publish")
    for _ in range(3):
        waiting = await room(outages, services)
        assert (waiting.slots, waiting.tested, services.asked) == ({}, [], [])
        assert 0 < waiting.wait <= 1, (
            "No sooner: the other one's is over, and would be asked about without a pause."
        )
    await asyncio.sleep(1)
    trial = await room(outages, services)
    assert (trial.slots, trial.tested) == ({"publish": 1}, outages.of("publish"))
    assert len(trial.tested) == 2


async def test_none_is_tested_where_one_of_two_lasts(outages: Outages) -> None:
    outages.begin_refusal("The token is refused.", met_by="publish")
    outages.begin_refusal("The quota is full.", kind="publish", met_by="publish")
    await asyncio.sleep(1)

    async def may_be_over(refusal: Refusal) -> bool:
        return refusal.kind is None

    slots = Slots({"publish": 4}, on_end=lambda: None)
    found = await find_room(slots, outages, may_be_over)
    assert (found.slots, found.tested) == ({}, [])


async def test_an_outages_own_probe_is_not_believed_for_ever(outages: Outages) -> None:
    outages.begin_refusal("No.", kind="publish", met_by="publish")
    [refusal] = outages.of("publish")
    assert [refusal.veto() for _ in range(6)] == [False, False, True, False, False, True]
