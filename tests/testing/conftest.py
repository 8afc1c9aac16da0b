"""Runs of pytest of their own, with the plugin, for its tests."""

from __future__ import annotations

import pytest

from tests.inside import notes_that_end
from tests.testing.runs import ASYNCIO, HEAD, OPTIONS


@pytest.fixture(autouse=True)
def notes():
    """A time limit that is over imports introspect, to look at the test: the notes it takes are to end with that."""
    with notes_that_end():
        yield


@pytest.fixture
def tried(pytester, monkeypatch):
    """`tried(source, *options)` runs a file of tests, inside this process, and returns its result.

    With the plugins that come with pytest, anyio's and ours: to find all that are installed takes long.
    """
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")

    def tried(source, *options):
        pytester.makepyfile(HEAD + source)
        return pytester.runpytest_inprocess(*OPTIONS, "-p", "anyio", *options)

    return tried


@pytest.fixture
def started(pytester):
    """`started(source, *options)` runs a file of tests in another process."""

    def started(source, *options):
        pytester.makepyfile(HEAD + source)
        return pytester.runpytest_subprocess(*OPTIONS, *ASYNCIO, *options)

    return started
