"""The control port: faults over HTTP, for other processes.

    POST   /faults              {"action": "answer", "status": 503, "service": "hub", "path": "/commit/"}
    GET    /faults              the rules                  DELETE /faults         removes all
    DELETE /faults/{id}         removes one
    GET    /holds/{id}?wait=5   how often it was reached; waits up to so many seconds for the first time
    POST   /holds/{id}/release
    GET    /counts, GET /log    DELETE /log                clears both
    POST   /actions/{name}      with its keyword arguments as a JSON object
    GET    /mails               a page with the mails that the project would have sent

Errors are in `error`, with status 400 or 404.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, cast

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from watcher.sandbox.faults.actions import (
    Answer,
    Cache,
    Cut,
    Hang,
    Hold,
    Late,
    LoseAnswer,
    Truncate,
)
from watcher.sandbox.faults.link import Delay, Rate, RoundTrip
from watcher.sandbox.faults.rules import Rule

if TYPE_CHECKING:
    from watcher.sandbox.faults import Faults  # which imports this module

_ACTIONS = {
    "answer": Answer,
    "delay": Delay,
    "round_trip": RoundTrip,
    "rate": Rate,
    "cut": Cut,
    "truncate": Truncate,
    "cache": Cache,
    "hang": Hang,
    "lose_answer": LoseAnswer,
    "hold": Hold,
    "late": Late,
}
_MATCH = {"service", "method", "path", "times", "skip"}


def control_app(faults: Faults, more: Sequence[BaseRoute] = ()) -> Starlette:
    """Return the app; it needs no key, since it listens on loopback only."""
    app = Starlette(
        routes=[
            Route("/faults", _add, methods=["POST"]),
            Route("/faults", _list, methods=["GET"]),
            Route("/faults", _clear, methods=["DELETE"]),
            Route("/faults/{id:int}", _remove, methods=["DELETE"]),
            Route("/holds/{id:int}", _hold, methods=["GET"]),
            Route("/holds/{id:int}/release", _release, methods=["POST"]),
            Route("/counts", _counts, methods=["GET"]),
            Route("/log", _log, methods=["GET"]),
            Route("/log", _reset, methods=["DELETE"]),
            Route("/actions/{name}", _run, methods=["POST"]),
            *more,
        ],
        exception_handlers={HTTPException: _error},
    )
    app.state.faults = faults
    return app


async def _add(request: Request) -> Response:
    fields = await _json_object(request)
    name = fields.pop("action", None)
    if name not in _ACTIONS:
        raise HTTPException(400, f"action must be one of {', '.join(_ACTIONS)}, not {name!r}")
    match = {key: fields.pop(key) for key in _MATCH & fields.keys()}
    try:
        added = _faults(request).add(_ACTIONS[name](**fields), **match)
    except (TypeError, ValueError, re.error) as error:
        raise HTTPException(400, f"{name}: {error}") from error
    return JSONResponse(_rule_json(added), 201)


async def _list(request: Request) -> Response:
    return JSONResponse([_rule_json(rule) for rule in _faults(request).rules()])


async def _clear(request: Request) -> Response:
    _faults(request).clear()
    return Response(status_code=204)


async def _remove(request: Request) -> Response:
    _faults(request).remove(_rule(request))
    return Response(status_code=204)


async def _hold(request: Request) -> Response:
    rule = _rule(request)
    try:
        wait = float(request.query_params.get("wait", 0))
    except ValueError as error:
        raise HTTPException(400, "wait is a number of seconds") from error
    with contextlib.suppress(TimeoutError):  # the answer has the number
        await run_in_threadpool(rule.wait_reached, wait)
    return JSONResponse(_rule_json(rule))


async def _release(request: Request) -> Response:
    rule = _rule(request)
    rule.release()
    return JSONResponse(_rule_json(rule))


async def _counts(request: Request) -> Response:
    return JSONResponse([asdict(count) for count in _faults(request).counts()])


async def _log(request: Request) -> Response:
    return JSONResponse([asdict(seen) for seen in _faults(request).log()])


async def _reset(request: Request) -> Response:
    _faults(request).reset()
    return Response(status_code=204)


async def _run(request: Request) -> Response:
    actions = _faults(request).actions
    name = request.path_params["name"]
    if name not in actions:
        raise HTTPException(
            404, f"there is no action {name!r}; there are: {', '.join(sorted(actions)) or 'none'}"
        )
    fields = await _json_object(request)
    try:
        if inspect.iscoroutinefunction(actions[name]):
            result = await actions[name](**fields)
        else:
            result = await run_in_threadpool(actions[name], **fields)
    except (TypeError, ValueError, LookupError) as error:
        raise HTTPException(400, f"{name}: {error}") from error
    return JSONResponse(result)


async def _error(_: Request, error: Exception) -> Response:
    refusal = cast("HTTPException", error)
    return JSONResponse({"error": refusal.detail}, refusal.status_code)


async def _json_object(request: Request) -> dict[str, Any]:
    try:
        fields = json.loads(await request.body() or b"{}")
    except ValueError as error:
        raise HTTPException(400, f"the body is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise HTTPException(400, "the body must be a JSON object")
    return fields


def _faults(request: Request) -> Faults:
    return cast("Faults", request.app.state.faults)


def _rule(request: Request) -> Rule:
    number = request.path_params["id"]
    for rule in _faults(request).rules():
        if rule.id == number:
            return rule
    raise HTTPException(404, f"there is no fault {number}")


def _rule_json(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.id,
        "action": type(rule.action).__name__,
        "service": rule.service,
        "method": rule.method,
        "path": rule.path,
        "reached": rule.reached,
        "finished": rule.finished,
        "released": rule.released,
    }
