"""Checks the Hub: reachable, a token that may write to the namespace, and requests left in the rate limit."""

from collections.abc import AsyncIterator

from watcher.errors import Misconfigured, Outage, Transient, WatcherError
from watcher.hub.repos import Hub
from watcher.operator.doctor.finding import Finding
from watcher.operator.format import count
from watcher.operator.queries import connected
from watcher.publishing.write_check import WriteCheck
from watcher.settings.settings import Settings
from watcher.supabase.verbs import Verbs

_REMEDY = (
    "Create a token with write access on https://huggingface.co/settings/tokens, and set HF_TOKEN to it."
)
_NO_ROW = "00000000-0000-0000-0000-000000000000"


async def findings(settings: Settings) -> AsyncIterator[Finding]:
    """Ask the Hub whose token it is, which changes nothing."""
    client = Hub(
        endpoint=settings.hf_endpoint,
        token=settings.hf_token.get_secret_value(),
        namespace=settings.hf_namespace,
    )
    try:
        await client.check_token()
        refused = await _refused(settings, client)
    except Misconfigured as error:
        yield Finding(
            "hub",
            "error",
            str(error),
            _REMEDY if "HF_TOKEN" in str(error) else "Correct HF_NAMESPACE, or unset it.",
        )
        return
    except Outage as error:
        yield Finding("hub", "error", str(error), _REMEDY)
        return
    except Transient as error:
        remedy = (
            f"Try again in a minute; see https://status.huggingface.co. If it lasts, check HF_ENDPOINT and the network: "
            f"curl -v {settings.hf_endpoint}/api/whoami-v2"
        )
        yield Finding("hub", "error", f"{settings.hf_endpoint}: {error}", remedy)
        return
    finally:
        client.close()
    yield Finding("hub", "ok", f"The Hub accepts the token, and it may write to {client.namespace}.")
    if refused:
        remedy = "See plan and storage of the namespace: https://huggingface.co/settings/billing"
        yield Finding("hub storage", "error", refused, remedy)
    left = client.rate_limit.remaining
    if client.rate_limit.is_scarce:
        sentence = f"The Hub's rate limit is nearly used up: {count(left or 0, 'request')} left."
        yield Finding(
            "rate limit", "warning", sentence, "Wait five minutes; find out what else uses this token."
        )
    elif left is not None:
        yield Finding(
            "rate limit",
            "ok",
            f"The Hub allows {count(left, 'more request')} in this window.",
        )


async def _refused(settings: Settings, hub: Hub) -> str:
    """Return why nothing can be uploaded to published repos, empty if it can or cannot be known; uploads nothing."""
    async with connected(settings) as rpc:
        verbs = Verbs(rpc)
        try:
            await verbs.newest_repos(hub.namespace, other_than=_NO_ROW)
        except WatcherError:
            return ""  # the checks of Supabase say why
        try:
            await WriteCheck(verbs, hub)(_NO_ROW)
        except Outage as error:
            return str(error)
        except Transient:
            return ""  # the Hub is busy
    return ""
