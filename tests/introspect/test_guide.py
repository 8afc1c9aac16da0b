"""The blocks of the guide's page on seeing inside run as they stand."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

import dangagreen as d
from tests.introspect.seeing import answers, linted

PAGE = Path(__file__).parent.parent.parent / "docs" / "guide" / "inside.md"
TEXT = PAGE.read_text()
# programs with a fault, each with the line by which it is found
FAULTS = re.findall(r"^```py\n([^`]*?)^```\n\n```\n(lint [^`]*)\n```$", TEXT, re.MULTILINE)
PROGRAMS = [program for program, _ in FAULTS]
BLOCKS = [one for one in re.findall(r"^```py\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL) if one not in PROGRAMS]

pytestmark = pytest.mark.slow_but_first  # each starts a program


def test_there_are_some():
    assert len(BLOCKS) == 4
    assert len(FAULTS) == 10


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_a_block(block):
    answers(f"sys.stdout = io.StringIO()\n{block}\nsys.stdout = sys.__stdout__\n")


@pytest.mark.parametrize(("program", "line"), FAULTS, ids=[line.split()[1] for _, line in FAULTS])
def test_a_fault_is_found_as_the_page_says(program, line):
    if "lost-wait" in line and d.compiled and sys.version_info >= (3, 14):
        pytest.skip("what C borrows there is not known")
    said = linted(f"""
import logging
records = []
logging.getLogger("dangagreen").addHandler(keep := logging.Handler())
keep.emit = lambda record: records.append(record.getMessage())
introspect.lint(False)
time.sleep = loop.clock.jump
time_passes()
exec(compile({program!r}, "/srv/app.py", "exec"), {{}})
answers["lines"] = records
""")
    assert [re.sub(r"127.0.0.1:\d+", "127.0.0.1:33200", one) for one in said["lines"]] == [line]


def test_every_public_name_is_in_the_reference():
    said = answers("answers['names'] = introspect.__all__\n")
    reference = (PAGE.parent.parent / "reference.md").read_text()
    assert [name for name in said["names"] if not re.search(rf"`{name}\b", reference)] == []
