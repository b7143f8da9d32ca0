"""What each error of huggingface_hub and of the system means for a row."""

import errno
import json

import httpx2
import pytest
from huggingface_hub.errors import HfHubHTTPError

from watcher.errors import Outage, Refused, Rejected, Transient
from watcher.hub.errors import Conflict, body_of, retry_after, translate


def caused_by(cause: Exception) -> Exception:
    """An error of the library's with another one as its cause."""
    error = RuntimeError("Error while uploading 'images/image_001.jpg' to the Hub.")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), Outage, "No space left on this host"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), Outage, "No space left on this host: Disk quota"),
        (OSError(errno.EMFILE, "Too many open files"), Outage, "cannot open more files"),
        (RuntimeError("can't start new thread"), Outage, "cannot start more threads"),
        (httpx2.ReadTimeout(""), Transient, "could not be reached: ReadTimeout"),
        (json.JSONDecodeError("Expecting value", "<html>", 0), Transient, "could not be reached"),
        (OSError(errno.EIO, "Input/output error"), Transient, "The upload failed"),
        (ValueError("Invalid metadata in README.md.\n- license"), Rejected, "refused the model card"),
        (ValueError("anything else"), Transient, "The upload failed: anything else"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else str(value)[:30],
)
def test_each_error_is_sorted_by_what_can_be_done(error: Exception, kind: type[Exception], says: str) -> None:
    translated = translate(error)
    assert type(translated) is kind
    assert says in str(translated)


def test_the_reason_is_found_in_the_cause_and_what_is_ours_stays_as_it_is() -> None:
    assert isinstance(translate(caused_by(httpx2.ConnectError("refused"))), Transient)
    ours = Conflict("412")
    assert translate(caused_by(ours)) is ours
    unknown = KeyError("a bug")
    assert translate(unknown) is unknown


@pytest.mark.parametrize("status", [402, 403])
@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("Private repository storage limit reached, please upgrade your plan.", Outage),
        ("Your storage patterns tripped our internal systems.", Outage),
        ("You have used up your storage quota.", Outage),
        ("Quota exceeded", Outage),
        ("Access to acme/identity-quota-1234567890 is disabled.", Refused),
        ("Access to identity-quota is disabled.", Refused),
        ("Access to quota/identity-ada-1234567890 is disabled.", Refused),
        ("Access to the.quota.labs/identity-ada-1234567890 is disabled.", Refused),
    ],
)
def test_a_refusal_speaks_of_the_account_or_of_a_repo_whatever_its_name(
    status: int, said: str, kind: type[Exception]
) -> None:
    response = httpx2.Response(status, json={"error": said}, request=httpx2.Request("POST", "https://hub/x"))
    translated = translate(HfHubHTTPError(said, response=response, server_message=said))
    assert type(translated) is kind
    assert not isinstance(translated, Outage) or translated.of_kind, "What else is done stores nothing there."


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, None),
        ({}, None),
        ({"RateLimit": '"api";r=0;t=200', "RateLimit-Policy": '"fixed window";"api";q=1000;w=300'}, 200.0),
    ],
)
def test_the_time_to_wait_is_the_windows_end_or_what_the_header_names(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert retry_after(httpx2.Response(429, headers=headers)) == seconds


@pytest.mark.parametrize(
    ("content", "said"),
    [(b'{"error": "Full."}', "Full."), (b" plain \n", "plain"), (b"", "Too Many Requests"), (b"[]", "[]")],
)
def test_the_message_of_an_answer_is_its_error_its_text_or_its_status(content: bytes, said: str) -> None:
    assert body_of(httpx2.Response(429, content=content)) == said
