"""Checks the Hub: reachable, a token that may write to the namespace, and requests left in the rate limit."""

from collections.abc import AsyncIterator

from watcher.errors import Misconfigured, Outage, Transient
from watcher.hub.repos import Hub
from watcher.operator.doctor.finding import Finding
from watcher.operator.format import count
from watcher.settings.settings import Settings

_REMEDY = (
    "Create a token with write access on https://huggingface.co/settings/tokens, and set HF_TOKEN to it."
)


async def findings(settings: Settings) -> AsyncIterator[Finding]:
    """Ask the Hub whose token it is, which changes nothing."""
    client = Hub(
        endpoint=settings.hf_endpoint,
        token=settings.hf_token.get_secret_value(),
        namespace=settings.hf_namespace,
    )
    try:
        await client.check_token()
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
