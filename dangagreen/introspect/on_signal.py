"""A signal upon which a process prints what its loops are doing: also while one of them is blocked, or hangs.

Rules: the handler looks on, and changes nothing; what it prints goes to the file descriptor of stderr in one piece,
past buffers that the program may be writing to just now; it is no reason to hope in a deadlock; loops of other threads
are asked to print what they do. What does not belong here: what is printed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

from dangagreen import checks
from dangagreen.introspect.collect import snapshot
from dangagreen.introspect.mark import Mark
from dangagreen.introspect.text import MOST, as_text, to_json
from dangagreen.loop.deadlock import WATCHING_HANDLERS
from dangagreen.loop.loop import Loop, all_loops
from dangagreen.loop.signal_chain import ChainedHandler, handler_of

_STDERR = 2


class SignalDump(ChainedHandler):
    """A `dump_on_signal` that is on, until its `cancel()`."""

    __slots__ = {
        "_mark": "What other processes see of it; None before it is installed.",
        "write": "A function of the text.",
    }

    shares = True

    def __init__(self, number: int, write: Callable[[str], object]) -> None:
        super().__init__()
        self.write = write
        self._mark: Mark | None = None
        self.install({number: handler_of(number)})
        self._mark = Mark(number)
        WATCHING_HANDLERS.append(self)

    def handle(self, _number: int, _frame: FrameType | None) -> None:
        most, as_json = (None, False) if self._mark is None else self._mark.asked()
        self.write(told(most or MOST, as_json, "they print theirs") + "\n")
        here = threading.get_ident()
        for loop in all_loops():
            if loop.running and loop.thread != here:
                with contextlib.suppress(RuntimeError):  # closed meanwhile
                    loop.call_soon_threadsafe(self._tell_of, loop, most or MOST, as_json)

    def _tell_of(self, loop: Loop, most: int, as_json: bool) -> None:
        """In the thread of the loop."""
        self.write((to_json(loop, most=most) if as_json else as_text(snapshot(loop, most), most)) + "\n")

    def cancel(self) -> None:
        """Put the former handler back, unless another one was installed meanwhile."""
        if self.installed:
            WATCHING_HANDLERS.remove(self)
            if self._mark is not None:
                self._mark.close()
            self.restore()


def dump_on_signal(number: int = signal.SIGUSR1, write: Callable[[str], object] | None = None) -> SignalDump:
    """From now on print, upon this signal, what the loops of the main thread are doing, to stderr.

    Those of other threads print what they do in their next turn. `write` gets the text instead, that of the main thread
    inside the signal handler, that of another one there. Returns an object whose `cancel()` ends it. Raises
    ValueError in another thread than the main one; ValueError or OSError for what is no signal, or can have no handler
    (SIGKILL). Other processes, as `python -m dangagreen dump`, see that it is on.
    """
    number = checks.count("the signal of introspect.dump_on_signal", number)
    if write is not None:
        checks.function("introspect.dump_on_signal", write)
    return SignalDump(number, _write if write is None else write)


def told(most: int = MOST, as_json: bool = False, others_are: str = "not shown") -> str:
    """What the loops of the main thread, which calls it, are doing: also for `python -m dangagreen dump`.

    At most `most` sockets, tasks and timers of each. As JSON a line for each loop, otherwise also which other threads
    have loops, into which only these can look, and what becomes of them.
    """
    here = threading.get_ident()
    loops = [loop for loop in all_loops() if loop.thread == here]
    if as_json:
        return "\n".join(to_json(loop, most=most) for loop in loops)
    texts = [as_text(snapshot(loop, most), most) for loop in loops] or ["no loop in the main thread"]
    others = {loop.thread for loop in all_loops()} - {here}
    names = sorted(repr(thread.name) for thread in threading.enumerate() if thread.ident in others)
    return "\n".join([*texts, f"{others_are}: loops of other threads, {', '.join(names)}"] if names else texts)


def _write(text: str) -> None:
    data = text.encode(errors="replace")
    while data:
        data = data[os.write(_STDERR, data) :]
