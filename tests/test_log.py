"""The log: one pipe for us and the libraries, and never a secret in it."""

import base64
import json
import logging
from collections.abc import Iterator
from urllib.parse import quote

import pytest
import structlog

from watcher.log import configure

SECRET = "sb_secret_a/b+c=d&e"
SPELLINGS = (SECRET, quote(SECRET, safe=""), base64.b64encode(SECRET.encode()).decode())


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("watcher")
    before = (root.handlers, root.level, ours.level)
    yield
    root.handlers, root.level, ours.level = before
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def written(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == "", "The log goes to stderr."
    return captured.err


@pytest.mark.parametrize("form", ["console", "json"])
@pytest.mark.parametrize("spelling", SPELLINGS, ids=["plain", "in a URL", "in base64"])
def test_a_secret_is_in_no_line_of_ours_or_a_librarys(
    capsys: pytest.CaptureFixture[str], form: str, spelling: str
) -> None:
    configure("DEBUG", form, [SECRET])  # type: ignore[arg-type] # parametrized
    ours, theirs = structlog.get_logger("watcher.test"), logging.getLogger("httpx")
    ours.info("event", header=spelling, deep={"key": [spelling]})
    ours.warning(spelling)
    theirs.warning("GET %s", f"https://abc/?apikey={spelling}")
    theirs.debug("headers=%r", [("apikey", spelling.encode())])
    lines = written(capsys)
    assert spelling not in lines
    assert lines.count("[secret]") == 5


@pytest.mark.parametrize("form", ["console", "json"])
def test_a_secret_is_in_no_stack_of_ours_or_a_librarys_however_long_it_is(
    capsys: pytest.CaptureFixture[str], form: str
) -> None:
    token = "eyJ" + "k9" * 150  # longer than a line
    configure("INFO", form, [token])  # type: ignore[arg-type] # parametrized

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
