"""Danga::Socket's class methods, which act on the current thread's loop, and aliases by its CamelCase names.

Rules: each method is one line to `Loop`. What does not belong here: behaviour.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from dangagreen import checks
from dangagreen.loop.error_log import log
from dangagreen.loop.loop import Loop, current_loop
from dangagreen.loop.profiling import Profile
from dangagreen.loop.timers import Timer

PostLoopCallback = Callable[[dict[int, Any], dict[int, Callable[[int], object]]], object]


class _SetPostLoopCallback:
    """A descriptor: on a class the call sets the loop's callback, on an object that object's, as in Perl."""

    def __get__(self, instance: Any, owner: type) -> Callable[[PostLoopCallback | None], None]:
        loop: Loop = instance.loop if instance is not None else current_loop()

        def set_post_loop_callback(callback: PostLoopCallback | None) -> None:
            if callback is not None:
                checks.function("set_post_loop_callback", callback)
            if instance is None:
                loop.post_loop_callback = callback
            elif callback is None:
                loop.object_callbacks.pop(instance, None)
            elif not instance.closed:
                loop.object_callbacks[instance] = partial(_call_in_its_context, instance, callback)

        return set_post_loop_callback


def _call_in_its_context(sock: Any, callback: PostLoopCallback) -> object:
    return sock._run(callback, *sock.loop.post_loop_maps())


class DangaAliases:
    """Mixin of Socket: class methods and aliases. `Loop` has what each of them does."""

    __slots__ = ()

    @staticmethod
    def event_loop() -> None:
        """Run this thread's loop until `Loop.stop()` is called, or a post-loop callback returns something false."""
        current_loop().run()

    @staticmethod
    def reset() -> None:
        """Close all sockets, end all tasks, cancel all timers, drop all callbacks. RuntimeError while it is running."""
        current_loop().reset()

    @staticmethod
    def watched_sockets() -> int:
        """How many objects are registered."""
        return len(current_loop().descriptor_map())

    @staticmethod
    def descriptor_map() -> dict[int, Any]:
        """A copy of the descriptor map: fd to object, of all that are registered."""
        return current_loop().descriptor_map()

    @staticmethod
    def to_close() -> list[Any]:
        """A copy of the list of closed objects whose OS sockets are closed at the end of this turn."""
        return list(current_loop().to_close)

    @staticmethod
    def have_epoll() -> bool:
        """Whether this thread's loop uses epoll."""
        return type(current_loop().poller).__name__ == "EpollPoller"

    @staticmethod
    def debug_msg(message: str, *args: object) -> None:
        """Log a line to the logger "dangagreen" at level DEBUG. A newline at its end is cut."""
        log().debug(message.removesuffix("\n"), *args)

    @staticmethod
    def other_fds(fds: Mapping[int, Callable[[int], object]] | None = None) -> dict[int, Callable[[int], object]]:
        """fd to callable, of fds without an object; called with the event bits. With `fds`, replaces them all."""
        return current_loop().other_fds(fds)

    @staticmethod
    def add_other_fds(fds: Mapping[int, Callable[[int], object]]) -> None:
        """Watch more fds without an object: see `Loop.add_other_fds`."""
        current_loop().add_other_fds(fds)

    @staticmethod
    def remove_other_fd(fd: int) -> None:
        """Stop watching an fd of `other_fds`. Does nothing if it is not watched."""
        current_loop().remove_other_fd(fd)

    @staticmethod
    def add_timer(seconds: float, callback: Callable[[], object]) -> Timer:
        """Call it once, no earlier than `seconds` from now. Returns a Timer, which has `cancel()`."""
        return current_loop().add_timer(seconds, callback)

    @staticmethod
    def set_loop_timeout(milliseconds: float) -> None:
        """Set the longest time that a turn may wait for events: -1 is no limit, 0 does not wait."""
        current_loop().set_loop_timeout(milliseconds)

    set_post_loop_callback = _SetPostLoopCallback()

    @staticmethod
    def enable_profiling() -> bool:
        """Measure the processor time of each event of each class from now on; earlier measurements are dropped.

        Returns True, as in Perl: it is supported.
        """
        loop = current_loop()
        loop.remove_instrument(loop.measurements)
        loop.measurements = Profile()
        loop.add_instrument(loop.measurements)
        return True

    @staticmethod
    def disable_profiling() -> None:
        """Stop measuring. `profiling_data()` keeps the measurements until `reset()`."""
        loop = current_loop()
        loop.remove_instrument(loop.measurements)

    @staticmethod
    def profiling_data() -> dict[str, list[float]]:
        """The measurements: "Class-event" to [user seconds, system seconds, calls]."""
        return current_loop().measurements.data()

    EventLoop = event_loop
    Reset = reset
    WatchedSockets = watched_sockets
    DescriptorMap = descriptor_map
    ToClose = to_close
    HaveEpoll = have_epoll
    DebugMsg = debug_msg
    OtherFds = other_fds
    AddOtherFds = add_other_fds
    AddTimer = add_timer
    SetLoopTimeout = set_loop_timeout
    SetPostLoopCallback = set_post_loop_callback
    EnableProfiling = enable_profiling
    DisableProfiling = disable_profiling
    ProfilingData = profiling_data
