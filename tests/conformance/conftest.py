"""Assertions of the cases, which are no test files, show their values as those of test files do."""

import pytest

pytest.register_assert_rewrite("tests.conformance")
