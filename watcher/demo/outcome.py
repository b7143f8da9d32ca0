"""Says how the demo failed: in a sentence, and as JSON if that is wanted."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import click
import httpx
import httpx2
from supabase import AuthError, PostgrestAPIError, StorageException

from watcher.errors import Transient
from watcher.process.log import redact
from watcher.process.text import storable


@contextmanager
def said(*, as_json: bool) -> Iterator[None]:
    """Print also a failure of the block as one line of JSON with `status` and `error`, if wanted.

    Raises Transient where a service has refused something, and click's Abort where the block was cancelled.
    """
    try:
        with _in_words():
            yield
    except (KeyboardInterrupt, click.Abort):
        _print("interrupted", "It was stopped before its end.", as_json=as_json)
        raise
    except Exception as error:
        _print("failed", redact(str(error)) or type(error).__name__, as_json=as_json)
        raise


@contextmanager
def _in_words() -> Iterator[None]:
    try:
        yield
    except asyncio.CancelledError:
        raise click.Abort from None
    except (httpx.HTTPError, httpx2.HTTPError, AuthError, PostgrestAPIError, StorageException) as error:
        why = storable(str(error)) or type(error).__name__
        raise Transient(f"A service refused what the demo asked, or did not answer: {why}") from error


def _print(status: str, why: str, *, as_json: bool) -> None:
    if as_json:
        with suppress(OSError):  # also where nobody reads it any more
            click.echo(json.dumps({"status": status, "error": why}, ensure_ascii=False))
