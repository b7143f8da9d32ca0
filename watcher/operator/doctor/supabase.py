"""Supabase: reachable, with a key that it takes, the schema that we need, and the doors as they were migrated."""

import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import httpx

from watcher.errors import Misconfigured, WatcherError
from watcher.operator.doctor import drift, queue, realtime
from watcher.operator.doctor.finding import KEYS, Finding, skipped, unanswered
from watcher.operator.format import duration
from watcher.operator.queries import Queries, opened
from watcher.photos.fetch import MAX_BYTES
from watcher.settings.settings import Settings
from watcher.supabase.storage import BUCKET
from watcher.supabase.verbs import SCHEMA, Verbs

_PAUSED = 540
"""Supabase's own status, as its page of HTTP status codes says."""
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
    async with opened(settings) as rpc:
        verbs, queries = Verbs(rpc), Queries(rpc)
        schema, newer = await _schema(verbs)
        yield schema
        if schema.state == "error":
            yield skipped("tables, policies, grants, bucket and Realtime")
            return
        broken = False
        if newer:
            yield skipped("tables, policies, grants and bucket; a newer watcher knows how they should be")
        else:
            async for finding in _catalogue(queries):
                broken = broken or finding.state == "error"
                yield finding
        for look in (_storage(settings, http), realtime.delivery(settings, verbs)):
            told = await look
            # What is broken above is most likely why.
            yield (replace(told, remedy="Mend what is said above first.") if broken and told.remedy else told)
        async for finding in queue.findings(settings, queries):
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
    if (trouble := _trouble("supabase reachable", "Supabase", response)) is not None:
        return trouble, None
    if response.status_code == httpx.codes.NOT_FOUND or response.is_redirect:
        return _elsewhere("supabase reachable", url, response), None
    if url.startswith("http://") and host not in {"localhost", "127.0.0.1", "::1"}:
        sentence = f"{url} is spoken to without TLS: the key goes over the network in the open."
        return Finding(
            "supabase reachable", "warning", sentence, f"Set SUPABASE_URL=https://{host}"
        ), response
    milliseconds = response.elapsed.total_seconds() * 1000
    return Finding("supabase reachable", "ok", f"{url} answers in {milliseconds:.0f} ms."), response


def _elsewhere(check: str, url: str, response: httpx.Response) -> Finding:
    sentence = f"What answers at {url} is no Supabase project (HTTP {response.status_code})."
    remedy = (
        "Set SUPABASE_URL to the project's URL alone, as https://REF.supabase.co, with no path behind it."
    )
    return Finding(check, "error", sentence, remedy)


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
    # Behind /rest/v1 of a project the gateway answers as the project itself does.
    if response.status_code == httpx.codes.NOT_FOUND and "PGRST205" not in response.text:
        return _elsewhere("key", settings.supabase_url, response)
    return _trouble("key", "REST", response) or Finding("key", "ok", "REST accepts the key.")


async def _schema(verbs: Verbs) -> tuple[Finding, bool]:
    """Look at the schema's version; also says whether it is newer than this program."""
    try:
        version = await verbs.check_version()
    except Misconfigured as error:
        upgrade = "upgrade the watcher" in str(error)
        remedy = (
            "Upgrade the watcher, then: watcher doctor"
            if upgrade
            else "SUPABASE_DB_URL='postgresql://postgres:…' watcher migrate"
        )
        return Finding("schema", "error", str(error), remedy), False
    except WatcherError as error:
        return unanswered("schema", "watcher_version", error), False
    if version > SCHEMA:
        sentence = f"The database's schema {version} is newer than this version's, and serves it."
        return Finding("schema", "ok", sentence), True
    return Finding("schema", "ok", "The database has the schema that this version needs."), False


async def _catalogue(queries: Queries) -> AsyncIterator[Finding]:
    try:
        now = await queries.catalogue()
    except WatcherError as error:
        yield unanswered("catalogue", "watcher_catalogue", error)
        return
    expected = drift.expected()
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
        drifts = list(look(now, expected))
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
    if (trouble := _trouble("storage", "Storage", response)) is not None:
        return trouble
    if (
        response.status_code in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}
        or "NoSuchBucket" not in response.text
    ):
        return Finding("storage", "error", f"Storage refuses the key: {_said(response)}.", KEYS)
    # The catalogue has it, so it is hidden: this role is to see past row-level security.
    sentence = f"Storage does not show the bucket {BUCKET} to the secret key, though it is there."
    return Finding("storage", "error", sentence, "alter role service_role bypassrls;")


def _trouble(check: str, who: str, response: httpx.Response) -> Finding | None:
    """Say what is the matter with the service or the whole project, whoever asks; None for nothing of that kind."""
    if response.status_code == _PAUSED:
        return Finding(
            check, "error", "The project is paused.", "Restore it: https://supabase.com/dashboard."
        )
    if response.status_code == httpx.codes.PAYMENT_REQUIRED:
        sentence = f"Supabase restricts the project: {_said(response)}."
        return Finding(check, "error", sentence, "See usage and billing: https://supabase.com/dashboard.")
    if response.is_server_error:
        sentence = f"{who} is in trouble: {_said(response)}."
        return Finding(check, "error", sentence, "Wait: https://status.supabase.com.")
    return None


def _said(response: httpx.Response) -> str:
    """Return the status, and what the answer says besides."""
    try:
        told = response.json()
    except ValueError:
        told = None
    said = told.get("message") or told.get("msg") or told.get("error") if isinstance(told, dict) else None
    return f"HTTP {response.status_code}" + (f", {str(said)[:200].rstrip('.')}" if said else "")


def _headers(settings: Settings) -> Mapping[str, str]:
    key = settings.supabase_key.get_secret_value()
    return {"apikey": key, "Authorization": f"Bearer {key}"}


def _about_tls(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return True
        error = error.__cause__ or error.__context__
    return False
