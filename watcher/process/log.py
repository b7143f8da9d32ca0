"""Logging: named events with fields, in one stream with the libraries' lines, on stderr, all without secrets.

The table of events in docs/operating.md has their fields and meanings.
"""

import base64
import logging
import os
import re
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Literal
from urllib.parse import quote

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

_SECRETS: set[str] = set()
"""The secrets, in each encoding in which they may be written."""

_PERSONAL = (
    (re.compile(r"(Image \d+) \([A-Za-z0-9 ._()+@=?-]{1,80}\)"), r"\1"),
    # A key may have spaces: it ends with the last extension of a file, or else at the first space.
    (
        re.compile(
            r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}/"
            r"(?:[A-Za-z0-9 ._()+@=%/-]*\.[A-Za-z][A-Za-z0-9]{1,4}(?![A-Za-z0-9%])|[^\s\"'?]+)"
        ),
        "[photo]",
    ),
    (re.compile(r"\b(?:[A-Za-z0-9._-]+/)?identity-[a-z0-9-]+-\d{9,11}\b"), "[repo]"),
)

# Beside \n. JSON leaves those beyond ASCII as they are, and programs that read lines break at them.
_OTHER_LINE_ENDS = re.compile(r"[\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
# The priorities of journald, see sd-daemon(3).
_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


class _Formatter(structlog.stdlib.ProcessorFormatter):
    """Formats every line, also those of libraries: redacts secrets, and adds the priority for journald."""

    journal = False

    def format(self, record: logging.LogRecord) -> str:
        text = _OTHER_LINE_ENDS.sub(" ", impersonal(redact(super().format(record))))
        if not self.journal:
            return text
        prefix = f"<{_PRIORITIES.get(record.levelno, 6)}>"
        return "\n".join(prefix + line for line in text.split("\n"))


def configure(
    level: str = "INFO",
    form: Literal["auto", "console", "json"] = "auto",
    secrets: Iterable[str] = (),
    environment: Mapping[str, str] | None = None,
    **fields: str,
) -> None:
    """Send all logging and Python's warnings to stderr, with `fields` in every line.

    Libraries are logged from WARNING up, or from DEBUG up if `level` is DEBUG, but for those that would log rows. Read from
    `environment`: JOURNAL_STREAM (stderr is the journal), NO_COLOR and TERM.
    """
    environment = environment or {}
    console = form == "console" or (form == "auto" and not is_journal(environment))
    shared = _shared_processors(fields, local_time=console and sys.stderr.isatty())
    _SECRETS.clear()
    _SECRETS.update(encoded for secret in secrets for encoded in _encodings(secret))
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_formatter(shared, environment, console=console))
    logging.getLogger().handlers = [handler]
    _set_levels(level)
    # Its own handler writes to stderr without redaction.
    logging.getLogger("huggingface_hub").handlers.clear()
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def _shared_processors(fields: Mapping[str, str], *, local_time: bool) -> list[Processor]:
    """Return the processors of all lines, ours and the libraries'."""

    def add_fields(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        # Not as context variables, which the threads of libraries do not inherit.
        return {**fields, **event}

    return [
        structlog.contextvars.merge_contextvars,
        add_fields,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if local_time else "iso", utc=not local_time),
    ]


def _formatter(shared: list[Processor], environment: Mapping[str, str], *, console: bool) -> _Formatter:
    if console:
        no_colors = environment.get("NO_COLOR") or environment.get("TERM") == "dumb"
        # Not rich's tracebacks: they show local variables, and may wrap or cut a secret so that it is not redacted.
        renderers: list[Processor] = [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty() and not no_colors,
                exception_formatter=structlog.dev.plain_traceback,
            )
        ]
    else:
        renderers = [
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ]
    formatter = _Formatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
    )
    formatter.journal = is_journal(environment)
    return formatter


def _set_levels(level: str) -> None:
    debug = level == "DEBUG"
    logging.getLogger().setLevel(logging.DEBUG if debug else logging.WARNING)
    logging.captureWarnings(capture=True)
    logging.getLogger("watcher").setLevel(level)
    # They would log rows whole, with names; and one or two errors for each lost connection, which the feed logs once.
    logging.getLogger("realtime._async.client").setLevel(logging.CRITICAL)
    for chatty in ("realtime", "websockets"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def redact(text: str) -> str:
    """Replace the secrets that `configure` was given with `[secret]`."""
    for secret in _SECRETS:
        text = text.replace(secret, "[secret]")
    return text


def impersonal(text: str) -> str:
    """Leave out what names a person: the files of images, whose numbers stay, keys in the bucket, and names of repos."""
    for pattern, replacement in _PERSONAL:
        text = pattern.sub(replacement, text)
    return text


def is_journal(environment: Mapping[str, str]) -> bool:
    """Whether stderr is connected directly to the journal."""
    with suppress(OSError, ValueError):  # stderr may have no file descriptor
        stderr = os.fstat(sys.stderr.fileno())
        return environment.get("JOURNAL_STREAM") == f"{stderr.st_dev}:{stderr.st_ino}"
    return False


def _encodings(secret: str) -> Iterable[str]:
    """Yield the forms of a secret in a URL, a header or a dump."""
    yield secret
    yield quote(secret, safe="")
    raw = secret.encode()
    for prefix in range(3):
        # Base64 after a prefix, as in `user:password`, at each alignment: the characters that encode only the secret.
        first, last = -(-prefix * 8 // 6), (prefix + len(raw)) * 8 // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield encode(bytes(prefix) + raw)[first:last].decode()
