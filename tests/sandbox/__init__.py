"""Tests of the sandbox. What their helpers assert is shown in full when it fails."""

import pytest

pytest.register_assert_rewrite("tests.sandbox.replay")
