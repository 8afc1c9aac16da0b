"""What holds for all examples."""

from __future__ import annotations

from pathlib import Path

from programs import EXAMPLES


def test_every_example_has_tests() -> None:
    here = Path(__file__).parent
    missing = [path.name for path in EXAMPLES.glob("*.py") if not (here / f"test_{path.stem}.py").exists()]
    assert missing == []
