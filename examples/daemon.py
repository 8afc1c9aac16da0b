"""How examples go on without a terminal: where one was started, the exit status tells whether it serves."""

from __future__ import annotations

import os
from collections.abc import Callable


def daemonize(umask: int | None = None) -> Callable[[], None]:
    """Go on in a child that belongs to no terminal. Where it was started one waits until the child serves, and calls
    the answer, or until it has failed, and ends with the same status. None leaves the umask as it is."""
    serves, told = os.pipe()
    if child := os.fork():
        os.close(told)
        if os.read(serves, 1):
            os._exit(0)
        os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    os.setsid()

    def serving() -> None:
        os.chdir("/")
        if umask is not None:
            os.umask(umask)
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in range(3):
            os.dup2(nothing, number)
        os.write(told, b"!")
        os.close(told)

    return serving
