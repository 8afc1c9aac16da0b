"""Which build runs."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

import dangagreen

PACKAGE = Path(dangagreen.__file__).parent
IS_COMPILED = any(PACKAGE.glob(f"loop/turn*{EXTENSION_SUFFIXES[0]}"))
ASK = """
import sys, dangagreen
print(dangagreen.compiled, sys.modules["dangagreen.loop.turn"].__file__.endswith(".py"))
"""


def answers(**variables):
    environment = {name: value for name, value in os.environ.items() if name != "DANGAGREEN_PURE"} | variables
    environment["PYTHONPATH"] = str(PACKAGE.parent)
    done = subprocess.run([sys.executable, "-c", ASK], env=environment, capture_output=True, text=True, timeout=30)
    assert not done.stderr
    return done.stdout.split()


@pytest.mark.slow
def test_what_is_there_runs_and_the_pure_modules_can_be_asked_for():
    assert answers() == answers(DANGAGREEN_PURE="0") == [str(IS_COMPILED), str(not IS_COMPILED)]
    assert answers(DANGAGREEN_PURE="1") == ["False", "True"]


def test_it_is_a_bool():
    assert dangagreen.compiled is (IS_COMPILED and os.environ.get("DANGAGREEN_PURE", "0") in ("", "0"))
