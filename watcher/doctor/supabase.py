"""Supabase: reachable, with a key that it takes, the schema that we need, and the doors as they were migrated."""

import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import httpx

from watcher.app import rows_of
from watcher.doctor import drift, queue, realtime
from watcher.doctor.finding import KEYS, Finding, skipped, unanswered
from watcher.errors import Misconfigured, WatcherError
from watcher.images import BUCKET, MAX_BYTES
from watcher.rows import Rows
from watcher.settings import Settings
from watcher.words import duration

_SKEW = 60.0
"""Seconds; more than that, and TLS and tokens begin to be refused."""


async def findings(settings: Settings, http: httpx.AsyncClient) -> AsyncIterator[Finding]:
    """Look from the network inwards; where something is broken, what depends on it is not looked at."""
    reachable, answer = await _reach(settings.supabase_url, http)
    yield reachable
    if answer is None:
        yield skipped("everything else of Supabase")
        return
    off = clock(answer)
    if off is not None:
        yield off
    key = await _key(settings, http)
    yield key
    if key.state == "error":
        yield skipped("everything else of Supabase")
        return
    async with rows_of(settings) as rows:
        schema = await _schema(rows)
        yield schema
        if schema.state == "error":
            yield skipped("tables, policies, grants, bucket and Realtime")
            return
        broken = False
        async for finding in _catalogue(rows):
            broken = broken or finding.state == "error"
            yield finding
        yield await _storage(settings, http)
        told = await realtime.delivery(settings, rows)
        # What is broken above is most likely why.
        yield (replace(told, remedy="Mend what is said above first.") if broken and told.remedy else told)
        async for finding in queue.findings(settings, rows):
            yield finding


async def _reach(url: str, http: httpx.AsyncClient) -> tuple[Finding, httpx.Response | None]:
    host = urlsplit(url).hostname
    try:
        response = await http.get(f"{url}/auth/v1/health")
    except httpx.HTTPError as error:
        broken = "TLS with" if _about_tls(error) else "Nothing answers at"
        remedy = (
            "Look at the certificate, and at this host's clock: `timedatectl`."
            if _about_tls(error)
            else f"Look at SUPABASE_URL, at the network (`curl -v {url}/auth/v1/health`), and whether the project is "
            "paused: https://supabase.com/dashboard."
        )
        said = str(error) or type(error).__name__
        return Finding("supabase reachable", "error", f"{broken} {url}: {said}.", remedy), None
    if response.is_server_error:
        sentence = f"Supabase is in trouble: {url} answers HTTP {response.status_code}."
        return Finding("supabase reachable", "error", sentence, "Wait: https://status.supabase.com."), None
    if url.startswith("http://") and host not in {"localhost", "127.0.0.1", "::1"}:
        sentence = f"{url} is spoken to without TLS: the key goes over the network in the open."
        return Finding(
            "supabase reachable", "warning", sentence, f"Set SUPABASE_URL=https://{host}"
        ), response
    milliseconds = response.elapsed.total_seconds() * 1000
    return Finding("supabase reachable", "ok", f"{url} answers in {milliseconds:.0f} ms."), response


def clock(answer: httpx.Response) -> Finding | None:
    """Compare this host's clock with the one in an answer; None where it names no time."""
    try:
        theirs = parsedate_to_datetime(answer.headers["Date"])
    except (KeyError, ValueError):
        return None
    # The one place where this host's clock is asked: it is what is being looked at.
    ours = datetime.now(UTC)  # noqa: TID251
    off = (ours - theirs).total_seconds()
    if abs(off) < _SKEW:
        return Finding("clock", "ok", "This host's clock agrees with Supabase's.")
    sentence = f"This host's clock is {duration(abs(off))} {'fast' if off > 0 else 'slow'}."
    return Finding("clock", "warning", sentence, "sudo timedatectl set-ntp true")


async def _key(settings: Settings, http: httpx.AsyncClient) -> Finding:
    url = f"{settings.supabase_url}/rest/v1/trained_identities?select=id&limit=0"
    try:
        response = await http.get(url, headers=_headers(settings))
    except httpx.HTTPError as error:
        return Finding(
            "key", "error", f"REST does not answer: {str(error) or type(error).__name__}.", "Wait."
        )
    if response.status_code == httpx.codes.UNAUTHORIZED:
        public = "42501" in response.text
        sentence = "SUPABASE_SECRET_KEY is a public key." if public else "Supabase refuses the key."
        return Finding("key", "error", sentence, KEYS)
    if response.is_server_error:
        sentence = f"REST is in trouble: HTTP {response.status_code}."
        return Finding("key", "error", sentence, "Wait: https://status.supabase.com.")
    return Finding("key", "ok", "REST accepts the key.")


async def _schema(rows: Rows) -> Finding:
    try:
        await rows.check_version()
    except Misconfigured as error:
        upgrade = "upgrade the watcher" in str(error)
        remedy = (
            "Upgrade the watcher, then: watcher doctor"
            if upgrade
            else "SUPABASE_DB_URL='postgresql://postgres:…' watcher migrate"
        )
        return Finding("schema", "error", str(error), remedy)
    except WatcherError as error:
        return unanswered("schema", "watcher_version", error)
    return Finding("schema", "ok", "The database has the schema that this version needs.")


async def _catalogue(rows: Rows) -> AsyncIterator[Finding]:
    try:
        told = await rows.catalogue()
    except WatcherError as error:
        yield unanswered("catalogue", "watcher_catalogue", error)
        return
    now, then = told["now"], told["as_migrated"]
    looks: tuple[tuple[str, Callable[..., Iterator[drift.Drift]], str], ...] = (
        ("row-level security", drift.tables, "Row-level security is on."),
        ("policies", drift.policies, "The policies are as migrated."),
        ("grants", drift.grants, "The grants are as migrated."),
        ("triggers", drift.triggers, "The triggers are on."),
        (
            "bucket",
            drift.bucket,
            f"The bucket {BUCKET} is private and takes JPG and PNG up to {MAX_BYTES // 2**20} MiB.",
        ),
        (
            "publication",
            drift.publication,
            "The table and the pulse are in the publication supabase_realtime.",
        ),
    )
    for check, look, well in looks:
        drifts = list(look(now, then))
        for found in drifts:
            yield Finding(check, "error", found.sentence, found.remedy)
        if not drifts:
            yield Finding(check, "ok", well)


async def _storage(settings: Settings, http: httpx.AsyncClient) -> Finding:
    try:
        response = await http.get(
            f"{settings.supabase_url}/storage/v1/bucket/{BUCKET}", headers=_headers(settings)
        )
    except httpx.HTTPError as error:
        return Finding(
            "storage", "error", f"Storage does not answer: {str(error) or type(error).__name__}.", "Wait."
        )
    if response.is_success:
        return Finding("storage", "ok", "Storage accepts the key and has the bucket.")
    sentence = (
        f"Storage does not show the bucket {BUCKET}: {response.text[:200]} (HTTP {response.status_code})."
    )
    return Finding("storage", "error", sentence, KEYS)


def _headers(settings: Settings) -> Mapping[str, str]:
    key = settings.supabase_key.get_secret_value()
    return {"apikey": key, "Authorization": f"Bearer {key}"}


def _about_tls(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return True
        error = error.__cause__ or error.__context__
    return False
