"""The Hub: reachable, with a token that may write to the namespace, and not near its rate limit."""

from collections.abc import AsyncIterator

from watcher.errors import Misconfigured, Outage, Transient
from watcher.hub.repos import Hub
from watcher.operator.doctor.finding import Finding
from watcher.operator.format import count
from watcher.settings.settings import Settings

_TOKENS = "Make a token with write access on https://huggingface.co/settings/tokens, and set HF_TOKEN to it."


async def findings(settings: Settings) -> AsyncIterator[Finding]:
    """Ask who the token is, which changes nothing."""
    there = Hub(
        endpoint=settings.hf_endpoint,
        token=settings.hf_token.get_secret_value(),
        namespace=settings.hf_namespace,
    )
    try:
        await there.check_token()
    except Misconfigured as error:
        yield Finding(
            "hub",
            "error",
            str(error),
            _TOKENS if "HF_TOKEN" in str(error) else "Set HF_NAMESPACE, or leave it out.",
        )
        return
    except Outage as error:
        yield Finding("hub", "error", str(error), _TOKENS)
        return
    except Transient as error:
        remedy = (
            f"Wait: https://status.huggingface.co. If it lasts, look at HF_ENDPOINT and at the network: "
            f"curl -v {settings.hf_endpoint}/api/whoami-v2"
        )
        yield Finding("hub", "error", f"{settings.hf_endpoint}: {error}", remedy)
        return
    finally:
        there.close()
    yield Finding("hub", "ok", f"The Hub accepts the token, and it may write to {there.namespace}.")
    if there.rate_limit.pause() > 0:
        sentence = f"The Hub's rate limit is nearly used up: {count(there.rate_limit.remaining or 0, 'request')} left."
        yield Finding("rate limit", "warning", sentence, "Wait five minutes; see what else uses this token.")
    elif there.rate_limit.remaining is not None:
        yield Finding(
            "rate limit",
            "ok",
            f"The Hub allows {count(there.rate_limit.remaining, 'more request')} in this window.",
        )
