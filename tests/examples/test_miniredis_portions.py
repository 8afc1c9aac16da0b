"""Long work leaves the others their turn."""

from __future__ import annotations

import dangagreen as d
from dangagreen.testing import virtual_loop
from miniredis.portions import Work, in_portions


def test_others_have_their_turn_between_portions() -> None:
    with virtual_loop() as loop:
        told: list[str] = []

        def work(large: bool) -> Work[str]:
            for _ in range(3):
                told.append("work")
                yield large
            return "done"

        def other() -> None:
            for _ in range(3):
                told.append("other")
                d.sleep(0)

        d.spawn(other)
        assert in_portions(work(True)) == "done"
        assert [who for who in told if who == "work"] == ["work"] * 3
        assert told.index("other") < len(told) - 1 - told[::-1].index("work")
        d.sleep(0.1)
        told.clear()
        d.spawn(other)
        assert in_portions(work(False)) == "done"  # it has not taken long
        assert told == ["work"] * 3
        d.sleep(0.1)
        assert loop.time() > 0
