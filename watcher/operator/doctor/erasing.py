"""Checks the erasures: none is open for long, each can be reached, and what is deleted is not kept anyway."""

from collections.abc import AsyncIterator

from watcher.errors import Misconfigured, WatcherError
from watcher.hub.repos import Hub
from watcher.operator.doctor.finding import Finding, unanswered
from watcher.operator.erasing_screens import held
from watcher.operator.format import count, duration
from watcher.operator.queries import Queries
from watcher.settings.settings import Settings

LATE = 86400.0
"""Seconds after which an open erasure is a problem."""
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
    yield _open(summary["open"], summary["oldest_seconds"], answer["open"])
    if sentence := held(summary):
        yield Finding("erasures", "error", sentence, "watcher erasures --confirm")
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
            " and ".join(f"watcher limits erase_{what} default" for what in off),
        )


def _open(number: int, oldest: float | None, shown: list[dict[str, object]]) -> Finding:
    if not number or oldest is None:
        return Finding("erasures", "ok", "No erasure is open.")
    sentence = f"{count(number, 'erasure')} open, the oldest for {duration(oldest)}"
    reason = str(shown[0]["last_reason"] or "") if shown else ""
    if oldest < _SLOW:
        return Finding("erasures", "ok", f"{sentence}.")
    state = "error" if oldest > LATE else "warning"
    because = f": {reason}" if reason else "."
    return Finding("erasures", state, f"{sentence}{because}", "watcher erasures")  # type: ignore[arg-type]


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
