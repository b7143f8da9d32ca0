"""The log: one pipe for us and the libraries, and never a secret in it."""

import base64
import json
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Literal
from urllib.parse import quote

import pytest
import structlog

from watcher.process.log import configure, impersonal, redact

SECRET = "sb_secret_a/b+c=d&e"
SPELLINGS = (SECRET, quote(SECRET, safe=""), base64.b64encode(SECRET.encode()).decode())


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("watcher")
    before = (root.handlers, root.level, ours.level)
    yield
    root.handlers, root.level, ours.level = before
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def written(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == "", "The log goes to stderr."
    return captured.err


@pytest.mark.parametrize("form", ["console", "json"])
@pytest.mark.parametrize("spelling", SPELLINGS, ids=["plain", "in a URL", "in base64"])
def test_a_secret_is_in_no_line_of_ours_or_a_librarys(
    capsys: pytest.CaptureFixture[str], form: Literal["console", "json"], spelling: str
) -> None:
    configure("DEBUG", form, [SECRET])
    ours, theirs = structlog.get_logger("watcher.test"), logging.getLogger("httpx")
    ours.info("event", header=spelling, deep={"key": [spelling]})
    ours.warning(spelling)
    theirs.warning("GET %s", f"https://abc/?apikey={spelling}")
    theirs.debug("headers=%r", [("apikey", spelling.encode())])
    lines = written(capsys)
    assert spelling not in lines
    assert lines.count("[secret]") == 4
    assert "https://abc/" in lines, "What it has after the question mark is left out."


@pytest.mark.parametrize("form", ["console", "json"])
def test_a_secret_is_in_no_stack_of_ours_or_a_librarys_however_long_it_is(
    capsys: pytest.CaptureFixture[str], form: Literal["console", "json"]
) -> None:
    token = "eyJ" + "k9" * 150  # longer than a line
    configure("INFO", form, [token])

    def fail() -> None:
        raise ValueError(f"Bearer {token}")

    for log in (structlog.get_logger("watcher.test"), logging.getLogger("httpx")):
        try:
            fail()
        except ValueError:
            log.exception("unexpected")
    lines = written(capsys)
    assert "k9k9" not in lines
    assert lines.count("Bearer [secret]") == 2
    assert lines.count("Traceback") == 2, "The stack itself is what we want to see."


def test_a_line_is_one_json_object_with_the_fields_that_all_lines_have(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure("INFO", "json", [], instance="attic")
    structlog.get_logger("watcher.test").info("published", name="Zoë\n2")
    logging.getLogger("realtime").error("gone")
    ours, theirs = (json.loads(line) for line in written(capsys).splitlines())
    assert ours | {"timestamp": ""} == {
        "event": "published",
        "name": "Zoë\n2",
        "instance": "attic",
        "level": "info",
        "logger": "watcher.test",
        "timestamp": "",
    }
    assert (theirs["event"], theirs["logger"], theirs["instance"]) == ("gone", "realtime", "attic")


def test_libraries_are_heard_from_warning_on_and_all_of_them_at_debug(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure("INFO", "json")
    structlog.get_logger("watcher.test").debug("detail")
    logging.getLogger("httpx").info("HTTP Request")
    assert written(capsys) == ""
    configure("DEBUG", "json")
    structlog.get_logger("watcher.test").debug("detail")
    logging.getLogger("httpx").debug("connect")
    assert len(written(capsys).splitlines()) == 2


def journal() -> dict[str, str]:
    """What systemd says where it has connected our stderr with its journal."""
    status = os.fstat(sys.stderr.fileno())
    return {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}


def test_the_journal_is_given_json_and_how_much_each_line_matters(capfd: pytest.CaptureFixture[str]) -> None:
    configure("DEBUG", "auto", [], journal())
    log = structlog.get_logger("watcher.test")
    for method in (log.debug, log.info, log.warning, log.error, log.critical):
        method("event", text="two\nlines")
    lines = written(capfd).splitlines()
    assert [line[:3] for line in lines] == ["<7>", "<6>", "<4>", "<3>", "<2>"]
    assert {json.loads(line[3:])["text"] for line in lines} == {"two\nlines"}


def test_each_line_of_a_stack_has_its_priority_where_the_journal_is_given_text(
    capfd: pytest.CaptureFixture[str],
) -> None:
    configure("INFO", "console", [], journal())
    try:
        raise ValueError("1\n2")
    except ValueError:
        structlog.get_logger("watcher.test").exception("unexpected")
    lines = written(capfd).splitlines()
    assert len(lines) > 4
    assert all(line.startswith("<3>") for line in lines)


def test_a_stderr_that_goes_elsewhere_than_the_services_own_is_no_journal(
    capfd: pytest.CaptureFixture[str],
) -> None:
    configure("INFO", "auto", [], {"JOURNAL_STREAM": "1:2"})
    structlog.get_logger("watcher.test").info("ready")
    [line] = written(capfd).splitlines()
    assert line.startswith("20")
    assert "ready" in line


@pytest.mark.parametrize(
    ("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_a_terminal_is_given_colours_unless_it_does_not_want_them(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], coloured: bool
) -> None:
    primary, secondary = os.openpty()
    with os.fdopen(secondary, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        configure("INFO", "auto", [], environment)
        structlog.get_logger("watcher.test").warning("outage", reason="away")
        terminal.flush()
        shown = os.read(primary, 1000)
    os.close(primary)
    assert (b"\x1b[" in shown) == coloured
    assert b"outage" in shown


def test_a_line_is_one_line_whatever_a_service_wrote(capfd: pytest.CaptureFixture[str]) -> None:
    configure("INFO", "json", [])
    structlog.get_logger("watcher.test").warning("outage", reason="a\u2028b\x85c\u2029d\re\nf")
    [line] = written(capfd).splitlines()
    assert json.loads(line)["reason"] == "a b c d e\nf"


def test_where_it_is_piped_it_is_plain(capfd: pytest.CaptureFixture[str]) -> None:
    configure("INFO", "auto", [])
    structlog.get_logger("watcher.test").warning("outage", reason="away")
    [line] = written(capfd).splitlines()
    assert "\x1b" not in line
    assert "outage" in line
    assert "reason=away" in line


def test_a_thread_of_a_library_and_a_warning_of_python_go_the_same_way(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure("INFO", "json", [SECRET], instance="attic")
    thread = threading.Thread(target=logging.getLogger("huggingface_hub").warning, args=("slow",))
    thread.start()
    thread.join()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        warnings.warn(f"old {SECRET}", DeprecationWarning, stacklevel=1)
        logging.captureWarnings(capture=False)
    library, python = (json.loads(line) for line in written(capsys).splitlines())
    assert (library["event"], library["instance"]) == ("slow", "attic")
    assert (python["logger"], python["level"]) == ("py.warnings", "warning")
    assert "old [secret]" in python["event"]


def test_what_is_said_elsewhere_can_be_redacted_as_well() -> None:
    configure("INFO", "json", [SECRET])
    assert redact(f"refused: {SPELLINGS[1]}") == "refused: [secret]"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("{folder}/Anna Schmidt.jpg is not there.", "[photo] is not there."),
        ("{folder}/my album/Anna v2.0 (1).jpeg: 404", "[photo]: 404"),
        ("'{folder}/Anna%20Schmidt.png?token=1'", "'[photo]?token=1'"),
        ("{folder}/Anna took 0.52 s", "[photo] took 0.52 s"),
    ],
)
def test_a_key_is_left_out_whole_also_where_it_has_spaces(text: str, kept: str) -> None:
    assert impersonal(text.format(folder="3f0c2f4e-8a8b-4c57-9a0e-0d5f0f3f9b11")) == kept
