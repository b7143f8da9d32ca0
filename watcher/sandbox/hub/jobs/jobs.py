"""All jobs of the Hub, how they go on by themselves, and their faults. Safe from any thread.

Jobs are kept in memory: after a restart the Hub has none.
"""

import asyncio
import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from watcher.sandbox.hub.jobs.job import STAGES, Job, Stage
from watcher.sandbox.hub.jobs.spec import Spec

Mode = Literal["stand-in", "real", "nothing"]
_OUT_OF_MEMORY = 137
"""How a container ends that the kernel has killed."""
_NOT_STARTED = 125
"""How `docker run` ends if it cannot run the container."""


class Runner(Protocol):
    """Runs the program of a job."""

    modes: tuple[Mode, ...]
    """What it can do; the first is the default."""

    async def run(self, job: Job, mode: Mode, endpoint: str, log: Callable[[str], None]) -> int | None:
        """Run the job's program to its end and return its exit code; None if there is none to run.

        If it is cancelled, nothing of the program is left running.
        """


@dataclass(frozen=True)
class Timing:
    """How long jobs take by themselves, in seconds on their clock, which is `speed` times as fast as ours."""

    speed: float = 1.0
    scheduling: float = 0.0
    running: float | None = 0.0
    """How long the work of a job takes that does not run its real command; None: until it is told."""
    ending: float = 0.0
    """How long a cancelled job goes on."""

    def __post_init__(self) -> None:
        if not self.speed > 0:
            raise ValueError(f"speed must be above 0, not {self.speed}")
        if not (self.scheduling >= 0 and self.ending >= 0 and (self.running is None or self.running >= 0)):
            raise ValueError("no time can be negative")


class Jobs:
    """The jobs, by id, in the order of their creation."""

    def __init__(self, runner: Runner, now: Callable[[], str]) -> None:
        """Take what runs them, and a clock that says the time as the API does."""
        self._runner = runner
        self._now = now
        self._lock = threading.RLock()
        self._jobs: dict[str, Job] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._series = secrets.token_hex(8)
        self._made = 0
        self.reset()

    def reset(self) -> None:
        """End all faults, and go back to the default settings; jobs stay, and held ones go on."""
        with self._lock:
            self.timing = Timing()
            self.mode: Mode = self._runner.modes[0]
            self.list_lag = 0.0
            self.has_credit = True
            self._held: list[Stage] = []
            self._exit_codes: list[int] = []
            self.release()

    # Settings and faults

    def set_timing(self, **seconds: float | None) -> None:
        """Change some of `Timing`'s fields, for what begins from now on."""
        with self._lock:
            self.timing = replace(self.timing, **seconds)  # type: ignore[arg-type]  # it checks them

    def run_as(self, mode: Mode) -> None:
        """Set what a job that starts from now on runs: the stand-in, its real command, or nothing."""
        if mode not in self._runner.modes:
            raise ValueError(f"mode must be one of {', '.join(self._runner.modes)}, not {mode!r}")
        self.mode = mode

    def lag(self, seconds: float) -> None:
        """Leave a job out of lists for so many seconds after its creation."""
        self.list_lag = seconds

    def take_credit(self) -> None:
        """Refuse new jobs: the account has no credit left."""
        self.has_credit = False

    def give_credit(self) -> None:
        """Accept new jobs again."""
        self.has_credit = True

    def hold_next(self, stage: Literal["SCHEDULING", "RUNNING"], times: int = 1) -> None:
        """Keep the next jobs in a stage, beyond their time-out and without running anything, until they are released."""
        if stage not in {"SCHEDULING", "RUNNING"}:
            raise ValueError(f"stage must be SCHEDULING or RUNNING, not {stage!r}")
        with self._lock:
            self._held += [stage] * times

    def exit_next(self, code: int, times: int = 1) -> None:
        """Let the next jobs that start end with an exit code; the stand-in does so after its checks."""
        with self._lock:
            self._exit_codes += [code] * times

    def release(self, job: str | None = None) -> None:
        """Let a held job go on, or all that are."""
        for one in [self.find(job)] if job else self.all():
            one.held = None
            self._call(one.released.set)

    def set_stage(self, job: str, stage: Stage, message: str | None = None) -> None:
        """Put a job into a stage; LookupError for an unknown one. Its program starts, goes on or is ended accordingly."""
        if stage not in STAGES:
            raise ValueError(f"stage must be one of {', '.join(STAGES)}, not {stage!r}")
        one = self.find(job)
        self._move(one, stage, message)
        if one.ended:
            self._end(one)
        elif stage != "SCHEDULING":
            self._call(one.begun.set)

    def delete(self, job: str) -> None:
        """Remove a job, as if there had never been one; LookupError for an unknown one."""
        one = self.find(job)
        self._move(one, "DELETED")
        self._end(one)
        with self._lock:
            del self._jobs[job]

    def clear(self) -> None:
        """Remove all jobs."""
        for job in self.all():
            self.delete(job.id)

    # What the routes use

    def find(self, job: str) -> Job:
        """Return a job; raises LookupError."""
        with self._lock:
            if job not in self._jobs:
                raise LookupError("no such job")
            return self._jobs[job]

    def all(self) -> list[Job]:
        """Return all jobs, oldest first."""
        with self._lock:
            return list(self._jobs.values())

    def listed(self) -> list[Job]:
        """Return the jobs that a list shows, newest first."""
        latest = time.monotonic() - self.list_lag
        return [job for job in reversed(self.all()) if job.created <= latest]

    def create(
        self, namespace: str, owner_type: Literal["user", "org"], author: str, spec: Spec, endpoint: str
    ) -> Job:
        """Make a job, which goes on by itself; to be called on the loop. `endpoint` is the Hub's URL for its program."""
        with self._lock:
            self._made += 1
            job = Job(f"{self._series}{self._made:08x}", namespace, owner_type, author, spec, self._now())
            job.held = self._held.pop(0) if self._held else None
            self._jobs[job.id] = job
        self._loop = asyncio.get_running_loop()
        task = asyncio.create_task(self._live(job, endpoint))
        self._tasks[job.id] = task
        task.add_done_callback(lambda _: self._tasks.pop(job.id))
        return job

    def cancel(self, job: Job) -> None:
        """End a job, after `Timing.ending` seconds; one that has ended stays as it is. To be called on the loop."""
        if not self.timing.ending:
            self.set_stage(job.id, "CANCELED")
            return
        asyncio.get_running_loop().call_later(
            self.timing.ending / self.timing.speed, lambda: self._cancel_later(job)
        )

    def _cancel_later(self, job: Job) -> None:
        with contextlib.suppress(LookupError):
            self.set_stage(job.id, "CANCELED")

    async def close(self) -> None:
        """End all programs; to be called on the loop."""
        tasks = list(self._tasks.values())
        for task in tasks:
            _cancel(task)
        await asyncio.gather(*tasks, return_exceptions=True)

    # A job's life

    async def _live(self, job: Job, endpoint: str) -> None:
        held = job.held == "SCHEDULING"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if held else self.timing.scheduling / self.timing.speed):
                waits = [asyncio.ensure_future(job.begun.wait())]
                if held:
                    waits.append(asyncio.ensure_future(job.released.wait()))
                await _first(waits)
        if job.stage == "SCHEDULING":
            self._move(job, "RUNNING")
        if job.held == "RUNNING":
            await job.released.wait()
        with self._lock:
            job.exit_code = self._exit_codes.pop(0) if self._exit_codes else None
            job.work = None if self.timing.running is None else self.timing.running / self.timing.speed
        try:
            async with asyncio.timeout(job.spec.seconds / self.timing.speed):
                code = await self._run(job, endpoint)
        except TimeoutError:
            self._move(job, "ERROR", "Job timeout")
        else:
            self._move(job, *_outcome(code))

    async def _run(self, job: Job, endpoint: str) -> int:
        try:
            code = await self._runner.run(job, self.mode, endpoint, lambda line: self._log(job, line))
        except OSError as error:
            self._log(job, f"The job could not be started: {error}")
            return _NOT_STARTED
        if code is not None:
            return code
        if job.work is None:
            await asyncio.Event().wait()
        else:
            await asyncio.sleep(job.work)
        return job.exit_code or 0

    def _move(self, job: Job, stage: Stage, message: str | None = None) -> None:
        """Put a job into a stage; one that has ended can only be deleted."""
        with self._lock:
            if job.ended and stage != "DELETED":
                return
            job.stage, job.message = stage, message
            if stage in {"RUNNING", "UPDATING"} and job.started is None:
                job.started, job.started_at = time.monotonic(), self._now()
                self._log(job, f"===== Job started at {job.started_at[:19].replace('T', ' ')} =====")
            if job.ended and job.finished is None:
                job.finished, job.finished_at = time.monotonic(), self._now()

    def _log(self, job: Job, line: str) -> None:
        job.logs.append((self._now(), line))

    def _end(self, job: Job) -> None:
        """End the program of a job that has ended."""
        if (task := self._tasks.get(job.id)) is not None:
            self._call(lambda: _cancel(task))

    def _call(self, function: Callable[[], Any]) -> None:
        """Call a function on the loop, from any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function)


def _cancel(task: asyncio.Task[None]) -> None:
    """Cancel a task, once: a second time would interrupt how it ends its program."""
    if not task.cancelling():
        task.cancel()


async def _first(waits: Sequence[asyncio.Future[Any]]) -> None:
    """Wait for the first of them, and leave none waiting."""
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waits:
            one.cancel()


def _outcome(code: int) -> tuple[Stage, str | None]:
    """Return the stage and message of a job whose program has ended."""
    if code == 0:
        return "COMPLETED", None
    reason = " Reason: OOMKilled" if code == _OUT_OF_MEMORY else ""
    return "ERROR", f"Job failed with exit code: {code}.{reason}"
