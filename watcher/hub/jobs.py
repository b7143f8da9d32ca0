"""Jobs on the Hub: commands that it runs for us, and that cost money.

A request to run a job is never repeated here: its answer can be lost with the job made, and the Hub has no key that would
make one job of two requests. Who runs a job lists its labels first, and again after a request whose answer is not known.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Final, TypeVar

import httpx2
from huggingface_hub import JobHardwareInfo, JobInfo, JobStage, Volume
from huggingface_hub.errors import HfHubHTTPError

from watcher.errors import Outage, Permanent, Transient
from watcher.hub.client import at_once
from watcher.hub.errors import reason_of
from watcher.hub.repos import Hub
from watcher.hub.threads import in_thread

T = TypeVar("T")

_ENDED: Final = frozenset({"COMPLETED", "ERROR", "CANCELED", "DELETED"})
"""Every other stage is one of a job that costs money or will; the Hub has some that its client does not know."""
_MINUTES: Final = {"second": 1 / 60, "minute": 1.0, "hour": 60.0}


@dataclass(frozen=True, slots=True)
class JobSpec:
    """What a job does, on which machine, and for how long."""

    image: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    """Whoever may see the job can read it."""
    secrets: Mapping[str, str] = field(repr=False)
    """Environment variables that the Hub does not show again."""
    flavor: str
    """The kind of machine, one of `Jobs.hardware`."""
    seconds: int
    """The time-out, from its start."""
    labels: Mapping[str, str]
    """Names and values of at most 100 characters of `[A-Za-z0-9_-]`."""
    repo_id: str
    """The model repo that the job finds at `mount_path`, read-only and as of `revision`."""
    revision: str
    mount_path: str


@dataclass(frozen=True, slots=True)
class Job:
    """A job as the Hub describes it."""

    id: str
    url: str
    stage: str
    message: str
    """Why it is in that stage, in the Hub's words; often empty."""
    created_at: datetime
    labels: Mapping[str, str]
    flavor: str
    seconds: int | None
    """How long it has run, or ran, in seconds: what is paid for. None if it has not started."""

    @property
    def ended(self) -> bool:
        """Whether it will never run again."""
        return self.stage in _ENDED


@dataclass(frozen=True, slots=True)
class Machine:
    """A kind of machine that jobs run on, and its price."""

    flavor: str
    title: str
    micro_usd_per_minute: int
    """In millionths of a dollar, rounded up."""

    @property
    def usd_per_minute(self) -> Decimal:
        """In dollars."""
        return Decimal(self.micro_usd_per_minute) / 1_000_000


class Jobs:
    """The jobs of the Hub's namespace, used with the Hub's token.

    Requests run in threads; see `in_thread` about cancellation. They raise Outage, Permanent or Transient.
    """

    def __init__(self, hub: Hub) -> None:
        """Sends no request."""
        self._hub = hub
        self._api = hub.api

    @property
    def namespace(self) -> str:
        """The namespace that pays for the jobs: the hub's, known after its `check_token`."""
        return self._hub.namespace

    async def turn(self) -> None:
        """Wait until the rate limit allows a request, to be called before it is written down that a job is requested."""
        await self._hub.turn()

    async def run_job(self, spec: JobSpec) -> Job:
        """Run a job, and return it; sent at once, since it must not be requested long after that was written down.

        Raises Outage without credit or the right to run jobs, Permanent for a spec that the Hub does not accept: there is no
        job then. Whatever else it raises, there may be a job all the same, up to a minute later.
        """
        return await self._ask(partial(self._run, spec))

    def _run(self, spec: JobSpec) -> Job:
        volume = Volume(
            type="model",
            source=spec.repo_id,
            revision=spec.revision,
            mount_path=spec.mount_path,
            read_only=True,
        )
        try:
            with at_once():
                made = self._api.run_job(
                    image=spec.image,
                    command=list(spec.command),
                    env=dict(spec.environment),
                    secrets=dict(spec.secrets),
                    flavor=spec.flavor,
                    timeout=spec.seconds,
                    labels=dict(spec.labels),
                    volumes=[volume],
                    namespace=self.namespace,
                )
        except HfHubHTTPError as error:
            if error.response.status_code in {httpx2.codes.BAD_REQUEST, httpx2.codes.UNPROCESSABLE_CONTENT}:
                raise Permanent("training_refused", f"The Hub refused the job: {reason_of(error)}") from error
            raise
        return _job(made)

    async def list_jobs(self, labels: Mapping[str, str]) -> tuple[Job, ...]:
        """Return all jobs with these labels, oldest first. A job that was just made may not be among them yet."""
        return await self._ask(partial(self._list, labels))

    def _list(self, labels: Mapping[str, str], stages: list[JobStage | str] | None = None) -> tuple[Job, ...]:
        found = self._api.list_jobs(labels=dict(labels), status=stages, namespace=self.namespace)
        return tuple(sorted(map(_job, found), key=lambda job: (job.created_at, job.id)))

    async def list_running(self, labels: Mapping[str, str]) -> tuple[Job, ...]:
        """Return the jobs with these labels that wait for a machine or run; other stages are left out."""
        return await self._ask(partial(self._list, labels, [JobStage.SCHEDULING, JobStage.RUNNING]))

    async def inspect(self, job_id: str) -> Job | None:
        """Return a job; None if there is none of that id."""
        return await self._ask(partial(self._inspect, job_id))

    def _inspect(self, job_id: str) -> Job | None:
        try:
            return _job(self._api.inspect_job(job_id=job_id, namespace=self.namespace))
        except HfHubHTTPError as error:
            if error.response.status_code == httpx2.codes.NOT_FOUND:
                return None
            raise

    async def cancel(self, job_id: str) -> None:
        """Ask for a job's end, which may come later; nothing if it has ended or is gone."""
        await self._ask(partial(self._cancel, job_id))

    def _cancel(self, job_id: str) -> None:
        try:
            self._api.cancel_job(job_id=job_id, namespace=self.namespace)
        except HfHubHTTPError as error:
            if error.response.status_code == httpx2.codes.NOT_FOUND:
                return
            if error.response.status_code not in {httpx2.codes.BAD_REQUEST, httpx2.codes.CONFLICT}:
                raise
            # How the Hub answers for a job that has ended is not documented: its stage is.
            job = self._inspect(job_id)
            if job is not None and not job.ended:
                raise

    async def last_lines(self, job_id: str, lines: int) -> tuple[str, ...]:
        """Return the last lines that a job printed; none if it is gone. Takes 5 s for a job that runs."""
        return await self._ask(partial(self._last_lines, job_id, lines))

    def _last_lines(self, job_id: str, lines: int) -> tuple[str, ...]:
        try:
            printed = self._api.fetch_job_logs(job_id=job_id, namespace=self.namespace, tail=lines)
            return tuple(deque(printed, maxlen=lines))
        except HfHubHTTPError as error:
            if error.response.status_code == httpx2.codes.NOT_FOUND:
                return ()
            raise

    async def hardware(self) -> dict[str, Machine]:
        """Return the machines that jobs can run on, by flavor; one whose price has an unknown unit is left out."""
        return await self._ask(lambda: _machines(self._api.list_jobs_hardware()))

    async def _ask(self, operation: Callable[[], T]) -> T:
        return await in_thread(partial(_understood, operation))


def _understood(operation: Callable[[], T]) -> T:
    """Return what a request to the Jobs API returns; raises Outage if the Hub refuses this token everything there."""
    try:
        return operation()
    except HfHubHTTPError as error:
        if (outage := _outage(error)) is not None:
            raise outage from error
        raise
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise Transient("The Hub's response about jobs is malformed.") from error


def _outage(error: HfHubHTTPError) -> Outage | None:
    """Return the outage that a refusal shows: nothing that it can depend on is one row's."""
    reason = reason_of(error)
    match error.response.status_code:
        case httpx2.codes.UNAUTHORIZED:
            what = f"The Hub refused the token for jobs: {reason}. Set a valid token that may run jobs."
        case httpx2.codes.PAYMENT_REQUIRED:
            what = f"The Hub runs no jobs for this account: {reason}. Add credits to it."
        case httpx2.codes.FORBIDDEN:
            what = f"The token may not run jobs: {reason}. Set a token that may run jobs in the namespace."
        case httpx2.codes.NOT_FOUND:
            what = f"The Hub knows no jobs of this namespace: {reason}. Check HF_NAMESPACE and the token's rights."
        case _:
            return None
    return Outage(what, of_kind=True)


def _job(info: JobInfo) -> Job:
    if info.created_at is None:
        raise ValueError("a job without a time")
    return Job(
        id=info.id,
        url=info.url,
        stage=str(info.status.stage),
        message=info.status.message or "",
        created_at=info.created_at,
        labels=dict(info.labels or {}),
        flavor=str(info.flavor or ""),
        seconds=info.durations.running_secs if info.durations else None,
    )


def _machines(listed: Iterable[JobHardwareInfo]) -> dict[str, Machine]:
    return {
        one.name: Machine(
            flavor=one.name,
            title=one.pretty_name,
            micro_usd_per_minute=math.ceil(one.unit_cost_micro_usd / _MINUTES[one.unit_label]),
        )
        for one in listed
        if one.unit_label in _MINUTES
    }
