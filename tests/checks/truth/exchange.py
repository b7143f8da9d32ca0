"""Exchanges: a request, who sends it, and what the real service answers. One is one line of JSON.

docs/sandbox.md says what the fields mean. In a text, `${name}` stands for what differs between projects: a user's id, the
name of this run, a URL, or what an earlier exchange has kept. In an answer, what is generated is masked the same way.
"""

import base64
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from string import Template
from typing import Any

import httpx

FOLDER = Path(__file__).with_name("exchanges")

# What is masked in answers, in this order.
_GENERATED = (
    ("${token}", re.compile(r"[\w-]{8,}\.[\w-]{8,}\.[\w-]{8,}")),
    ("${uuid}", re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")),
    ("${time}", re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)")),
    ("${date}", re.compile(r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT")),
    ("${digest}", re.compile(r"\b([0-9a-f]{64}|[0-9a-f]{56}|[0-9a-f]{40}|[0-9a-f]{32}|[0-9a-f]{24})\b")),
)
_MASKED = ("refresh_token", "expires_at", "usedStorage", "href")
"""Fields whose values are generated and have no form of their own."""
_NUMBERS = {"x-total-count", "link"}
HEADERS = (
    *("content-type", "content-range", "content-profile", "preference-applied", "location", "accept-ranges"),
    *("content-disposition", "proxy-status", "www-authenticate", "retry-after", "x-error-code"),
    *("x-error-message", "x-repo-commit", "x-linked-size", "x-linked-etag", "x-total-count", "link"),
)
"""The headers that are compared; a gateway in front of the real services adds many others."""

Answer = dict[str, Any]
"""The status, the headers, and the body: `json`, or `text`."""


@dataclass(frozen=True)
class Exchange:
    """One exchange; `answer` is what the real service answers, None where it was never seen."""

    name: str
    service: str
    method: str
    path: str
    caller: str = "anon"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    keep: Mapping[str, str] = field(default_factory=dict)
    needs: str = ""
    source: str = ""
    answer: Answer | None = None

    @classmethod
    def parse(cls, line: str) -> "Exchange":
        """Parse one line."""
        fields = json.loads(line)
        request = fields.pop("request")
        method, path = request.pop("line").split(" ", 1)
        return cls(method=method, path=path, caller=fields.pop("as", "anon"), **request, **fields)

    def content(self, values: Mapping[str, str]) -> tuple[bytes | Iterator[bytes], dict[str, str]]:
        """Return the body, and the headers that say what it is. One that is `chunked` says no length."""
        match self.body:
            case None:
                return b"", {}
            case {"base64": str(text)} if len(self.body) == 1:
                return base64.b64decode(text), {}
            case {"bytes": int(size)} if len(self.body) == 1:
                return b"\x00" * size, {}
            case {"chunked": int(size)} if len(self.body) == 1:
                return iter([b"\x00" * size]), {}
            case str(text):
                return filled(text, values).encode(), {"content-type": "text/plain"}
        return filled(json.dumps(self.body), values).encode(), {"content-type": "application/json"}


def filled(text: str, values: Mapping[str, str]) -> str:
    """Return a text with values in place of their names."""
    return Template(text).safe_substitute(values)


def read(name: str) -> list[Exchange]:
    """Return the exchanges of one file, in order."""
    return [Exchange.parse(line) for line in (FOLDER / f"{name}.jsonl").read_text().splitlines() if line]


def plain(answer: httpx.Response, values: Mapping[str, str]) -> Answer:
    """Return an answer in the form in which answers are compared."""
    names = {value: name for name, value in values.items() if len(value) > 3}
    shown: Answer = {"status": answer.status_code, "headers": {}}
    for name in HEADERS:
        if name in answer.headers:
            value = masked(answer.headers[name], names)
            if name == "location" and value.startswith("http"):
                value = "${elsewhere}"  # another server, of which only the service knows
            shown["headers"][name] = re.sub(r"\d+", "${number}", value) if name in _NUMBERS else value
    try:
        body = json.loads(answer.content)
    except ValueError:
        return {**shown, "text": masked(answer.content.decode("latin-1")[:2000], names)}
    return {**shown, "json": masked(body, names)}


def masked(value: Any, names: Mapping[str, str], field: str = "") -> Any:
    """Return a value with names in place of what differs between projects and runs."""
    match value:
        case dict():
            return {masked(key, names): masked(one, names, key) for key, one in value.items()}
        case list():
            return [masked(one, names, field) for one in value]
        case str() | int() if field in _MASKED:
            return f"${{{field}}}"
        case str():
            for known in sorted(names, key=len, reverse=True):
                value = value.replace(known, f"${{{names[known]}}}")
            return reduce(lambda text, one: one[1].sub(one[0], text), _GENERATED, value)
    return value


def kept(exchange: Exchange, answer: httpx.Response) -> dict[str, str]:
    """Return what later exchanges need of this answer; nothing if it is not there."""
    found = {}
    for name, path in exchange.keep.items():
        if path.startswith("header:"):
            found[name] = answer.headers.get(path.removeprefix("header:"), "")
            continue
        try:
            found[name] = str(reduce(_step, path.split("."), answer.json()))
        except (ValueError, KeyError, IndexError, TypeError):
            found[name] = ""
    return found


def _step(value: Any, key: str) -> Any:
    return value[int(key)] if key.isdigit() else value[key]


def differences(there: Any, here: Any, where: str = "") -> Iterator[str]:
    """Yield where two answers differ: `here` is the sandbox's."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in [*there, *(key for key in here if key not in there)]:
            place = f"{where}.{key}" if where else str(key)
            yield from differences(there.get(key, _NOTHING), here.get(key, _NOTHING), place)
    elif isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        for index, (one, other) in enumerate(zip(there, here, strict=True)):
            yield from differences(one, other, f"{where}[{index}]")
    elif type(there) is not type(here) or there != here:
        yield f"{where}: {_shown(there)}, in the sandbox {_shown(here)}"


_NOTHING = object()


def _shown(value: Any) -> str:
    return "nothing" if value is _NOTHING else json.dumps(value, ensure_ascii=False)[:300]
