"""Having another process say what its loops are doing, by `sys.remote_exec`: it need not be prepared for that.

Rules: its main thread runs the script, and looks on. A wait in the kernel is broken off for it, as by a debugger that
comes and goes: without a signal, and neither the process nor its parent sees more of it than that it waits anew. What
does not belong here: the signal, and what is printed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable

ANSWER_SECONDS = 5.0  # so long a process has to answer
_LOOK_SECONDS = 0.02  # time between two looks for the answer
_NUDGE_SECONDS = 0.1  # after so long without an answer its wait is broken off,
_AGAIN_SECONDS = 1.0  # and then after so long each: it may have begun only now
_REFUSAL = ".refusal"  # the end of the file's name in which a process says why it does not answer

# What the other process runs, in its main thread, between two instructions of what it does there. It looks on, and
# says why where it cannot; a file that cannot be written is found missing by who waits for it.
_SCRIPT = """
__name__ = "sys"  # of the standard library, so that this is not taken for code of the program
def _answer():
    import os, sys
    to = ANSWER
    try:
        if "dangagreen" in sys.modules:
            from dangagreen.introspect.on_signal import told
            text = told(MOST, AS_JSON)
        else:
            to, text = ANSWER + REFUSAL, "does not use dangagreen"
    except BaseException as error:
        to, text = ANSWER + REFUSAL, f"could not look: {error!r}"
    try:
        with open(ANSWER + ".part", "wb") as file:
            file.write(text.encode(errors="replace"))
        os.rename(ANSWER + ".part", to)
    except OSError:
        pass

_answer()
"""


class Refusal(Exception):
    """A process does not say what it does, in words: why."""


def look_into(pid: int, remote_exec: Callable[[int, str], object], most: int, as_json: bool) -> str:
    """Have a process run a script that says what it does, and return that.

    Raises Refusal if it does not use dangagreen; OSError or RuntimeError if it is not permitted, or is another Python;
    TimeoutError if it does not answer: it runs the script when its main thread runs Python code the next time.
    """
    folder = tempfile.mkdtemp(prefix="dangagreen-")
    script, answer = os.path.join(folder, "look.py"), os.path.join(folder, "answer")
    with open(script, "w") as file:
        file.write(f"MOST, AS_JSON, ANSWER, REFUSAL = {most!r}, {as_json!r}, {answer!r}, {_REFUSAL!r}\n{_SCRIPT}")
    late = False
    try:
        if not _is_there(pid):
            raise Refusal(f"there is no process {pid}")
        _give_to_owner(pid, folder, script)
        remote_exec(pid, script)
        text = _answer_of(pid, answer)
        if late := text is None:
            raise TimeoutError(
                f"it has not answered within {ANSWER_SECONDS} s, as its main thread waits in the kernel, or is in the"
                f" middle of a call in C. When it runs Python code again it writes what it does to {answer}"
            )
        return text
    finally:
        if not late:
            shutil.rmtree(folder, ignore_errors=True)


def _answer_of(pid: int, answer: str) -> str | None:
    """Wait for an answer, and return it; None if there is none in time.

    Raises Refusal for one, and if the process ends without an answer.
    """
    now = time.monotonic()
    until, nudge_at = now + ANSWER_SECONDS, now + _NUDGE_SECONDS
    while now <= until:
        with contextlib.suppress(FileNotFoundError):
            return _text(answer)
        with contextlib.suppress(FileNotFoundError):
            raise Refusal(f"process {pid} {_text(answer + _REFUSAL)}")
        if not _is_there(pid):
            raise Refusal(f"process {pid} has ended before it could answer")
        if now >= nudge_at:
            nudge_at = now + _AGAIN_SECONDS
            with contextlib.suppress(OSError):  # a debugger is there already, or the system has no ptrace as Linux has
                _nudge(pid)
        time.sleep(_LOOK_SECONDS)
        now = time.monotonic()
    return None


def _text(path: str) -> str:
    with open(path, errors="replace") as file:
        return file.read().rstrip("\n")


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def _give_to_owner(pid: int, *paths: str) -> None:
    """Root may look into a process of another user, who has to read and write these.

    What has given up root's rights is root's own still in /proc, but for what is in `status`.
    """
    if hasattr(os, "geteuid") and os.geteuid() == 0 and os.path.isdir("/proc/self"):
        with open(f"/proc/{pid}/status") as status:
            ids = dict(line.split(":", 1) for line in status)
        user, group = (int(ids[which].split()[1]) for which in ("Uid", "Gid"))  # the effective ones
        for path in paths:
            os.chown(path, user, group)


# -- ptrace(2), of Linux

_SEIZE, _INTERRUPT, _DETACH = 0x4206, 0x4207, 17
_STOP_SECONDS = 1.0  # so long a process may take to stop


def _nudge(pid: int) -> None:
    """Break off what the main thread of a process waits for, if that is epoll_wait(2), which ends with EINTR then.

    Python begins that wait anew when it has run the script. Other system calls the kernel begins anew by itself.
    Raises OSError where it may not be traced, or is traced already, or does not stop.
    """
    if sys.platform != "linux":
        return
    _ptrace(_SEIZE, pid)
    _ptrace(_INTERRUPT, pid)
    until = time.monotonic() + _STOP_SECONDS
    while not (stopped := os.waitpid(pid, os.WNOHANG))[0]:
        if time.monotonic() > until:
            raise TimeoutError(f"process {pid} does not stop")
        time.sleep(0)
    status = stopped[1]
    is_ours = status >> 16  # otherwise it stops for a signal, which it is to get all the same
    _ptrace(_DETACH, pid, None if is_ours else os.WSTOPSIG(status))


def _ptrace(request: int, pid: int, data: int | None = None) -> None:
    ptrace = ctypes.CDLL(None, use_errno=True).ptrace
    ptrace.argtypes, ptrace.restype = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p], ctypes.c_long
    if ptrace(request, pid, None, data) == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
