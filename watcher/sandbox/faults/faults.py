"""Faults on request: rules that say which requests fare badly, how, and how often. Safe from any thread.

    faults.add(Answer(503), service="hub", path="/commit/", times=2)
    hold = faults.add(Hold("after"), service="hub", path="/commit/")
    hold.wait_reached()  # the commit has landed, its answer is kept back
    hold.release()

Rules apply in the order they were added, each to what the one before it lets through: a Delay added first
slows also the requests that a later rule answers. Websockets are counted and passed through; their faults are
Realtime's own.
"""

import itertools
import threading
from collections.abc import Callable
from typing import Any

from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from watcher.sandbox.faults.actions import (
    Action,
    Passage,
)
from watcher.sandbox.faults.control import control_app
from watcher.sandbox.faults.rules import Rule
from watcher.sandbox.faults.traffic import Count, Seen, Traffic


class Faults:
    """The rules in force, what has been counted, and actions of other kinds by name."""

    def __init__(self) -> None:
        self.traffic = Traffic()
        self.actions: dict[str, Callable[..., Any]] = {}
        """What `register` was given; plain functions run in a thread, coroutine functions on the loop."""
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._rules: dict[int, Rule] = {}

    def add(
        self,
        action: Action,
        *,
        service: str | None = None,
        method: str | None = None,
        path: str | None = None,
        times: int | None = 1,
        skip: int = 0,
    ) -> Rule:
        """Put a rule in force and return it.

        `service` is auth, rest, storage, realtime or hub; `path` a regular expression searched for in the
        decoded path, without the query; None matches all. The first `skip` that match pass, the next `times`
        are met, None meaning all. Raises re.error for a path that is no regular expression.
        """
        with self._lock:
            rule = Rule(
                next(self._numbers), action, service=service, method=method, path=path, times=times, skip=skip
            )
            self._rules[rule.id] = rule
        return rule

    def rules(self) -> list[Rule]:
        """The rules in force, in their order."""
        with self._lock:
            return list(self._rules.values())

    def remove(self, rule: Rule) -> None:
        """Put one rule out of force; what it keeps is let go."""
        with self._lock:
            self._rules.pop(rule.id, None)
        rule.release()

    def clear(self) -> None:
        """Put all rules out of force; what they keep is let go."""
        for rule in self.rules():
            self.remove(rule)

    def register(self, name: str, action: Callable[..., Any]) -> None:
        """Let the control app call a function by name, with keyword arguments from JSON."""
        self.actions[name] = action

    def counts(self) -> list[Count]:
        """Requests and body bytes by service, method, route and caller, since the last reset."""
        return self.traffic.counts()

    def log(self) -> list[Seen]:
        """The requests in the order they came, since the last reset."""
        return self.traffic.log()

    def reset(self) -> None:
        """Forget the log and the counts; rules stay."""
        self.traffic.reset()

    def control_app(self) -> Starlette:
        """All of this as JSON routes, for another process."""
        return control_app(self)

    def wrap(self, app: ASGIApp, service: str | Callable[[str], str]) -> ASGIApp:
        """The app behind the faults; `service` is its name, or says for a path whose request it is."""

        async def faulty(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "lifespan":
                await app(scope, receive, send)
                return
            name = service if isinstance(service, str) else service(scope["path"])
            receive, send = self.traffic.watch(name, scope, receive, send)
            await _meet(self.rules() if scope["type"] == "http" else [], name, app)(scope, receive, send)

        return faulty


def _meet(rules: list[Rule], service: str, app: ASGIApp) -> ASGIApp:
    """The app behind these rules."""

    async def meet(scope: Scope, receive: Receive, send: Send) -> None:
        for position, rule in enumerate(rules):
            if rule.take(service, scope["method"], scope["path"]):
                rest = _meet(rules[position + 1 :], service, app)
                await rule.action(Passage(rule, rest, scope, receive, send))
                return
        await app(scope, receive, send)

    return meet
