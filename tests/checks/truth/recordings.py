"""The recordings of tests/sandbox, played to any project: those of Storage, and that of a publication on the Hub.

Storage's were made with two users, whose ids are replaced. Left out is what would change more than this run's own
things: what was done to the bucket itself, and with the database stopped, locked or given other policies. The recordings
of Realtime depend on its timing, which only the sandbox lets one set; exchanges/realtime.jsonl asks for the same.
"""

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.checks.truth.exchange import Answer, masked, plain
from tests.checks.truth.target import BUCKET, PATIENCE, Target
from tests.sandbox import hub_recording
from tests.sandbox.project import FOREIGN
from tests.sandbox.recorded_storage import A as ANNA
from tests.sandbox.recorded_storage import B as BEN
from tests.sandbox.recorded_storage import Exchange, _body, recorded
from watcher.sandbox.keys import Keys

LEFT_OUT = re.compile(
    r"bucket\.|policy test|database |lock/|create bucket|(empty|delete empty) bucket|OPTIONS|TUS|download of object with"
    r"|wrong role claim|no role claim|list with|version|status|download orphan|remove orphan|list limit 10001|upload >50MB"
)
"""By the label of the recording."""
_ROLES = {"anon": "anon", "service_role": "service", "userA": "anna", "userB": "ben"}


def storage(target: Target) -> Iterator[tuple[str, Answer]]:
    """Play what was recorded of Storage, and yield each label with the answer."""
    with httpx.Client(timeout=PATIENCE) as http:
        signed: dict[str, str] = {}
        for exchange in recorded():
            if LEFT_OUT.match(exchange.label) or _needs_secret(exchange, target):
                continue
            answer = _ask(target, http, exchange, signed)
            if b"?token=" in answer.content:
                signed.update(re.findall(r'"(/[^"]*)\?token=([^"]*)"', answer.text))
            shown = plain(answer, target.values)
            if answer.headers.get("content-type", "").startswith("image/"):
                shown["text"] = f"{len(answer.content)} bytes"
            yield f"storage, recorded: {exchange}", shown


def _needs_secret(exchange: Exchange, target: Target) -> bool:
    return "expired" in json.dumps(exchange.request["headers"]) and target.jwt_secret is None


def _ask(target: Target, http: httpx.Client, exchange: Exchange, signed: dict[str, str]) -> httpx.Response:
    mine = {ANNA: target.values["anna"], BEN: target.values["ben"]}

    def here(text: str) -> str:
        for old, new in mine.items():
            text = text.replace(old, new)
        return text

    headers = {
        name: here(value)
        for name, value in exchange.request["headers"].items()
        if name not in {"host", "content-length", "apikey", "authorization", "connection"}
    }
    given = exchange.request["headers"].get("authorization")
    if given is not None:
        headers |= _credentials(target, given)
    path = here(exchange.path)
    base = path.partition("?")[0]
    token = signed.get(base, next(iter(signed.values()), ""))
    body = here(_body(exchange.request).decode("latin-1")).encode("latin-1")
    url = f"{target.url}/storage/v1{path.replace('<jwt:none>', token)}"
    return http.request(exchange.request["method"], url, headers=headers, content=body)


def _credentials(target: Target, given: str) -> dict[str, str]:
    role = given.removeprefix("Bearer <jwt:").rstrip(">")
    if role in _ROLES:
        return target.credentials(_ROLES[role])
    claims = {"sub": target.values["anna"], "role": "authenticated", "exp": 1}
    if role == "expiredA" and target.jwt_secret is not None:
        token = Keys(target.jwt_secret).sign(claims)
    else:
        token = FOREIGN.sign({**claims, "exp": 4102444800}) if role == "badsig" else "garbage"
    return {"apikey": target.publishable, "authorization": f"Bearer {token}"}


def hub(target: Target) -> Iterator[tuple[str, Answer]]:
    """Play the recorded publication, and yield each request with the answer."""
    recording = hub_recording.Recording("hub_lfs_3images")
    repo = f"{target.namespace}/{target.values['repo']}-recorded"
    recording.swaps |= {recording.repo: repo, recording.name: repo.partition("/")[2]}
    recording.swaps['"alice"'] = f'"{target.namespace}"'
    links: dict[str, str] = {}
    values = {**target.values, "recorded": repo}
    with httpx.Client(timeout=PATIENCE) as http:
        for number, exchange in enumerate(recording.exchanges, 1):
            path = recording.swap(exchange.path)
            url = links.get(path) or f"{target.hub}{recording.swap(exchange.target)}"
            headers = {
                name: value
                for name, value in exchange.headers.items()
                if name in {"content-type", "accept", "x-hf-download-counter"}
            }
            if "authorization" in exchange.headers:
                headers["authorization"] = f"Bearer {target.token}"
            answer = http.request(exchange.method, url, headers=headers, content=recording.sent(exchange))
            _learn(recording, exchange, answer, links)
            named = recording.swap(f"{exchange.method} {exchange.path}")
            yield f"hub, recorded: {number:02} {masked(named, {repo: 'recorded'})}", plain(answer, values)


def _learn(
    recording: hub_recording.Recording,
    exchange: hub_recording.Exchange,
    answer: httpx.Response,
    links: dict[str, str],
) -> None:
    """Remember the ids here of the recorded ones, and where each LFS object is put and found."""
    if "location" in answer.headers:
        links[urlsplit(answer.headers["location"]).path] = answer.headers["location"]
    if not exchange.is_json or not answer.is_success:
        return
    try:
        here = answer.json()
    except ValueError:
        return
    for there, mine in _pairs(exchange.json(), here):
        if re.fullmatch("[0-9a-f]{24}|[0-9a-f]{40}", there):
            recording.swaps.setdefault(there, mine)
    for one in here.get("objects", []) if isinstance(here, dict) else []:
        if upload := one.get("actions", {}).get("upload"):
            links[f"/_lfs/put/{one['oid']}"] = upload["href"]


def _pairs(there: Any, here: Any) -> Iterator[tuple[str, str]]:
    match there, here:
        case dict(), dict():
            for key in there.keys() & here.keys():
                yield from _pairs(there[key], here[key])
        case list(), list():
            for one, other in zip(there, here, strict=False):
                yield from _pairs(one, other)
        case str(), str():
            yield there, here


assert BUCKET in json.dumps([one.path for one in recorded()])
