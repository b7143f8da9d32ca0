"""Secrets, and text that looks like something else: every encoding at every place where text is written or stored."""

import base64
import html
import json
import logging
import re
import textwrap
from collections.abc import Callable, Iterator
from time import process_time
from typing import Literal
from urllib.parse import quote

import pytest
import structlog

from watcher.errors import Transient
from watcher.operator import screens, terminal
from watcher.operator.doctor import report
from watcher.operator.doctor.finding import Finding
from watcher.process.log import configure, impersonal, redact
from watcher.process.redaction import Redactor
from watcher.process.text import private_reason, quoted, storable
from watcher.process.untrusted import one_line, without_queries

SECRET = "sb_secret_a/b+c=d&e<Qz7"
RAW = SECRET.encode()


def each(form: str) -> str:
    return "".join(form.format(ord(character)) for character in SECRET)


ENCODINGS = {
    "plain": SECRET,
    "URL": quote(SECRET, safe=""),
    "URL twice": quote(quote(SECRET, safe=""), safe=""),
    "URL three times, each character": each("%2525{:02X}"),
    "base64": base64.b64encode(RAW).decode(),
    "base64 after a user's name": base64.b64encode(b"user:" + RAW).decode(),
    "base64 of a URL": base64.urlsafe_b64encode(b"a" + RAW).decode(),
    "base64 by lines": "\n".join(textwrap.wrap(base64.b64encode(RAW).decode(), 12)),
    "base32": base64.b32encode(RAW).decode(),
    "base32 after a user's name": base64.b32encode(b"me:" + RAW).decode(),
    "base32 in small letters": base64.b32encode(RAW).decode().lower(),
    "hex": RAW.hex(),
    "hex in capitals": RAW.hex().upper(),
    "hex with colons": RAW.hex(":"),
    "bytes of Python": each("\\x{:02x}"),
    "bytes of C": ", ".join(f"0x{byte:02x}" for byte in RAW),
    "entities": html.escape(SECRET),
    "entities twice": html.escape(html.escape(SECRET)),
    "decimal entities": each("&#{};"),
    "hexadecimal entities": each("&#x{:X};"),
    "entities in a URL": quote(each("&#{};")),
    "reversed": SECRET[::-1],
    "hex reversed": RAW.hex()[::-1],
    "JSON": json.dumps(SECRET).replace("/", "\\/"),
    "JSON in JSON": json.dumps(json.dumps(SECRET).replace("/", "\\/")),
    "escapes of JSON": each("\\u{:04x}"),
    "escapes of JSON in JSON": json.dumps(each("\\u{:04x}")),
    "split by ends of lines": "\r\n    ".join(SECRET),
    "split by escaped ends of lines": "\\n".join(textwrap.wrap(SECRET, 5)),
    "split by colours": "\x1b[1;31m".join(SECRET),
    "split by what is invisible": "\u200b".join(SECRET),
    "split by bidi": "\u202e".join(SECRET),
}


def written(
    capsys: pytest.CaptureFixture[str], form: Literal["console", "json"], write: Callable[[], None]
) -> str:
    configure("DEBUG", form, [SECRET])
    write()
    return capsys.readouterr().err


def raised(text: str) -> None:
    try:
        raise ValueError(text)
    except ValueError:
        logging.getLogger("httpx").exception("failed")


def doctors(caught: pytest.CaptureFixture[str], text: str) -> str:
    report.show(report.redacted(Finding("x", "error", text, text)), terminal.console())
    return caught.readouterr().out


# Where a text goes that a service has sent.
PLACES: dict[str, Callable[[pytest.CaptureFixture[str], str], str]] = {
    "a line of ours": lambda caught, text: written(
        caught, "console", lambda: structlog.get_logger("watcher.x").warning("outage", reason=text, of=[text])
    ),
    "a line of ours, as JSON": lambda caught, text: written(
        caught, "json", lambda: structlog.get_logger("watcher.x").warning("outage", reason=text, of=[text])
    ),
    "a library's line": lambda caught, text: written(
        caught, "console", lambda: logging.getLogger("httpx").warning("GET %s", text)
    ),
    "a library's line, as JSON": lambda caught, text: written(
        caught, "json", lambda: logging.getLogger("httpx").warning("GET %s", text)
    ),
    "an exception": lambda caught, text: written(caught, "console", lambda: raised(text)),
    "an exception, as JSON": lambda caught, text: written(caught, "json", lambda: raised(text)),
    "a URL": lambda caught, text: written(
        caught, "json", lambda: logging.getLogger("httpx").warning("GET /sign/%s/x?a=%s", text, text)
    ),
    "error_message": lambda _, text: storable(text),
    "a reason": lambda _, text: private_reason(text),
    "a quote": lambda _, text: quoted(text, otherwise=""),
    "the screen of status": lambda _, text: str(screens.retrying(Transient(text), 2)),
    "the screen of doctor": doctors,
}


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("watcher")
    before = (root.handlers, root.level, ours.level)
    configure(secrets=[SECRET])
    yield
    configure()
    root.handlers, root.level, ours.level = before
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


def tells(text: str) -> bool:
    """Return whether a few characters of the secret are left, in whatever encoding."""
    letters = re.sub(r"\W", "", text)
    return any(
        piece in letters for piece in ("ecret_a", "a_terce", "7365637265745f", "c2VjcmV0", "zZWNyZX", "ONSWG")
    )


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_no_encoding_of_a_secret_is_written_anywhere(
    capsys: pytest.CaptureFixture[str], encoding: str, place: str
) -> None:
    form = ENCODINGS[encoding]
    text = PLACES[place](capsys, f"before ({form}) after")
    assert form not in text
    assert json.dumps(form)[1:-1] not in text
    assert "[secret]" in text
    assert not tells(text)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_what_stands_around_a_secret_stays(encoding: str) -> None:
    around = redact(f"before ({ENCODINGS[encoding]}) %61fter\n")
    assert around.startswith("before (")
    assert around.endswith(") %61fter\n")


@pytest.mark.parametrize("secret", ["c:\\new\\t", "Zoë 李雷 x", "100%41 &amp; more", "abc=\n=def", "pw"])
def test_a_secret_may_look_like_an_escape_itself(secret: str) -> None:
    redacted = Redactor([secret])
    for form in (secret, quote(secret), quote(quote(secret))):
        assert redacted(f"a {form} b") == "a [secret] b"


def test_text_without_a_secret_is_left_as_it_is() -> None:
    text = "100 % of %41, &amp; and \\u0041 in C:\\new\nlines \x1b[0m"
    assert redact(text) == text
    assert Redactor([""])(text) == text


ATTACKS = {
    "<b>bold</b><script>alert(1)</script>": "HTML",
    "502 <!DOCTYPE html><html onload=x": "a page",
    "\x1b]0;title\x07 \x1b[2J \x9b31m": "escapes of a terminal",
    "\u202egnp.exe \u2066x\u2069 \u061c": "another direction of writing",
    "one\r\n12:00:00 [info] all is well\x0b\x85\u2028two": "another line",
    "lone \ud800 half": "half a character",
}
UNSAFE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ud800-\udfff]")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("attack", ATTACKS, ids=ATTACKS.values())
def test_nothing_controls_a_terminal_or_adds_a_line(
    capsys: pytest.CaptureFixture[str], attack: str, place: str
) -> None:
    text = PLACES[place](capsys, attack)
    assert not UNSAFE.search(text.replace("\r\n", "\n"))
    if "exception" not in place and "screen" not in place:
        assert len(text.splitlines()) <= 1
    if place in {"error_message", "a reason", "a quote"}:
        assert not re.search(r"<[!/?a-zA-Z]", text)


@pytest.mark.parametrize("attack", ATTACKS, ids=ATTACKS.values())
def test_json_on_a_screen_has_it_escaped(capsys: pytest.CaptureFixture[str], attack: str) -> None:
    terminal.print_json({"name": attack})
    printed = capsys.readouterr().out
    assert not UNSAFE.search(printed)
    assert json.loads(printed) == {"name": attack}


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("GET https://abc.co/a/b?token=eyJ.x#y failed", "GET https://abc.co/a/b failed"),
        ("'https://s3/x?X-Amz-Signature=0a'", "'https://s3/x'"),
        ('"GET /object/sign/a?token=eyJhb.c-d_e&x=1"', '"GET /object/sign/a?token=[secret]&x=1"'),
        ("/a?x=1\\u0026token=eyJ\\u0026y=2", "/a?x=1\\u0026token=[secret]"),
        ("Is that so? token = yes", "Is that so? token = yes"),
    ],
)
def test_what_signs_a_url_is_left_out(text: str, kept: str) -> None:
    assert without_queries(text) == kept


LONG = 1_000_000


@pytest.mark.parametrize(
    "piece",
    ["a", "%41", "%25", "a\n", "\\", "\\u0041", "&", "&amp;", "&#65;", "https://", "a.", "identity-", "<a", "?",
     "3f0c2f4e-8a8b-4c57-9a0e-0d5f0f3f9b11/ ", SECRET, "\\".join(SECRET), "\x1b[", "=\n", "?token=", "%2525"],
)  # fmt: skip
def test_a_long_line_takes_its_length_and_not_its_square(piece: str) -> None:
    def seconds(length: int) -> float:
        text, began = (piece * (length // len(piece) + 1))[:length], process_time()
        one_line(storable(impersonal(text)))
        return process_time() - began

    # A square would take a hundred times as long, and minutes.
    assert seconds(LONG) < max(40 * seconds(LONG // 10), 1)
