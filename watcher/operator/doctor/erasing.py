"""Checks the erasures: none is open for long, each can be reached, and what is deleted is not kept anyway."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

from watcher.errors import Misconfigured, WatcherError
from watcher.hub.repos import Hub
from watcher.operator.doctor.finding import Finding, State, unanswered
from watcher.operator.erasing_screens import failed, held, overdue
from watcher.operator.format import count
from watcher.operator.queries import Queries
from watcher.settings.settings import Settings

LATE = 86400.0
"""Seconds for which something may be due to be erased before that is a problem."""
_SLOW = 600.0
_UNVERSIONED = {None, "", "disabled", "off", "none", "unversioned"}


async def findings(settings: Settings, queries: Queries) -> AsyncIterator[Finding]:
    """Check what is open, the namespaces of its repos, the bucket's versioning, and the settings."""
    try:
        answer = await queries.erasures(limit=1)
    except WatcherError as error:
        yield unanswered("erasures", "watcher_erasures", error)
        return
    summary, kept = answer["summary"], answer["settings"]
    yield _open(summary, answer["open"])
    if sentence := held(summary):
        yield Finding("erasures", "error", sentence, "watcher erasures --confirm")
    if sentence := failed(summary):
        remedy = "Have what refers to it go with it, as with `on delete cascade`; the sweep tries again."
        yield Finding("erasures", "error", sentence, remedy)
    async for finding in _namespaces(settings, answer["namespaces"]):
        yield finding
    if str(answer["versioning"] or "").lower() not in _UNVERSIONED:
        yield Finding(
            "versioning",
            "error",
            "Object versioning is on in the bucket identity-images: deleted photos are kept as older versions.",
            "Turn it off in the project's dashboard, Storage, identity-images.",
        )
    off = [what for what in ("repos", "photos") if not kept[what]]
    if off and answer["accounts_gone"]:
        yield Finding(
            "erasures",
            "warning",
            f"Accounts are deleted, but their {' and '.join(off)} are kept.",
            f"{' and '.join(f'watcher limits erase_{what} default' for what in off)}: erases also what was kept so far.",
        )


def _open(summary: Mapping[str, Any], shown: list[dict[str, object]]) -> Finding:
    if not summary["open"]:
        return Finding("erasures", "ok", "No erasure is open.")
    sentence = f"{count(summary['open'], 'erasure')} open, {overdue(summary)}"
    reason = str(shown[0]["last_reason"] or "") if shown else ""
    late = summary["overdue_seconds"]
    if late < _SLOW:
        return Finding("erasures", "ok", f"{sentence}.")
    state: State = "error" if late > LATE else "warning"
    because = f": {reason}" if reason else "."
    return Finding("erasures", state, f"{sentence}{because}", "watcher erasures")


async def _namespaces(settings: Settings, namespaces: list[str]) -> AsyncIterator[Finding]:
    """Find namespaces with repos to be erased that the token cannot write to."""
    if not namespaces:
        return
    hub = Hub(
        endpoint=settings.hf_endpoint,
        token=settings.hf_token.get_secret_value(),
        namespace=settings.hf_namespace,
    )
    try:
        for namespace in namespaces:
            try:
                await hub.check_token(namespace)
            except Misconfigured as error:
                sentence = f"Repos in {namespace} are to be erased, which HF_TOKEN cannot write to: {error}"
                remedy = "Give the token access, or: watcher erasures --close ID --because …"
                yield Finding("erasures", "error", sentence, remedy)
    except WatcherError:
        return  # the checks of the Hub say so
    finally:
        hub.close()
