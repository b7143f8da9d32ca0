"""Logging: named events with fields, in one stream with the libraries' lines, on stderr, all without secrets.

The table of events in docs/operating.md has their fields and meanings.
"""

import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Literal

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from watcher.process.redaction import Redactor
from watcher.process.untrusted import one_line, plain, without_queries

_redactor = Redactor()
"""Knows the secrets that `configure` was given."""

_PERSONAL = (
    (re.compile(r"(Image \d+) \([A-Za-z0-9 ._()+@=?-]{1,80}\)"), r"\1"),
    # A key may have spaces: it ends with the last extension of a file, or else at the first space.
    (
        re.compile(
            r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}/"
            r"(?:[A-Za-z0-9 ._()+@=%/-]{0,1024}\.[A-Za-z][A-Za-z0-9]{1,4}(?![A-Za-z0-9%])|[^\s\"'?]+)"
        ),
        "[photo]",
    ),
    (re.compile(r"\b(?:[A-Za-z0-9._-]{1,96}/)?identity-[a-z0-9-]{1,96}-\d{9,11}\b"), "[repo]"),
)

# The priorities of journald, see sd-daemon(3).
_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


class _Formatter(structlog.stdlib.ProcessorFormatter):
    """Formats every line, also those of libraries: redacts secrets, and adds the priority for journald."""

    journal = False

    def format(self, record: logging.LogRecord) -> str:
        text = impersonal(without_queries(redact(super().format(record))))
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
    global _redactor  # noqa: PLW0603  (one for the process, as logging itself)
    _redactor = Redactor(secrets)
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
        renderers: list[Processor] = [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty() and not no_colors,
            )
        ]
    else:
        renderers = [
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ]
    formatter = _Formatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            # Not rich's tracebacks, which show local variables.
            structlog.processors.format_exc_info,
            _plain_lines if console else _plain_values,
            *renderers,
        ],
    )
    formatter.journal = is_journal(environment)
    return formatter


def _plain_values(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Leave no character in the event's texts that controls a terminal; JSON escapes ends of lines."""
    return {key: _cleaned(value, plain) for key, value in event.items()}


def _plain_lines(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Make each of the event's texts one such line, but for stacks, so that no text looks like another event."""
    stacks = {"exception", "stack"}
    return {key: _cleaned(value, plain if key in stacks else one_line) for key, value in event.items()}


def _cleaned(value: object, clean: Callable[[str], str]) -> object:
    if isinstance(value, str):
        # Redacted first: what splits a secret could no longer be told from what was in it.
        return clean(redact(value))
    if isinstance(value, Mapping):
        return {key: _cleaned(inner, clean) for key, inner in value.items()}
    return [_cleaned(inner, clean) for inner in value] if isinstance(value, list | tuple) else value


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
    """Replace the secrets that `configure` was given with `[secret]`, however they are encoded."""
    return _redactor(text)


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
