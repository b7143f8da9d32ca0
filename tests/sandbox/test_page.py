"""The table of faults in docs/sandbox.md is complete, and both its columns ask for the same fault."""

import ast
import inspect
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest

from watcher.sandbox import Postgres, Sandbox
from watcher.sandbox.faults.actions import Action
from watcher.sandbox.faults.rules import Rule

PAGE = Path(__file__).parents[2] / "docs/sandbox.md"
ROWS = re.findall(r"^\| [^|]+ \| `([^`]+)` \| `curl \$CONTROL([^`]+)` \|$", PAGE.read_text(), re.MULTILINE)
ACTIONS = get_args(Action)


@pytest.fixture
def started(postgres: Postgres) -> Iterator[Sandbox]:
    with Sandbox(postgres=postgres) as sandbox:
        yield sandbox


def asked_for(rule: Rule) -> tuple[Any, ...]:
    return rule.action, rule.service, rule.method, rule.path, rule._times, rule._skip


def test_both_columns_ask_for_the_same_fault_and_all_faults_are_there(started: Sandbox) -> None:
    names = {"faults": started.faults, "hub": started.hub, "storage": started.storage}
    names |= {"realtime": started.realtime, "auth": started.auth} | {
        action.__name__: action for action in ACTIONS
    }
    found = set()
    for python, curl in ROWS:
        path, flag, body = shlex.split(curl)
        assert flag == "-d", curl
        _, kind, *action = path.split("/")
        if kind == "faults":
            rule = eval(python, names)
            asked = httpx.post(f"{started.control_url}/faults", content=body)
            assert asked.status_code == 201, curl
            here, there = started.faults.rules()
            assert asked_for(there) == asked_for(here) == asked_for(rule), curl
            found.add(type(rule.action).__name__)
            started.faults.clear()
        else:
            call = ast.parse(python, mode="eval").body
            assert isinstance(call, ast.Call)
            function = eval(ast.unparse(call.func), names)
            assert function == started.faults.actions[action[0]], python
            arguments = [ast.literal_eval(one) for one in call.args]
            named = {str(one.arg): ast.literal_eval(one.value) for one in call.keywords}
            signature = inspect.signature(function)
            assert signature.bind(*arguments, **named) == signature.bind(**json.loads(body)), curl
            found.add(action[0])
    assert found == started.faults.actions.keys() | {action.__name__ for action in ACTIONS}


def test_every_row_was_read() -> None:
    _, _, table = PAGE.read_text().partition("| fault |")
    lines = table.partition("\n\n")[0].splitlines()[2:]
    assert len(ROWS) == len(lines)
