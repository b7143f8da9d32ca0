"""The operator is told of failures: once each, signed, without names, also where the receiver fails at first."""

import base64
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook

from tests.acceptance.person import Person
from tests.acceptance.running import Watcher
from tests.acceptance.stage import Stage
from tests.support.waiting import PATIENCE, wait_until
from watcher.sandbox import Sandbox
from watcher.sandbox.faults import Answer

SECRET = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


class Receiver:
    """An address of the operator's: it fails some times, then accepts; it answers while `answers` is set."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.failures = 0
        self.answers = threading.Event()
        self.answers.set()
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.accepted: list[dict[str, Any]] = []
        self.settings = {
            "WATCHER_NOTIFY_URL": url,
            "WATCHER_NOTIFY_SECRET": SECRET,
            "WATCHER_POLL_ALIVE": "0.2",
        }

    def told(self, event: str) -> list[dict[str, Any]]:
        return [one for one in self.accepted if one["type"] == event]


@contextmanager
def receiving() -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            kept.requests.append((headers, content))
            kept.answers.wait(PATIENCE)
            if kept.failures:
                kept.failures -= 1
                self.send_response(503)
            else:
                kept.accepted.append(Webhook(SECRET).verify(content, headers))
                self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    kept = Receiver(f"http://127.0.0.1:{server.server_port}/hook?token=s3cret-t0ken")
    thread = threading.Thread(target=server.serve_forever, name="receiver")
    thread.start()
    try:
        yield kept
    finally:
        kept.answers.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as one:
        yield one


def unfit(person: Person) -> str:
    """A row that fails."""
    return person.insert("Ada Lovelace", [*person.photos(2), person.upload(b"no picture", "beach.jpg")])


def nothing_to_tell(stage: Stage) -> bool:
    """Let the time until the next attempt pass; whether all has been told, or given up."""
    stage.sql("update watcher.work set next_at = now() where kind = 'notify' and next_at > now()")
    return stage.sql("select count(*) from watcher.notifications") == [0]


def outcomes(stage: Stage, receiver: Receiver) -> list[str]:
    """The outcomes of all attempts to tell one thing."""
    [told] = {headers["webhook-id"] for headers, _ in receiver.requests}
    query = "select array_agg(outcome order by number) from watcher.attempts where identity_id = %s"
    [found] = stage.sql(query, told.removeprefix("msg_"))
    return list(found)


def test_a_failed_row_is_told_once_though_the_receiver_fails_twice(
    stage: Stage, person: Person, receiver: Receiver
) -> None:
    receiver.failures = 2
    with Watcher(stage, **receiver.settings) as one, Watcher(stage, **receiver.settings) as two:
        one.ready(), two.ready()
        identity = unfit(person)
        person.wait_for(identity, "failed")
        wait_until(lambda: nothing_to_tell(stage))
        person.wait_for(person.insert(), "published")
        text = one.text + two.text
    [told] = receiver.accepted
    assert told["type"] == "row.failed"
    assert told["data"] == {"id": identity, "code": "image_not_jpeg_or_png", "image": 3}
    assert told["text"].startswith("Watcher: A row has failed.")
    assert outcomes(stage, receiver) == ["deferred", "deferred", "notified"]
    assert len(receiver.requests) == 3
    for secret in ("Ada", "beach", "photo", person.id):
        assert not any(secret.encode() in content for _, content in receiver.requests), secret
    assert "s3cret-t0ken" not in text
    assert SECRET.removeprefix("whsec_") not in text


def test_an_outage_is_told_when_it_begins_and_when_it_is_over(
    stage: Stage, sandbox: Sandbox, person: Person, receiver: Receiver
) -> None:
    with Watcher(stage, **receiver.settings) as watcher:
        watcher.ready()
        refused = sandbox.faults.add(Answer(401, {"error": "Invalid token"}), service="hub", times=None)
        identity = person.insert("Ada Lovelace")
        wait_until(lambda: receiver.told("outage.began"))
        sandbox.faults.remove(refused)
        person.wait_for(identity, "published")
        wait_until(lambda: receiver.told("outage.ended"))
        name = watcher.instance
    [began], [ended] = receiver.told("outage.began"), receiver.told("outage.ended")
    assert began["data"]["instance"] == ended["data"]["instance"] == name
    assert "token" in began["data"]["reason"]
    assert ended["data"]["seconds"] >= 0


def test_without_an_address_nothing_is_kept_to_be_told(stage: Stage, person: Person) -> None:
    stage.sql("update watcher.notifying set until = null")
    with Watcher(stage) as watcher:
        watcher.ready()
        person.wait_for(unfit(person), "failed")
    assert stage.sql("select count(*) from watcher.notifications") == [0]


def test_a_receiver_that_hangs_and_then_never_accepts_holds_nobody_up(
    stage: Stage, person: Person, receiver: Receiver
) -> None:
    receiver.failures = 10_000
    receiver.answers.clear()
    with Watcher(stage, **receiver.settings) as watcher:
        watcher.ready()
        person.wait_for(unfit(person), "failed")
        wait_until(lambda: receiver.requests)
        person.wait_for(person.insert(), "published")
        receiver.answers.set()
        wait_until(lambda: nothing_to_tell(stage))
    assert outcomes(stage, receiver) == ["deferred"] * 8
    assert len(receiver.requests) == 8
    assert not receiver.accepted
