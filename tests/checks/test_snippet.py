"""The program in docs/frontend.md can be cut out and uses what there is; `make check-web` compiles and runs it."""

import re
from pathlib import Path

import pytest

from tests.checks.snippet import EXPORTS, snippet

SOURCE = Path(__file__).parents[2] / "examples/web/src"


def test_the_snippet_is_one_program() -> None:
    assert snippet().startswith("import { createClient } from '@supabase/supabase-js'\n")


@pytest.mark.parametrize("name", EXPORTS)
def test_it_names_what_the_check_uses(name: str) -> None:
    assert re.search(rf"^(const|async function) .*\b{name}\b", snippet(), re.MULTILINE)


def test_what_it_imports_and_calls_is_there() -> None:
    [imported] = re.findall(r"import \{(.*)\} from './identities'", snippet())
    identities = (SOURCE / "identities.ts").read_text()
    for name in imported.replace("type ", "").split(","):
        assert re.search(rf"^export .*\b{name.strip()}\b", identities, re.MULTILINE), name
    for method in set(re.findall(r"identities\.(\w+)\(", snippet())):
        assert re.search(rf"^  (async )?{method}\(", identities, re.MULTILINE), method


def test_the_client_is_short() -> None:
    assert len((SOURCE / "identities.ts").read_text().splitlines()) < 250
