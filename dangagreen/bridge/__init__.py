"""Living with asyncio on one thread: coroutines from tasks, tasks from coroutines.

`EventLoop` is an asyncio event loop that runs on dangagreen's, `guest` runs dangagreen's loop on one of asyncio's or
uvloop's. In both, a task waits for a coroutine by `await_(coroutine)`, and a coroutine for a task by `await task`.
"""

from dangagreen.bridge.crossing import as_future, await_, to_task
from dangagreen.bridge.event_loop import EventLoop, run
from dangagreen.bridge.guest import guest
from dangagreen.public import publish

__all__ = ["EventLoop", "as_future", "await_", "guest", "run", "to_task"]

publish(__name__, __all__)
del publish
