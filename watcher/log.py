"""How we log: named events with fields, through one pipe with the libraries' own, and never a secret."""

import base64
import logging
import sys
from collections.abc import Iterable
from typing import Literal
from urllib.parse import quote

import structlog
from structlog.typing import Processor


class _Redacting(structlog.stdlib.ProcessorFormatter):
    """The last stage before a line leaves: whatever wrote it, the secrets go out of it."""

    secrets: frozenset[str] = frozenset()

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        for secret in self.secrets:
            line = line.replace(secret, "[secret]")
        return line


def configure(
    level: str = "INFO",
    form: Literal["auto", "console", "json"] = "auto",
    secrets: Iterable[str] = (),
    **everywhere: str,
) -> None:
    """Send all logging to stderr, with the fields `everywhere` in every line.

    The libraries are heard from WARNING on, or from DEBUG on when `level` is DEBUG.
    """
    console = form == "console" or (form == "auto" and sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if console else "iso", utc=not console),
    ]
    formatter = _Redacting(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            *(
                [
                    # Not rich's stacks: they show local variables, and cut or wrap a secret beyond recognition.
                    structlog.dev.ConsoleRenderer(
                        colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
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
    formatter.secrets = frozenset(spelling for secret in secrets for spelling in _spellings(secret))
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.DEBUG if level == "DEBUG" else logging.WARNING)
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
    structlog.contextvars.bind_contextvars(**everywhere)


def _spellings(secret: str) -> Iterable[str]:
    """How a secret may be written in a URL, a header or a dump."""
    yield secret
    yield quote(secret, safe="")
    yield base64.b64encode(secret.encode()).decode()
