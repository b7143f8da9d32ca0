"""Tests of the sandbox. Failed assertions of their helpers are shown in full, as those of tests are."""

import pytest

pytest.register_assert_rewrite("sandbox.replay")
