"""The blocks of the guide's page on seeing inside run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.introspect.seeing import answers

PAGE = Path(__file__).parent.parent.parent / "docs" / "guide" / "inside.md"
BLOCKS = re.findall(r"^```py\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)

pytestmark = pytest.mark.slow  # starts programs


def test_there_are_some():
    assert len(BLOCKS) == 3


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_a_block(block):
    answers(f"sys.stdout = io.StringIO()\n{block}\nsys.stdout = sys.__stdout__\n")


def test_every_public_name_is_in_the_reference():
    said = answers("answers['names'] = introspect.__all__\n")
    reference = (PAGE.parent.parent / "reference.md").read_text()
    assert [name for name in said["names"] if not re.search(rf"`{name}\b", reference)] == []
