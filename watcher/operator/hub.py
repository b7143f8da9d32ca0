"""What the operator's commands ask the Hub: the prices of machines, and the last lines of a job's log.

The Hub's client takes a while to import, so that is done when the Hub is asked.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from watcher.errors import Misconfigured
from watcher.operator.money import Price, Prices
from watcher.process.log import configure
from watcher.process.text import storable
from watcher.settings import settings

if TYPE_CHECKING:
    from watcher.hub.jobs import Jobs

T = TypeVar("T")

LINES = 20
"""Lines of a job's log that are shown."""
# The job's token may be none of this environment's secrets.
_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{8,}")


class NoToken(Misconfigured):
    """HF_TOKEN is not set: some commands then do without the Hub."""


def prices() -> Prices:
    """Return the machines that the Hub lists, the cheapest first; raises NoToken, Misconfigured, Transient or Outage."""
    return _ask(None, prices_of)


async def prices_of(jobs: "Jobs") -> Prices:
    """As `prices`."""
    listed = await jobs.hardware()
    machines = sorted(listed.values(), key=lambda machine: (machine.micro_usd_per_minute, machine.flavor))
    return {machine.flavor: Price(machine.title, machine.usd_per_minute) for machine in machines}


def last_lines(namespace: str, job: str) -> list[str]:
    """Return the last lines of a job's log, each as plain text without secrets; raises as `prices` does."""
    printed = _ask(namespace, lambda jobs: jobs.last_lines(job, LINES))
    return [line for printed_line in printed if (line := _TOKEN.sub("[secret]", storable(printed_line)))]


def _ask(namespace: str | None, question: Callable[["Jobs"], Awaitable[T]]) -> T:
    loaded = settings.load_operator()
    configure("ERROR", "console", loaded.secrets, settings.environment())
    if loaded.hf_token is None:
        raise NoToken("HF_TOKEN is not set: set it to a Hugging Face token, so that the Hub can be asked.")
    token = loaded.hf_token.get_secret_value()
    from watcher.hub.jobs import Jobs
    from watcher.hub.repos import Hub

    async def answer() -> T:
        hub = Hub(endpoint=loaded.hf_endpoint, token=token, namespace=namespace)
        try:
            return await question(Jobs(hub))
        finally:
            hub.close()

    return asyncio.run(answer())
