"""A hundred hostile arguments and surroundings: each command ends soon, with a sentence and the right exit code.

Nobody listens where the settings lead, so that a command which gets as far as asking Supabase ends with 1.
"""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.forking import HUNG, Ended, Run, run_all

FULL, CLOSED, GONE = "output is full", "output is closed", "the reader is gone"
ID = "00000000-0000-0000-0000-000000000000"
AWAY = "could not be reached"

# The arguments, `NAME=value` in front of them; the exit code; a part of what is said. {tmp} is a folder with odd things.
CASES: dict[str, tuple[str, int, str]] = {
    # What is given as a folder or a file.
    "spool: a file": ("WATCHER_SPOOL={tmp}/file run", 78, "cannot be written to"),
    "spool: below a file": ("WATCHER_SPOOL={tmp}/file/below run", 78, "cannot be written to"),
    "spool: a pipe": ("WATCHER_SPOOL={tmp}/pipe run", 78, "cannot be written to"),
    "spool: a device": ("WATCHER_SPOOL=/dev/null run", 78, "cannot be written to"),
    "spool: a link to nothing": ("WATCHER_SPOOL={tmp}/dangling run", 78, "cannot be written to"),
    "spool: a link to itself": ("WATCHER_SPOOL={tmp}/loop run", 78, "cannot be written to"),
    "spool: not a place": ("WATCHER_SPOOL=/proc/nowhere run", 78, "cannot be written to"),
    "spool: too long": ("WATCHER_SPOOL=/tmp/{long} run", 78, "cannot be written to"),
    "spool: its lock is a pipe": ("WATCHER_SPOOL={tmp}/locked-by-pipe run", 78, "cannot be written to"),
    "spool: its lock is a folder": ("WATCHER_SPOOL={tmp}/locked-by-folder run", 78, "cannot be written to"),
    "spool: its lock is a link": ("WATCHER_SPOOL={tmp}/locked-by-link run", 78, "cannot be written to"),
    "doctor, spool: a file": ("WATCHER_SPOOL={tmp}/file doctor", 2, "is not a folder"),
    "doctor, spool: a link to itself": ("WATCHER_SPOOL={tmp}/loop doctor", 2, "cannot be"),
    "doctor, spool: too long": ("WATCHER_SPOOL=/tmp/{long} doctor", 2, "cannot be"),
    "no home": ("HOME= run --wrong", 2, "No such option"),
    "a home that is not there": ("HOME=/nonexistent HF_TOKEN= run", 78, "HF_TOKEN is not set"),
    "credentials: a file": ("CREDENTIALS_DIRECTORY={tmp}/file run", 78, "which is not a folder"),
    "credentials: nothing": ("CREDENTIALS_DIRECTORY={tmp}/none run", 78, "which is not a folder"),
    "credentials: a link to itself": ("CREDENTIALS_DIRECTORY={tmp}/loop run", 78, "which is not a folder"),
    "credentials: too long": ("CREDENTIALS_DIRECTORY=/{long} run", 78, "which is not a folder"),
    "credentials: pipes": ("CREDENTIALS_DIRECTORY={tmp}/pipes run", 78, "it is not a file"),
    "credentials: sockets": ("CREDENTIALS_DIRECTORY={tmp}/sockets run", 78, "it is not a file"),
    "credentials: folders": ("CREDENTIALS_DIRECTORY={tmp}/folders run", 78, "Is a directory"),
    "credentials: not text": ("CREDENTIALS_DIRECTORY={tmp}/binary run", 78, "is not UTF-8 text"),
    "credentials: of status": ("CREDENTIALS_DIRECTORY={tmp}/folders status", 78, "Is a directory"),
    "photos: nothing": ("demo --photos {tmp}/none", 2, "does not exist"),
    "photos: a file": ("demo --photos {tmp}/file", 2, "is a file"),
    "photos: a link to itself": ("demo --photos {tmp}/loop", 2, "does not exist"),
    "photos: an empty folder": ("demo --photos {tmp}/empty", 78, "has 0 photos"),
    "photos: pipes": ("demo --photos {tmp}/photo-pipes", 78, "has 0 photos"),
    "photos: folders": ("demo --photos {tmp}/photo-folders", 78, "has 0 photos"),
    "photos: links to nothing": ("demo --photos {tmp}/photo-links", 78, "has 0 photos"),
    "photos: as JSON": ("demo --json --photos {tmp}/empty", 78, "has 0 photos"),
    "receipts: nothing": ("erasures --add-receipts {tmp}/none", 2, "does not exist"),
    "receipts: a folder": ("erasures --add-receipts {tmp}/empty", 2, "is a directory"),
    "receipts: a pipe": ("erasures --add-receipts {tmp}/pipe", 2, "is not a file"),
    "receipts: not text": ("erasures --add-receipts {tmp}/binary/HF_TOKEN", 2, "is not the output of"),
    "receipts: nothing in it": ("erasures --add-receipts {tmp}/file", 2, "is not the output of"),
    "receipts: too deep": ("erasures --add-receipts {tmp}/deep", 2, "is not the output of"),
    "receipts: something else": ("erasures --add-receipts {tmp}/list", 2, "is not the output of"),
    "migrations: nothing": ("migrate --into {tmp}/none", 78, "There is no folder"),
    "migrations: a file": ("migrate --into {tmp}/file", 2, "is a file"),
    "migrations: a pipe": ("migrate --into {tmp}/pipe", 78, "There is no folder"),
    "migrations: not a place": ("migrate --into /proc", 78, "cannot be written"),
    "migrations: folders": ("migrate --into {tmp}/migration-folders", 78, "cannot be read"),
    "migrations: pipes": ("migrate --into {tmp}/migration-pipes", 78, "cannot be read"),
    "sandbox: data in a file": ("sandbox --data {tmp}/file --port 0 --hub-port 0", 2, "is a file"),
    "sandbox: data in a pipe": ("sandbox --data {tmp}/pipe --port 0 --hub-port 0", 78, "{tmp}/pipe"),
    "sandbox: data in no place": ("sandbox --data /proc/nowhere --port 0 --hub-port 0", 78, "/proc/nowhere"),
    # Ports.
    "sandbox: a port in use": ("sandbox --port {busy} --hub-port 0", 78, "{busy}"),
    "sandbox: the Hub's port in use": ("sandbox --port 0 --hub-port {busy}", 78, "{busy}"),
    "sandbox: the control port in use": ("sandbox --port 0 --hub-port 0 --control-port {busy}", 78, "{busy}"),
    "sandbox: too high a port": ("sandbox --port 99999", 2, "is not in the range"),
    "sandbox: a negative port": ("sandbox --hub-port -1", 2, "is not in the range"),
    "sandbox: no number": ("sandbox --port x", 2, "is not a valid integer"),
    "sandbox: one port twice": ("sandbox --port {free} --hub-port {free}", 78, "{free}"),
    "metrics: a port in use": ("WATCHER_METRICS_ADDRESS=127.0.0.1:{busy} run", 78, "cannot be listened on"),
    "metrics: an address of another host": ("WATCHER_METRICS_ADDRESS=192.0.2.1:9464 run", 78, "a loopback"),
    "metrics: no address": (
        "WATCHER_METRICS_ADDRESS=localhost:9464 run",
        78,
        "must be an address and a port",
    ),
    # Values.
    "slots: a word": ("WATCHER_SLOTS=many run", 78, "WATCHER_SLOTS is invalid"),
    "slots: huge": ("WATCHER_SLOTS={digits} run", 78, "WATCHER_SLOTS is invalid"),
    "slots: a fraction": ("WATCHER_SLOTS=1.5 run", 78, "WATCHER_SLOTS is invalid"),
    "slots: a comment": ("WATCHER_SLOTS=4\t#four run", 78, "WATCHER_SLOTS has a comment"),
    "lease: not a number": ("WATCHER_LEASE=nan run", 78, "WATCHER_LEASE is invalid"),
    "lease: without end": ("WATCHER_LEASE=inf run", 78, "WATCHER_LEASE is invalid"),
    "instance: a path": ("WATCHER_INSTANCE=../x run", 78, "WATCHER_INSTANCE is invalid"),
    "instance: too long": ("WATCHER_INSTANCE={long} run", 78, "WATCHER_INSTANCE is invalid"),
    "namespace: a path": ("HF_NAMESPACE=a/b run", 78, "HF_NAMESPACE is invalid"),
    "log: a level that there is not": ("WATCHER_LOG_LEVEL=loud run", 78, "WATCHER_LOG_LEVEL is invalid"),
    "URL: no scheme": ("SUPABASE_URL=example.com status", 78, "must begin with https://"),
    "URL: another scheme": ("SUPABASE_URL=file:///etc status", 78, "must begin with https://"),
    "URL: no host": ("SUPABASE_URL=https:///x status", 78, "is not a valid URL"),
    "URL: half an address": ("SUPABASE_URL=https://[::1 status", 78, "is not a valid URL"),
    "URL: an empty label": ("SUPABASE_URL=https://a..b status", 78, "is not a valid URL"),
    "URL: too long a label": ("SUPABASE_URL=https://{long}.co status", 78, "is not a valid URL"),
    "URL: a port that there is not": ("SUPABASE_URL=https://a:99999 status", 78, "is not a valid URL"),
    "URL: not ASCII": ("SUPABASE_URL=https://☃.example status", 78, "is not a valid URL"),
    "URL: a password": ("SUPABASE_URL=https://me:pw@a.example status", 78, "is not a valid URL"),
    "URL: the dashboard": ("SUPABASE_URL=https://supabase.com/dashboard/project/a status", 78, "dashboard"),
    "URL: the Hub's": ("HF_ENDPOINT=https://a..b run", 78, "HF_ENDPOINT is invalid"),
    "key: no header": ("SUPABASE_SECRET_KEY=ké status", 78, "SUPABASE_SECRET_KEY is invalid"),
    "key: odd": ("SUPABASE_SECRET_KEY=!.!.! status", 1, AWAY),
    "key: public": ("SUPABASE_SECRET_KEY=sb_publishable_x show {id}", 78, "is the publishable key"),
    "proxy: SOCKS": ("ALL_PROXY=socks5://h:1 replay --failed --yes", 78, "ALL_PROXY is socks5://h:1"),
    "proxy: nobody": ("HTTP_PROXY=http://127.0.0.1:9 NO_PROXY= status", 1, AWAY),
    "certificates: nothing": ("SSL_CERT_FILE=/none limits", 78, "SSL_CERT_FILE is /none"),
    "certificates: a pipe": ("SSL_CERT_FILE={tmp}/pipe export {id}", 78, "which is not a file"),
    "no network": ("HF_HUB_OFFLINE=1 doctor", 2, "HF_HUB_OFFLINE is 1"),
    "database: none": ("SUPABASE_DB_URL= migrate", 78, "SUPABASE_DB_URL is not set"),
    "database: nonsense": ("SUPABASE_DB_URL=nonsense migrate", 78, "is not a database URL"),
    "database: another kind": ("SUPABASE_DB_URL=mysql://h/d migrate", 78, "is not a database URL"),
    "database: a password with @": ("SUPABASE_DB_URL=postgresql://p:a@b@h/d migrate", 78, "write %40 for @"),
    "database: nobody": ("SUPABASE_DB_URL=postgresql://p@127.0.0.1:9/d migrate", 1, AWAY),
    "database: no port": (
        "SUPABASE_DB_URL=postgresql://p@h:port/d migrate",
        78,
        "a port that is not a number",
    ),
    "database: an odd option": (
        "SUPABASE_DB_URL=postgresql://p@127.0.0.1:9/d?sslmode=odd migrate",
        78,
        "sslmode",
    ),
    # Arguments.
    "a command that there is not": ("stauts", 2, "No such command"),
    "show: no id": ("show", 2, "Missing argument"),
    "show: a word": ("show me", 2, "is not a valid UUID"),
    "show: too long": ("show {long}", 2, "is not a valid UUID"),
    "show: nobody answers": ("show {id}", 1, AWAY),
    "replay: nothing chosen": ("replay", 2, "Choose the rows"),
    "replay: nobody to ask": ("replay --failed", 2, "no terminal to confirm on"),
    "replay: a wrong time": ("replay --since yesterday --yes", 2, "is neither a duration"),
    "replay: no such day": ("replay --since 2026-13-01 --yes", 2, "is neither a duration"),
    "replay: no zone": ("replay --since 2026-11-22T14:05 --yes", 2, "has no time zone"),
    "replay: an endless time": ("replay --since {digits}d --yes", 2, "is neither a duration"),
    "replay: a negative time": ("replay --since -1h --yes", 2, "is neither a duration"),
    "limits: no value": ("limits rows_per_day", 2, "Say the value"),
    "limits: a word": ("limits rows_per_day many", 2, "is neither a number nor default"),
    "limits: huge": ("limits rows_per_day {digits}", 2, "is neither a number nor default"),
    "forget: a word": ("forget ada --yes", 2, "is not a valid UUID"),
    "forget: nobody to ask": ("forget {id}", 2, "no terminal to confirm on"),
    "erasures: an option that there is not": ("erasures --set repos=on", 2, "No such option"),
    "pause: an endless time": ("pause --for {digits}d", 2, "is no duration"),
    "pause: a kind that only the database knows": ("pause --kind advise", 1, AWAY),
    "repair: nobody to ask": ("migrate --repair", 2, "no terminal to confirm on"),
    "migrate: nothing to ask": ("migrate --yes", 2, "nothing else asks"),
    "erasures: no reason": ("erasures --close {id}", 2, "is closed with a reason"),
    "demo: two wishes": ("demo --keep --erase", 2, "Either --keep or --erase"),
}
# What is done to the process first; the arguments; the exit code; a part of what is said.
STREAMS: dict[str, tuple[str, str, int, str]] = {
    "a full disk behind help": (FULL, "--help", 1, "No space left on device"),
    "a full disk behind doctor": (FULL, "doctor", 2, "No space left on device"),
    "a full disk behind migrate": (FULL, "migrate --into {tmp}/empty", 1, "No space left on device"),
    "a reader that left help": (GONE, "--help", 0, ""),
    "a reader that left doctor": (GONE, "doctor --json", 0, ""),
    "a reader that left migrate": (GONE, "migrate --into {tmp}/empty", 0, ""),
    "no output for help": (CLOSED, "--help", 0, ""),
    "no output for doctor": (CLOSED, "doctor", 2, ""),
    "no errors for status": ("errors are closed", "status", 1, ""),
    "no errors for run": ("errors are closed", "HF_TOKEN= run", 78, ""),
    "no input for replay": ("input is closed", "replay --failed", 2, "no terminal to confirm on"),
    "only ASCII for doctor": ("only ASCII", "doctor", 2, "Nothing answers at"),
    "only ASCII for an error": ("only ASCII", "show ☃", 2, "is not a valid UUID"),
    "no folder for status": ("the folder is gone", "status", 1, AWAY),
    "no folder for run": ("the folder is gone", "HF_TOKEN= run", 78, "HF_TOKEN is not set"),
    "no folder for migrate": ("the folder is gone", "migrate --into x", 78, "There is no folder"),
}


def _odd_things(tmp: Path) -> None:
    for name in ("empty", "pipes", "sockets", "folders", "binary"):
        (tmp / name).mkdir()
    (tmp / "file").touch()
    (tmp / "deep").write_text("[" * 100_000)
    (tmp / "list").write_text('{"receipts": [1], "open": []}')
    os.mkfifo(tmp / "pipe")
    (tmp / "dangling").symlink_to(tmp / "none" / "none")
    (tmp / "loop").symlink_to(tmp / "loop")
    for key in ("SUPABASE_SECRET_KEY", "HF_TOKEN"):
        os.mkfifo(tmp / "pipes" / key)
        (tmp / "folders" / key).mkdir()
        (tmp / "binary" / key).write_bytes(b"\xff\xfe")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(tmp / "sockets" / key))
    for kind in ("pipe", "folder", "link"):
        (tmp / f"locked-by-{kind}" / "attic").mkdir(parents=True)
        (tmp / f"photo-{kind}s").mkdir()
        (tmp / f"migration-{kind}s").mkdir()
    os.mkfifo(tmp / "locked-by-pipe" / "attic" / "lock")
    (tmp / "locked-by-folder" / "attic" / "lock").mkdir()
    (tmp / "locked-by-link" / "attic" / "lock").symlink_to("/etc/passwd")
    for number in range(3):
        os.mkfifo(tmp / "photo-pipes" / f"{number}.jpg")
        (tmp / "photo-folders" / f"{number}.jpg").mkdir()
        (tmp / "photo-links" / f"{number}.jpg").symlink_to("none")
    first = min(Path(__file__).parents[1].glob("migrations/*.sql")).name
    (tmp / "migration-folders" / first).mkdir()
    os.mkfifo(tmp / "migration-pipes" / first)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    tmp = tmp_path_factory.mktemp("odd")
    _odd_things(tmp)
    with socket.socket() as busy, socket.socket() as free:
        for one in (busy, free):
            one.bind(("127.0.0.1", 0))
        busy.listen()
        ports = {"busy": str(busy.getsockname()[1]), "free": str(free.getsockname()[1])}
        free.close()
        yield {"tmp": str(tmp), "id": ID, "long": "x" * 300, "digits": "9" * 5000, **ports}


def _run(words: str, places: dict[str, str], before: list[str]) -> Run:
    environment = {
        "SUPABASE_URL": "http://127.0.0.1:9", "SUPABASE_SECRET_KEY": "sb_secret_x", "HF_TOKEN": "hf_x",
        "HF_ENDPOINT": "http://127.0.0.1:9", "WATCHER_INSTANCE": "attic", "SUPABASE_DB_URL": "",
    }  # fmt: skip
    arguments: list[str] = []
    for word in words.split(" "):
        name, equals, value = word.partition("=")
        if equals and name.isupper() and not arguments:
            environment[name] = value.format(**places)
        else:
            arguments.append(word.format(**places))
    if arguments[0] in {"demo", "sandbox"}:
        environment |= {"SUPABASE_URL": ""}
    return Run(arguments, environment, places["tmp"], before)


@pytest.fixture(scope="module")
def ended(places: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ended]:
    runs = {name: _run(words, places, []) for name, (words, _, _) in CASES.items()}
    runs |= {name: _run(words, places, [before]) for name, (before, words, _, _) in STREAMS.items()}
    return run_all(runs, tmp_path_factory.mktemp("home"))


@pytest.mark.parametrize("name", [*CASES, *STREAMS])
def test_a_sentence_and_the_right_code_and_no_traceback(
    ended: dict[str, Ended], places: dict[str, str], name: str
) -> None:
    code, says = CASES[name][1:] if name in CASES else STREAMS[name][2:]
    end = ended[name]
    assert end.code != HUNG, "It hung."
    assert end.code == code, end.errors + end.output
    assert says.format(**places) in end.output + end.errors
    assert "Traceback" not in end.output + end.errors
