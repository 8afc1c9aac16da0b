"""The tests of the guide pass, with the plugin: the worked example, and what else is shown there as tests."""

from __future__ import annotations

from pathlib import Path

from tests.test_docs import FENCE

GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "testing.md"


def test_the_tests_on_the_page_pass(tried):
    page = GUIDE.read_text()
    shown = page[: page.index("\n## The parts")]
    source = "\n\n".join(fence["text"] for fence in FENCE.finditer(shown) if fence["info"].strip() == "python")
    result = tried(source)
    assert result.ret == 0
    outcomes = result.parseoutcomes()
    assert set(outcomes) == {"passed"}
    assert outcomes["passed"] == 35
