"""The asyncio loop of a loop of ours: made by the first `await_`, it runs from then on, and ends after our tasks.

Rules: at the end its coroutines are cancelled, and get a limited time to end. What does not belong here: loops that the
program makes itself (event_loop).
"""

from __future__ import annotations

import asyncio
import contextlib
import os

from dangagreen.bridge.event_loop import EventLoop
from dangagreen.bridge.host import Host
from dangagreen.bridge.sides import neighbours, refuses_to_end
from dangagreen.green.sched import LoopReset, scheduler
from dangagreen.loop.loop import Loop


class Home(EventLoop):
    """The loop that the first `await_` makes. It runs from then on, and ends after our tasks."""

    def __init__(self) -> None:
        super().__init__()
        neighbours(self.hosting.ours).home = self
        scheduler(self.hosting.ours).closers.append(self._end)
        Host(self, None)

    def run_here(self, host: Host | None) -> None:
        try:
            super().run_here(host)
        except RuntimeError:
            if self.hosting.process == os.getpid():
                raise
        except (SystemExit, KeyboardInterrupt):  # the program ends, and coroutines clean up meanwhile
            if not self.hosting.ends:
                Host(self, None)
            raise
        if self.hosting.ends:
            self.close()

    def _end(self) -> None:
        """All tasks have ended: end what asyncio has. While our loop is a guest it cannot, and lives on."""
        ours = self.hosting.ours
        if ours.running:
            return
        scheduler(ours).closers.remove(self._end)
        neighbours(ours).home = None
        if self.is_closed() or self.hosting.process != os.getpid():
            return
        self.hosting.ends = True
        self.create_task(self._clean_up()).add_done_callback(lambda _: self.stop())
        if neighbours(ours).over:
            with contextlib.closing(self), contextlib.suppress(LoopReset):
                self.run_forever()
            return
        ours.run(self.is_closed)

    async def _clean_up(self) -> None:
        """As asyncio.run does at its end, but no longer than `clean_up_seconds`."""
        tasks = asyncio.all_tasks(self) - {asyncio.current_task(self)}
        for task in tasks - set(neighbours(self.hosting.ours).told):  # those clean up already
            task.cancel()
        late = (await asyncio.wait(tasks, timeout=self.clean_up_seconds))[1] if tasks else set()
        for task in late:
            refuses_to_end(task)
        for task in tasks - late:
            if not task.cancelled() and (error := task.exception()) is not None:
                self.call_exception_handler({"message": "a task failed at the end", "exception": error, "task": task})
        await self.shutdown_asyncgens()
        await self.shutdown_default_executor()


def home(loop: Loop) -> Home:
    """The loop's own asyncio loop, made at first use."""
    found: Home | None = neighbours(loop).home
    return Home() if found is None or found.is_closed() else found
