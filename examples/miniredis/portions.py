"""Long work in portions: no command stops the others for long.

What takes long is a generator, which yields between portions, so that others have their turn there.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import Any, TypeVar

from dangagreen import current_loop, sleep

AT_ONCE = 0.005  # seconds for which long work goes on before others have their turn
Result = TypeVar("Result")
Work = Generator[Any, None, Result]


def in_portions(work: Work[Result]) -> Result:
    """Do it to its end, and return its result. Parks after each portion that it calls large by yielding True, and
    when it has gone on for long: then others have their turn."""
    clock = current_loop().time
    since = clock()
    while True:
        try:
            large = next(work)
        except StopIteration as end:
            result: Result = end.value
            return result
        if large or clock() - since > AT_ONCE:
            sleep(0)
            since = clock()


def batches(items: Sequence[bytes], size: int = 256) -> Iterator[Sequence[bytes]]:
    return (items[start : start + size] for start in range(0, len(items), size))
