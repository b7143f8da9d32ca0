"""A day of everything that can happen, at DEBUG, to services that repeat every key they are sent: no key is anywhere."""

import base64
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import httpx
import psycopg
from psycopg import sql

from tests.acceptance.person import Person
from tests.acceptance.places import PHOTOS, at
from tests.acceptance.running import Watcher, environment
from tests.acceptance.stage import Stage, unique
from tests.support.waiting import PATIENCE
from watcher.sandbox import Sandbox
from watcher.sandbox.faults import Answer, Cut, Hold, LoseAnswer
from watcher.sandbox.faults.actions import Action

_OBJECT = "/object/authenticated/"
_PIECE = 16
"""Characters of a secret in a row that give it away: one that is cut off, or wrapped, is no less told."""


def spellings(secret: str) -> Iterator[str]:
    """How a secret may be written."""
    raw = secret.encode()
    for shown in (secret, secret[::-1]):
        yield from (shown[at : at + _PIECE] for at in range(max(1, len(shown) - _PIECE + 1)))
    yield from (quote(secret, safe=""), "".join(f"%{byte:02X}" for byte in raw), raw.hex(), raw.hex(" "))
    yield from (json.dumps(secret)[1:-1], "".join(f"\\u{ord(letter):04x}" for letter in secret))
    for offset in range(3):
        # Whatever comes before and after it, these characters stand for the secret's own bits alone.
        first, last = -(-offset * 8 // 6), (offset + len(raw)) * 8 // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield encode(bytes(offset) + raw)[first:last].decode()


def betrayals(text: str, secrets: dict[str, str]) -> list[str]:
    """Which secrets a text holds, and what is written before them."""
    folded = text.casefold()
    found = []
    for name, secret in secrets.items():
        for spelling in spellings(secret):
            if (at := folded.find(spelling.casefold())) >= 0:
                found.append(f"{name}: …{text[max(0, at - 120) : at]}▮")
                break
    return found


def echo(*secrets: str) -> str:
    """What a service in trouble may say: all that it was sent, in every form, and cut anywhere."""
    said = [
        f"Authorization: Bearer {secret}, apikey={quote(secret, safe='')}, "
        f"Basic {base64.b64encode(f'x:{secret}'.encode()).decode()}"
        for secret in secrets
    ]
    head, longest = " ".join(said), max(secrets, key=len)
    # And more of one, so that what is kept of the words ends within it: they are cut at 300, or at 2000.
    head += "." * ((300 - 18 - len(head)) % len(longest))
    return head + longest * (2500 // len(longest))


def run(stage: Stage, *arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    """Run another of the program's commands as an operator does."""
    given = environment(
        {**stage.settings, "WATCHER_SPOOL": str(stage.folder / "spool"), **settings}, stage.folder
    )
    command = [sys.executable, "-m", "watcher", *arguments]
    return subprocess.run(command, env=given, capture_output=True, text=True, timeout=PATIENCE, check=False)


def titles(watcher: Watcher) -> str:
    """How the process and its threads call themselves, to whoever lists processes."""
    folder = Path(f"/proc/{watcher.process.pid}")
    files = [folder / "cmdline", folder / "stat", *folder.glob("task/*/comm")]
    return " ".join(file.read_text() for file in files)


def database(url: str) -> str:
    """All that is in the tables of the two schemas that are ours."""
    with psycopg.connect(url) as connection:
        tables = connection.execute(
            "select table_schema, table_name from information_schema.tables where table_schema in ('public', 'watcher')"
        ).fetchall()
        assert ("watcher", "attempts") in tables
        query = sql.SQL("select coalesce(json_agg(t)::text, '') from {} t")
        return "\n".join(
            str(connection.execute(query.format(sql.Identifier(*table))).fetchone()) for table in tables
        )


def hub(sandbox: Sandbox) -> str:
    """Every commit's words and files of every repo."""
    store, said = sandbox.hub.store, []
    for repo in store.repos("models"):
        for commit in store.commits(repo):
            said += [repo.name, commit.title, commit.message, commit.author]
            for path, file in store.files(repo, commit.oid).items():
                said += [path, store.bytes.content(repo.id, file).read_text("latin-1")]
    return "\n".join(said)


class Day:
    """What befalls a daemon, one trouble after the other, and all that can be seen of it."""

    def __init__(self, stage: Stage, sandbox: Sandbox, person: Person) -> None:
        self.secrets = {"SUPABASE_SECRET_KEY": stage.secret_key, "HF_TOKEN": stage.token}
        self.seen: list[str] = []
        self.paths = [person.upload(photo) for photo in PHOTOS]
        self._person = person
        self._sandbox = sandbox
        self._told = echo(*self.secrets.values())
        query = f"apikey={stage.secret_key}&token={stage.token}"
        self._redirect = {"Location": f"{stage.url}/elsewhere?{query}"}
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.address = f"127.0.0.1:{server.getsockname()[1]}"

    def insert(self) -> str:
        return self._person.insert("Ada", self.paths)

    def ends(self, status: str, code: str | None = None, *, later: bool = False) -> None:
        """Insert a row, which meets the faults in force, and see what becomes of it."""
        identity = self.insert()
        row = self._person.wait_until(
            identity, lambda row: row["status"] == status and bool(row["next_attempt_at"]) == later
        )
        assert row["error_code"] == code
        self.seen.append(json.dumps(row))

    def asked(self) -> None:
        """Keep what the pages say."""
        pages = ("metrics", "healthz", "readyz")
        self.seen += [httpx.get(f"http://{self.address}/{page}", timeout=PATIENCE).text for page in pages]

    def of_a_start(self) -> None:
        """A Realtime that refuses the key in the URL, and services in trouble."""
        self._sandbox.realtime.refuse(401)
        self._fault("hub", "whoami", Answer(503, self._told))
        self._fault("rest", "/rpc/", Answer(500, {"message": self._told}, self._redirect))

    def that_fail_a_row(self) -> None:
        """The services' words become the row's."""
        self._fault("storage", _OBJECT, Answer(400, {"code": "InvalidKey", "message": self._told}))
        self.ends("failed", "path_forbidden")
        self._fault("hub", "/objects/batch", Answer(422, {"error": self._told}))
        self.ends("pending", later=True)

    def that_put_a_row_off(self) -> None:
        for path in ("/objects/batch", "/commit/"):
            self._fault("hub", path, Answer(503, {"error": self._told}, {"Retry-After": "60"}))
            self.ends("pending", later=True)

    def of_everybody(self) -> None:
        """Refusals that are no row's fault; the pages are asked meanwhile."""
        self._fault("storage", _OBJECT, Answer(402, {"message": self._told}))
        self._fault("hub", "/objects/batch", Answer(401, {"error": self._told}))
        self._fault("rest", "watcher_version", Answer(401, {"message": self._told}))
        identity = self.insert()
        self.asked()
        self._person.wait_for(identity, "published")

    def of_the_network(self) -> None:
        """What is tried again at once."""
        own = {"Location": f"/elsewhere?token={self.secrets['HF_TOKEN']}"}
        for refused in (Answer(302, self._told, self._redirect), Cut(), Answer(500, {"message": self._told})):
            self._fault("storage", _OBJECT, refused)
        for lost in (Answer(307, None, own), Cut("request"), LoseAnswer()):
            self._fault("hub", "/objects/batch", lost)
        self._fault("rest", "watcher_reserve", Answer(400, {"message": self._told, "code": "P0001"}))
        self._fault("rest", "watcher_claim", Answer(302, self._told, self._redirect))
        self.ends("published")

    def of_the_feed(self) -> None:
        self._sandbox.realtime.system_error(self._told)
        self._sandbox.realtime.accept_then_drop()
        self._sandbox.realtime.close_all(1011)
        self.asked()

    def _fault(self, service: str, path: str, action: Action) -> None:
        self._sandbox.faults.add(action, service=service, path=path)


def test_a_days_events_at_debug_leave_no_secret_anywhere(
    stage: Stage, sandbox: Sandbox, person: Person
) -> None:
    day, instance = Day(stage, sandbox, person), unique("secrets")
    debug = {"WATCHER_LOG_LEVEL": "DEBUG", "WATCHER_METRICS_ADDRESS": day.address, "WATCHER_POLL": "0.2"}
    with Watcher(stage, instance, **debug) as watcher:
        day.of_a_start()
        day.ends("published")
        day.seen.append(titles(watcher))
        day.that_fail_a_row()
        day.that_put_a_row_off()
        day.of_everybody()
        day.of_the_network()
        day.of_the_feed()
        held = sandbox.faults.add(Hold("before"), **at("commit"))
        identity = day.insert()
        held.wait_reached()
        assert list(watcher.spool.glob("attempt-*"))
        watcher.send(signal.SIGABRT)
        assert watcher.wait() == -signal.SIGABRT
    assert "Fatal Python error: Aborted" in watcher.text, "It left its stacks."
    sandbox.faults.clear()

    with Watcher(stage, instance, **debug, WATCHER_LOG_FORMAT="console") as again:
        person.wait_for(identity, "published")
        sandbox.faults.add(Answer(401, {"error": echo(stage.token)}), service="hub", times=None)
        day.insert()
        person.wait_until(identity, lambda _: " outage " in again.text)
        again.stop()

    files = [file.read_text("latin-1") for file in stage.folder.rglob("*") if file.is_file()]
    day.seen += [watcher.text, again.text, database(sandbox.admin_db_url), hub(sandbox), *files]
    assert [betrayals(text, day.secrets) for text in day.seen] == [[]] * len(day.seen)
    assert watcher.text.count("[secret]") > 20, "They were there to be struck out."


def test_no_command_of_the_operator_tells_a_secret(stage: Stage, sandbox: Sandbox, person: Person) -> None:
    # Each part of the password is long enough to be known again, wherever a parser would cut it.
    wrong, password = "sb_secret_no+such/key=&%41", "first-part-of-it/second?part-of-it@third#part-of-it"
    secrets = {"wrong": wrong, "password": password, "key": stage.secret_key, "token": stage.token}
    url = urlsplit(stage.settings["SUPABASE_DB_URL"])
    at_host = f"{url.hostname}:{url.port}{url.path}"
    identity = person.insert()
    ran = [
        run(stage, "migrate", SUPABASE_DB_URL=f"postgresql://postgres:{given}@{at_host}")
        for given in (
            quote(password, safe=""),
            password,
            password.replace("/", ""),
            password.partition("@")[0],
        )
    ]
    assert [one.returncode for one in ran] == [1, 78, 78, 78], "Wrong, or no URL at all."
    sandbox.faults.add(Answer(401, {"message": echo(wrong)}), service="rest", times=None)
    ran += [
        run(stage, *command, SUPABASE_SECRET_KEY=wrong) for command in (("run",), ("doctor",), ("status",))
    ]
    sandbox.faults.clear()
    told = echo(stage.secret_key, stage.token)
    sandbox.faults.add(Answer(401, {"error": told}), service="hub", times=None)
    ran += [run(stage, *command) for command in (("run",), ("doctor",))]
    trouble = Answer(400, {"message": echo(stage.secret_key), "code": "XX000"})
    sandbox.faults.add(trouble, service="rest", path="/rpc/", times=None)
    ran += [run(stage, *command) for command in (("doctor", "--json"), ("status",))]
    sandbox.faults.clear()
    ran += [run(stage, "show", identity), run(stage, "replay", identity, "--yes")]
    for one in ran:
        assert betrayals(one.stdout + one.stderr, secrets) == [], one.args
        assert "Traceback" not in one.stderr
