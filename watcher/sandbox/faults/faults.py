"""Faults on demand: rules that say which requests a fault affects, and how often. Safe from any thread.

    faults.add(Answer(503), service="hub", path="/commit/", times=2)
    hold = faults.add(Hold("after"), service="hub", path="/commit/")
    hold.wait_reached()  # the commit is done, its answer held
    hold.release()

Rules apply in the order in which they were added, each to what the one before it passes on: a Delay that is added
first also delays the requests that a later rule answers. Websockets are counted and not affected; Realtime has
faults of its own.
"""

import itertools
import threading
from collections.abc import Callable, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from watcher.sandbox.faults.actions import Action
from watcher.sandbox.faults.control import control_app
from watcher.sandbox.faults.passage import Passage
from watcher.sandbox.faults.rules import Rule
from watcher.sandbox.faults.traffic import Count, Seen, Traffic


class Faults:
    """The rules, the log and the counts, and other actions by name."""

    def __init__(self) -> None:
        self.traffic = Traffic()
        self.actions: dict[str, Callable[..., Any]] = {}
        """The registered actions; plain functions run in a thread, coroutine functions on the loop."""
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
        """Add a rule and return it.

        `service` is auth, rest, storage, realtime or hub; `path` is a regular expression that is searched for in the
        decoded path without the query; None matches all. Of the matching requests the first `skip` pass, and the next
        `times` (None: all) are affected. Raises re.error for a path that is no regular expression.
        """
        with self._lock:
            rule = Rule(
                next(self._numbers), action, service=service, method=method, path=path, times=times, skip=skip
            )
            self._rules[rule.id] = rule
        return rule

    def rules(self) -> list[Rule]:
        """Return the rules, in order."""
        with self._lock:
            return list(self._rules.values())

    def remove(self, rule: Rule) -> None:
        """Remove a rule, and release what it holds."""
        with self._lock:
            self._rules.pop(rule.id, None)
        rule.release()

    def clear(self) -> None:
        """Remove all rules, and release what they hold."""
        for rule in self.rules():
            self.remove(rule)

    def register(self, name: str, action: Callable[..., Any]) -> None:
        """Let the control port call a function by name, with keyword arguments from JSON."""
        self.actions[name] = action

    def counts(self) -> list[Count]:
        """Return requests and bytes of bodies by service, method, route and caller, since the last reset."""
        return self.traffic.counts()

    def log(self) -> list[Seen]:
        """Return the requests in order of arrival, since the last reset."""
        return self.traffic.log()

    def reset(self) -> None:
        """Clear the log and the counts, and keep the rules."""
        self.traffic.reset()

    def control_app(self, more: Sequence[BaseRoute] = ()) -> Starlette:
        """Return an app with all of this, for other processes, and with `more` routes."""
        return control_app(self, more)

    def wrap(self, app: ASGIApp, service: str | Callable[[str], str]) -> ASGIApp:
        """Return the app with faults in front; `service` is its name, or returns the name for a path."""

        async def faulty(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "lifespan":
                await app(scope, receive, send)
                return
            name = service if isinstance(service, str) else service(scope["path"])
            receive, send = self.traffic.watch(name, scope, receive, send)
            await _with_rules(self.rules() if scope["type"] == "http" else [], name, app)(
                scope, receive, send
            )

        return faulty


def _with_rules(rules: list[Rule], service: str, app: ASGIApp) -> ASGIApp:
    """Return the app with these rules in front."""

    async def ruled(scope: Scope, receive: Receive, send: Send) -> None:
        for position, rule in enumerate(rules):
            if rule.take(service, scope["method"], scope["path"]):
                rest = _with_rules(rules[position + 1 :], service, app)
                await rule.action(Passage(rule, rest, scope, receive, send))
                return
        await app(scope, receive, send)

    return ruled
