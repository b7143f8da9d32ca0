"""Checks Supabase: network, key, schema, permissions, Storage, Realtime and queue, from the outside in."""

import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from urllib.parse import urlsplit

import httpx

from watcher.errors import Misconfigured, WatcherError
from watcher.operator.doctor import drift, erasing, queue, realtime
from watcher.operator.doctor.definitions import definitions
from watcher.operator.doctor.finding import KEY_REMEDY, REPAIR, Finding, skipped, unanswered
from watcher.operator.format import duration
from watcher.operator.queries import Queries, connected
from watcher.settings.settings import Settings
from watcher.supabase.storage import BUCKET, SAMPLES
from watcher.supabase.verbs import SCHEMA, Verbs

_PAUSED = 540
"""Supabase's own HTTP status for a paused project, from its documentation of status codes."""
_LATER = "Try again in a minute; see https://status.supabase.com."
_LONGEST_SQL = 8
"""Lines that are pasted rather than left to `watcher migrate --repair`."""
_MOST_REMEDIES = 5
"""Remedies of one check that are pasted one by one."""
_SKEW = 60.0
"""Seconds of clock skew from which TLS and tokens may be refused."""


async def findings(settings: Settings, http: httpx.AsyncClient) -> AsyncIterator[Finding]:
    """Make the checks in order; what depends on something broken is skipped."""
    reachable, answer = await _reach(settings.supabase_url, http)
    yield reachable
    if answer is None:
        yield skipped("the rest of Supabase")
        return
    skew = clock(answer)
    if skew is not None:
        yield skew
    key = await _key(settings, http)
    yield key
    if key.state == "error":
        yield skipped("the rest of Supabase")
        return
    async with connected(settings) as rpc:
        verbs, queries = Verbs(rpc), Queries(rpc)
        schema, newer = await _schema(verbs)
        yield schema
        if schema.state == "error":
            yield skipped("tables, policies, grants, bucket and Realtime")
            return
        broken = False
        if newer:
            yield skipped("tables, policies, grants and bucket; only a newer program knows what to expect")
        else:
            async for finding in _catalogue(queries):
                broken = broken or finding.state == "error"
                yield finding
        for check in (partial(_storage, settings, http), partial(realtime.delivery, settings, verbs)):
            found = await check()
            # Most likely a consequence of what is broken above.
            yield replace(found, remedy="Fix the errors above first.") if broken and found.remedy else found
        async for finding in queue.findings(settings, queries):
            yield finding
        async for finding in erasing.findings(settings, queries):
            yield finding


async def _reach(url: str, http: httpx.AsyncClient) -> tuple[Finding, httpx.Response | None]:
    host = urlsplit(url).hostname
    try:
        response = await http.get(f"{url}/auth/v1/health")
    except httpx.HTTPError as error:
        what = "TLS failed with" if _about_tls(error) else "Nothing answers at"
        remedy = (
            "Check the certificate, and this host's clock: `timedatectl`."
            if _about_tls(error)
            else f"Check SUPABASE_URL, the network (`curl -v {url}/auth/v1/health`), and whether the project is "
            "paused: https://supabase.com/dashboard."
        )
        reason = str(error) or type(error).__name__
        return Finding("supabase reachable", "error", f"{what} {url}: {reason}.", remedy), None
    if (failure := _service_failure("supabase reachable", "Supabase", response)) is not None:
        return failure, None
    if response.status_code == httpx.codes.NOT_FOUND or response.is_redirect:
        return _no_project("supabase reachable", url, response), None
    if url.startswith("http://") and host not in {"localhost", "127.0.0.1", "::1"}:
        sentence = f"{url} is used without TLS: the key crosses the network unencrypted."
        return Finding(
            "supabase reachable", "warning", sentence, f"Set SUPABASE_URL=https://{host}"
        ), response
    milliseconds = response.elapsed.total_seconds() * 1000
    return Finding("supabase reachable", "ok", f"{url} answers in {milliseconds:.0f} ms."), response


def _no_project(check: str, url: str, response: httpx.Response) -> Finding:
    sentence = f"{url} is not a Supabase project (HTTP {response.status_code})."
    remedy = "Set SUPABASE_URL to the project's URL without a path: https://REF.supabase.co."
    return Finding(check, "error", sentence, remedy)


def clock(answer: httpx.Response) -> Finding | None:
    """Compare this host's clock with an answer's Date header; None if it has none."""
    try:
        theirs = parsedate_to_datetime(answer.headers["Date"])
    except (KeyError, ValueError):
        return None
    ours = datetime.now(UTC)  # noqa: TID251  (this host's clock is what is checked)
    skew = (ours - theirs).total_seconds()
    if abs(skew) < _SKEW:
        return Finding("clock", "ok", "This host's clock agrees with Supabase's.")
    sentence = f"This host's clock is {duration(abs(skew))} {'fast' if skew > 0 else 'slow'}."
    return Finding("clock", "warning", sentence, "sudo timedatectl set-ntp true")


async def _key(settings: Settings, http: httpx.AsyncClient) -> Finding:
    url = f"{settings.supabase_url}/rest/v1/trained_identities?select=id&limit=0"
    try:
        response = await http.get(url, headers=_headers(settings))
    except httpx.HTTPError as error:
        return Finding("key", "error", f"REST does not answer: {str(error) or type(error).__name__}.", _LATER)
    if response.status_code == httpx.codes.UNAUTHORIZED:
        public = "42501" in response.text
        sentence = (
            "SUPABASE_SECRET_KEY is the publishable or anon key." if public else "Supabase refuses the key."
        )
        return Finding("key", "error", sentence, KEY_REMEDY)
    # If SUPABASE_URL ends in /rest/v1, the gateway answers the first check as it does for a project.
    if response.status_code == httpx.codes.NOT_FOUND and "PGRST205" not in response.text:
        return _no_project("key", settings.supabase_url, response)
    return _service_failure("key", "REST", response) or Finding("key", "ok", "REST accepts the key.")


async def _schema(verbs: Verbs) -> tuple[Finding, bool]:
    """Check the schema's version; also returns whether it is newer than this program's."""
    try:
        version = await verbs.check_version()
    except Misconfigured as error:
        upgrade = "upgrade Watcher" in str(error)
        remedy = "Upgrade Watcher, then: watcher doctor" if upgrade else REPAIR
        return Finding("schema", "error", str(error), remedy), False
    except WatcherError as error:
        return unanswered("schema", "watcher_version", error), False
    if version > SCHEMA:
        sentence = f"The database's schema {version} is newer than this program's, and still supports it."
        return Finding("schema", "ok", sentence), True
    return Finding("schema", "ok", "The database has the schema that this version needs."), False


async def _catalogue(queries: Queries) -> AsyncIterator[Finding]:
    try:
        actual = await queries.catalogue()
    except WatcherError as error:
        yield unanswered("catalogue", "watcher_catalogue", error)
        return
    expected = drift.load_expected()
    if lacking := sorted(expected.keys() - actual.keys()):
        sentence = f"The function watcher_catalogue was changed: its answer has no {', '.join(lacking)}."
        yield Finding("catalogue", "error", sentence, REPAIR)
        return
    checks: tuple[tuple[str, Callable[..., Iterator[drift.Drift]], str], ...] = (
        ("definitions", definitions, "Tables, functions, triggers, constraints and indexes are as migrated."),
        ("row-level security", drift.tables, "Row-level security is on."),
        ("policies", drift.policies, "The policies are as migrated."),
        ("grants", drift.grants, "The grants are as migrated."),
        (
            "privileges",
            drift.needs,
            "Users may use the schemas public, auth and storage, and Watcher's functions, too.",
        ),
        (
            "bucket",
            drift.buckets,
            f"The buckets {BUCKET} and {SAMPLES} are private, and accept JPG and PNG up to their limits.",
        ),
        (
            "publication",
            drift.publication,
            "Both tables are in the Realtime publication supabase_realtime.",
        ),
    )
    for check, differences, no_difference in checks:
        drifts = list(differences(actual, expected))
        # Of definitions, one often depends on another.
        long = len(drifts) > (1 if differences is definitions else _MOST_REMEDIES)
        for found in drifts:
            long = long or found.remedy.count("\n") > _LONGEST_SQL
            yield Finding(check, "error", found.sentence, REPAIR if long else found.remedy)
        if not drifts:
            yield Finding(check, "ok", no_difference)


async def _storage(settings: Settings, http: httpx.AsyncClient) -> Finding:
    try:
        response = await http.get(
            f"{settings.supabase_url}/storage/v1/bucket/{BUCKET}", headers=_headers(settings)
        )
    except httpx.HTTPError as error:
        return Finding(
            "storage", "error", f"Storage does not answer: {str(error) or type(error).__name__}.", _LATER
        )
    if response.is_success:
        return Finding("storage", "ok", "Storage accepts the key and has the bucket.")
    if (failure := _service_failure("storage", "Storage", response)) is not None:
        return failure
    if (
        response.status_code in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}
        or "NoSuchBucket" not in response.text
    ):
        return Finding("storage", "error", f"Storage refuses the key: {_reason(response)}.", KEY_REMEDY)
    # The catalogue has the bucket, so row-level security hides it: the role has to bypass that.
    sentence = f"Storage hides the bucket {BUCKET} from the secret key, although it exists."
    return Finding("storage", "error", sentence, "alter role service_role bypassrls;")


def _service_failure(check: str, who: str, response: httpx.Response) -> Finding | None:
    """Return the finding for an answer that concerns the service or project as a whole; None for any other answer."""
    if response.status_code == _PAUSED:
        return Finding(
            check, "error", "The project is paused.", "Restore it: https://supabase.com/dashboard."
        )
    if response.status_code == httpx.codes.PAYMENT_REQUIRED:
        sentence = f"Supabase restricts the project: {_reason(response)}."
        return Finding(check, "error", sentence, "See usage and billing: https://supabase.com/dashboard.")
    if response.is_server_error:
        sentence = f"{who} has a problem: {_reason(response)}."
        return Finding(check, "error", sentence, _LATER)
    return None


def _reason(response: httpx.Response) -> str:
    """Return the HTTP status, and the message of the answer if it has one."""
    try:
        body = response.json()
    except ValueError:
        body = None
    message = body.get("message") or body.get("msg") or body.get("error") if isinstance(body, dict) else None
    return f"HTTP {response.status_code}" + (f", {str(message)[:200].rstrip('.')}" if message else "")


def _headers(settings: Settings) -> Mapping[str, str]:
    key = settings.supabase_key.get_secret_value()
    return {"apikey": key, "Authorization": f"Bearer {key}"}


def _about_tls(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return True
        error = error.__cause__ or error.__context__
    return False
