"""How we log: named events with fields, through one pipe with the libraries' own, and never a secret.

The events, with their fields and what they mean, stand in one table in docs/operating.md.
"""

import base64
import logging
import os
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Literal
from urllib.parse import quote

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

_SPELLED: set[str] = set()
"""The secrets, in every spelling that we know of."""

# As journald takes them, see sd-daemon(3).
_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


class _LastStage(structlog.stdlib.ProcessorFormatter):
    """Whatever wrote the line: the secrets go out of it, and journald is told how much it matters."""

    journal = False

    def format(self, record: logging.LogRecord) -> str:
        text = redact(super().format(record))
        if not self.journal:
            return text
        prefix = f"<{_PRIORITIES.get(record.levelno, 6)}>"
        return "\n".join(prefix + line for line in text.splitlines())


def configure(
    level: str = "INFO",
    form: Literal["auto", "console", "json"] = "auto",
    secrets: Iterable[str] = (),
    environment: Mapping[str, str] | None = None,
    **everywhere: str,
) -> None:
    """Send all logging and Python's warnings to stderr, with the fields `everywhere` in every line.

    The libraries are heard from WARNING on, or from DEBUG on when `level` is DEBUG. `environment` may say that stderr
    is the journal (JOURNAL_STREAM), or that colours are not wanted (NO_COLOR).
    """
    environment = environment or {}
    journal, terminal = is_journal(environment), sys.stderr.isatty()
    console = form == "console" or (form == "auto" and not journal)
    coloured = terminal and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"

    def add_fields(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        # No context variables: a library's thread has none of ours.
        return {**everywhere, **event}

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        add_fields,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(
            fmt="%H:%M:%S" if console and terminal else "iso", utc=not (console and terminal)
        ),
    ]
    formatter = _LastStage(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            *(
                [
                    # Not rich's stacks: they show local variables, and cut or wrap a secret beyond recognition.
                    structlog.dev.ConsoleRenderer(
                        colors=coloured, exception_formatter=structlog.dev.plain_traceback
                    )
                ]
                if console
                else [
                    structlog.processors.format_exc_info,
                    structlog.processors.JSONRenderer(ensure_ascii=False),
                ]
            ),
        ],
    )
    formatter.journal = journal
    _SPELLED.clear()
    _SPELLED.update(spelling for secret in secrets for spelling in _spellings(secret))
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.DEBUG if level == "DEBUG" else logging.WARNING)
    logging.captureWarnings(capture=True)
    logging.getLogger("watcher").setLevel(level)
    # Each of its lost sockets is a line or two of error; the feed says it, once.
    logging.getLogger("realtime._async.client").setLevel(
        logging.DEBUG if level == "DEBUG" else logging.CRITICAL
    )
    # It writes to stderr by itself, beside us and with secrets in it.
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


def redact(text: str) -> str:
    """Strike the secrets that `configure` was given out of a text."""
    for spelling in _SPELLED:
        text = text.replace(spelling, "[secret]")
    return text


def is_journal(environment: Mapping[str, str]) -> bool:
    """Whether what we write to stderr goes to the journal, without anything between."""
    with suppress(OSError, ValueError):  # stderr may be no file at all
        stderr = os.fstat(sys.stderr.fileno())
        return environment.get("JOURNAL_STREAM") == f"{stderr.st_dev}:{stderr.st_ino}"
    return False


def _spellings(secret: str) -> Iterable[str]:
    """How a secret may be written in a URL, a header or a dump."""
    yield secret
    yield quote(secret, safe="")
    raw = secret.encode()
    for before in range(3):
        # Behind something else, as in `user:password`: the characters that stand for the secret's own bits alone.
        first, last = -(-before * 8 // 6), (before + len(raw)) * 8 // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield encode(bytes(before) + raw)[first:last].decode()
