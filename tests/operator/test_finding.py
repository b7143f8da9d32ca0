"""What doctor says where the database would not answer."""

import pytest

from watcher.errors import Transient, WatcherError
from watcher.operator.doctor import as_json, exit_code
from watcher.operator.doctor.finding import REPAIR, Finding, skipped, unanswered
from watcher.supabase.rpc import NoFunction, NotGranted


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (
            NotGranted("permission denied for function watcher_status"),
            "grant execute on function public.watcher_status to service_role;",
        ),
        (NotGranted("permission denied for function may_upload"), REPAIR),
        (
            NotGranted("permission denied for schema public"),
            "grant usage on schema public to current_user, service_role;",
        ),
        (
            NotGranted('permission denied to set role "service_role"'),
            "grant service_role to authenticator;",
        ),
        (NoFunction("no"), REPAIR),
        (Transient("no"), "Try again in a minute; see https://status.supabase.com."),
    ],
)
def test_each_reason_has_its_remedy(error: WatcherError, remedy: str) -> None:
    assert unanswered("queue", "watcher_status", error) == Finding("queue", "error", str(error), remedy)


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
