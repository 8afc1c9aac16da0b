"""Programs that look into themselves, each in an interpreter of its own: the import of introspect changes a process."""

from __future__ import annotations

import json

from tests.programs import run_python

PREAMBLE = """
import gc, io, json, os, signal, sys, threading, time
import dangagreen as d
from dangagreen import introspect
from dangagreen.testing import virtual_loop, wire

def line_of(function, offset=0):
    return f"{function.__code__.co_filename}:{function.__code__.co_firstlineno + offset}"

answers = {}
"""
END = """
print(json.dumps(answers))
"""


def answers(program: str) -> dict[str, object]:
    """What a program has put into `answers`; it must not complain of anything."""
    code, out, complaints = run_python("-X", "dev", "-W", "error", "-c", PREAMBLE + program + END)
    assert not complaints, complaints
    assert code == 0
    return json.loads(out)
