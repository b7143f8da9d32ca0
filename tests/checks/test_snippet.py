"""The snippet in docs/frontend.md can be cut out and run; `make check-supabase` does so."""

import re

import pytest

from tests.checks.supabase.snippet import EXPORTS, snippet


def test_the_snippet_is_one_program() -> None:
    assert snippet().startswith("import { createClient } from '@supabase/supabase-js'\n")
    assert snippet().count("import ") == 1


@pytest.mark.parametrize("name", EXPORTS)
def test_it_names_what_the_check_uses(name: str) -> None:
    assert re.search(rf"^(const|let|async function) .*\b{name}\b", snippet(), re.MULTILINE)
