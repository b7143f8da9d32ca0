"""The Hub's routes for jobs: run, list, inspect, cancel, logs and prices."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Literal

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from watcher.sandbox.absent import STATUS, Absent
from watcher.sandbox.hub.access import User
from watcher.sandbox.hub.errors import HubError, bad_request, json_object, revision_not_found
from watcher.sandbox.hub.jobs.hardware import HARDWARE
from watcher.sandbox.hub.jobs.job import STAGES, Job
from watcher.sandbox.hub.jobs.spec import read
from watcher.sandbox.hub.state import find, page, state
from watcher.sandbox.hub.store import Commit, Kind, Repo

_POLL = 0.05
"""Seconds between two looks for new lines of a log that is followed."""
_KEEP_ALIVE = 30.0


async def _run(request: Request) -> Response:
    user, namespace = _allowed(request)
    hub = state(request)
    if hub.jobs.mode == "real" and "origin" in request.headers:
        raise HubError(403, "The sandbox does not run commands for a page in a browser.")
    hub.knobs.take_action("job")
    if not hub.jobs.has_credit:
        raise HubError(
            402, "Pre-paid credit balance is insufficient - add more credits to your account to use Jobs."
        )

    def commit(kind: Kind, name: str, revision: str) -> tuple[Repo, Commit]:
        repo = find(request, user, kind, name)
        found = hub.store.find_commit(repo, revision)
        if found is None:
            raise revision_not_found(revision)
        return repo, found

    spec = read(await json_object(request), commit)
    owner: Literal["user", "org"] = "user" if namespace == user.name else "org"
    # Not the URL that the caller used, which may be that of a proxy: the socket's own.
    host, port = request.scope["server"]
    job = hub.jobs.create(namespace, owner, user.name, spec, f"http://{host}:{port}")
    return JSONResponse(job.shown(hub.jobs.timing.speed))


async def _list(request: Request) -> Response:
    _, namespace = _allowed(request)
    jobs = state(request).jobs
    stages = request.query_params.getlist("stage")
    if not set(stages) <= set(STAGES):
        raise bad_request(f'"stage" must be one of [{", ".join(STAGES)}]')
    labels = [label.partition("=")[::2] for label in request.query_params.getlist("label")]
    found = [
        job
        for job in jobs.listed()
        if job.namespace == namespace
        and (not stages or job.stage in stages)
        and all(job.spec.labels.get(name) == value for name, value in labels)
    ]
    chosen, headers = page(request, found)
    return JSONResponse([job.shown(jobs.timing.speed) for job in chosen], headers=headers)


async def _inspect(request: Request) -> Response:
    job = _job(request)
    return JSONResponse(job.shown(state(request).jobs.timing.speed))


async def _cancel(request: Request) -> Response:
    job = _job(request)
    state(request).jobs.cancel(job)
    return JSONResponse(job.shown(state(request).jobs.timing.speed))


async def _logs(request: Request) -> Response:
    job = _job(request)
    try:
        tail = int(request.query_params.get("tail", "-1"))
    except ValueError as error:
        raise bad_request('"tail" must be a number') from error
    first = 0 if tail < 0 else max(0, len(job.logs) - tail)
    return StreamingResponse(_events(job, first), media_type="text/event-stream")


async def _events(job: Job, first: int) -> AsyncIterator[str]:
    """Yield the lines of a log from `first` on, also those to come, until the job has ended."""
    quiet = 0.0
    while True:
        ended = job.ended  # before the lines: what was written until then is sent
        for timestamp, line in job.logs[first:]:
            yield f"data: {json.dumps({'timestamp': timestamp, 'data': line})}\n\n"
            first, quiet = first + 1, 0.0
        if ended:
            return
        await asyncio.sleep(_POLL)
        quiet += _POLL
        if quiet >= _KEEP_ALIVE:
            quiet = 0.0
            yield ": keep-alive\n\n"


async def _hardware(_: Request) -> Response:
    return JSONResponse(HARDWARE)


async def _missing(_: Request) -> Response:
    raise HubError(STATUS, Absent.HUB_JOB_ROUTES.sentence)


def _allowed(request: Request) -> tuple[User, str]:
    """Return the caller, and the namespace of the path if the caller may use its jobs."""
    hub, namespace = state(request), request.path_params["namespace"]
    user = hub.access.user(request)
    if user is None:
        raise HubError(401, "Invalid username or password.")
    if not hub.access.is_namespace(namespace):
        raise HubError(404, "This user or organization does not exist")
    allowed = user.may_see_jobs if request.method == "GET" else user.may_run_jobs
    if not allowed(namespace):
        raise HubError(403, "You don't have the required permissions to use Jobs in this namespace")
    return user, namespace


def _job(request: Request) -> Job:
    _, namespace = _allowed(request)
    try:
        job = state(request).jobs.find(request.path_params["job"])
    except LookupError as error:
        raise HubError(404, "Job not found") from error
    if job.namespace != namespace:
        raise HubError(404, "Job not found")
    return job


ROUTES = [
    Route("/api/jobs/hardware", _hardware),
    Route("/api/jobs/{namespace}", _list),
    Route("/api/jobs/{namespace}", _run, methods=["POST"]),
    Route("/api/jobs/{namespace}/{job}", _inspect),
    Route("/api/jobs/{namespace}/{job}/cancel", _cancel, methods=["POST"]),
    Route("/api/jobs/{namespace}/{job}/logs", _logs),
    Route("/api/jobs/{namespace}/{job}/{rest:path}", _missing, methods=["GET", "POST", "PUT", "DELETE"]),
]
