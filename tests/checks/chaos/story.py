"""All events of a run in order: faults, claims, write-backs, requests to the Hub, and the daemons' logs."""

import json
from collections.abc import Iterable, Iterator, Sequence

from tests.acceptance.running import Watcher
from tests.checks.chaos.notes import Note
from tests.checks.chaos.record import Exchange

_WRITE_BACKS = {
    "reserve", "complete", "erased", "trained", "fail", "defer", "wait", "release", "training_start", "training_postpone",
    "training_intend", "training_undo", "training_job", "training_ended",
}  # fmt: skip
_SHOWN_OR_KNOWN = {"event", "level", "logger", "timestamp", "instance"}


def lines(
    notes: Sequence[Note], exchanges: Sequence[Exchange], logs: Iterable[Watcher], began: float, wall: float
) -> Iterator[str]:
    """One line per event; `wall` is the wall clock's time, in Unix seconds, at monotonic time 0."""
    everything = [*notes, *_of_services(exchanges, began), *_of_logs(logs, began + wall)]
    for note in sorted(everything):
        yield f"{note.at:7.3f}  {note.who:<10} {note.what}"


def _of_services(exchanges: Sequence[Exchange], began: float) -> Iterator[Note]:
    for exchange in exchanges:
        at = (exchange.ended or exchange.began) - began
        took = f"{exchange.began - began:.3f} → {at:.3f}"
        if (
            exchange.name in {"create", "commit", "delete", "run job", "cancel"}
            and "rpc" not in exchange.path
        ):
            what = exchange.asked.get("name", exchange.path)
            yield Note(at, "hub", f"{exchange.name} {what}: {exchange.status} ({took})")
        elif exchange.name == "claim" and isinstance(exchange.answered, dict):
            for claim in exchange.answered["claims"]:
                looks = ", only to look" if claim["look_only"] else ""
                yield Note(
                    at,
                    "claim",
                    f"{exchange.asked['p_instance']} claims {claim['identity_id']} to {claim['kind']} "
                    f"as attempt {claim['attempt']}{looks}",
                )
        elif exchange.name in _WRITE_BACKS:
            asked = exchange.asked
            why = asked.get("p_code") or asked.get("p_reason") or asked.get("p_job") or ""
            yield Note(
                at, "verb", f"{exchange.name} by attempt {asked.get('p_attempt')} {why!s:.150}: "
                f"{exchange.status} {exchange.response.decode(errors='replace')!s:.120} ({took})"
            )  # fmt: skip
        elif exchange.name == "followed" and (exchange.answered or {}).get("cancel"):
            yield Note(at, "verb", f"followed, to be cancelled: {exchange.answered['cancel']}")
        elif exchange.name == "renew":
            attempts = sorted(map(int, exchange.asked.get("p_progress") or {}))
            if sorted((exchange.answered or {}).get("held", [])) != attempts:
                answer = exchange.response.decode(errors="replace")
                yield Note(at, "verb", f"renew {attempts}: {exchange.status} {answer:.120}")


def _of_logs(logs: Iterable[Watcher], zero: float) -> Iterator[Note]:
    from datetime import datetime

    for log in logs:
        for text in log.lines:
            try:
                line = json.loads(text)
                at = datetime.fromisoformat(line["timestamp"]).timestamp() - zero
            except (ValueError, KeyError, TypeError):
                yield Note(0, log.instance, text.rstrip())
                continue
            rest = {key: value for key, value in line.items() if key not in _SHOWN_OR_KNOWN}
            yield Note(at, log.instance, f"{line.get('level')}: {line.get('event')} {rest or ''}")
