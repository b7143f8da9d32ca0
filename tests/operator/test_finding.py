"""What doctor says where the database would not answer."""

import pytest

from watcher.errors import Transient, WatcherError
from watcher.operator.doctor import as_json, exit_code
from watcher.operator.doctor.finding import REPAIR, Finding, skipped, unanswered
from watcher.supabase.rpc import NoFunction, NotGranted


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (NotGranted("no"), "grant execute on function public.watcher_status to service_role;"),
        (NoFunction("no"), REPAIR),
        (Transient("no"), "Try again in a minute; see https://status.supabase.com."),
    ],
)
def test_each_reason_has_its_remedy(error: WatcherError, remedy: str) -> None:
    assert unanswered("queue", "watcher_status", error) == Finding("queue", "error", "no", remedy)


def test_the_exit_code_is_that_of_the_worst_finding() -> None:
    fine, odd, bad = (Finding("x", state, "y") for state in ("ok", "warning", "error"))
    assert [exit_code(found) for found in ([fine], [fine, skipped("z")], [fine, odd], [odd, bad])] == [
        0,
        0,
        1,
        2,
    ]
    assert as_json([bad]) == {
        "checks": [{"check": "x", "state": "error", "sentence": "y", "remedy": None}],
        "exit": 2,
    }
