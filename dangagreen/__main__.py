"""`python -m dangagreen dump PID`: what the loops of another process are doing.

Rules: a process is asked by `sys.remote_exec`, which Python has from 3.14 on, and need not be prepared; elsewhere by a
signal, and one that does not expect it is left alone, since it would end. What does not belong here: what is printed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable

_SIGNALS = {name: number for name, number in vars(signal).items() if name.startswith("SIG") and "_" not in name}
_USUAL = "SIGUSR1"  # that of `dump_on_signal`
ANSWER_SECONDS = 5.0  # so long a process has to answer
_LOOK_SECONDS = 0.02  # time between two looks for the answer

# What the other process runs, in its main thread, between two instructions of what it does there. It looks on, and
# says why where it cannot; a file that cannot be written is found missing by who waits for it.
_SCRIPT = """
def _answer(path):
    import os, sys
    try:
        if "dangagreen" in sys.modules:
            from dangagreen.introspect.on_signal import text_of_loops
            text = text_of_loops()
        else:
            text = "it does not use dangagreen"
    except BaseException as error:
        text = f"it could not look: {error!r}"
    try:
        with open(path + ".part", "wb") as file:
            file.write(text.encode(errors="replace"))
        os.rename(path + ".part", path)
    except OSError:
        pass

_answer(ANSWER)
"""


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0, or 1 where the process cannot be asked."""
    parser = argparse.ArgumentParser(prog="python -m dangagreen", description="See what a running program is doing.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("dump", help="print the loops, sockets and tasks of a process")
    command.add_argument("pid", type=int)
    command.add_argument(
        "--signal",
        choices=sorted(_SIGNALS),
        metavar="NAME",
        help=f"have it print them to its own stderr, upon this signal (where it cannot be asked otherwise: {_USUAL})",
    )
    asked = parser.parse_args(arguments)
    refusals = []
    remote_exec: Callable[[int, str], object] | None = getattr(sys, "remote_exec", None)
    if remote_exec is not None and asked.signal is None:
        try:
            print(look_into(asked.pid, remote_exec))
            return 0
        except (OSError, RuntimeError) as error:
            refusals.append(f"process {asked.pid} cannot be looked into: {error}")
    name = asked.signal or _USUAL
    try:
        refusal = ask(asked.pid, _SIGNALS[name])
    except OSError as error:
        refusal = f"process {asked.pid} cannot be asked: {error}"
    if refusal is None:
        print(f"process {asked.pid} was sent {name}: it prints to its own stderr")
        return 0
    print(*refusals, refusal, sep="\n", file=sys.stderr)
    return 1


# -- by sys.remote_exec


def look_into(pid: int, remote_exec: Callable[[int, str], object]) -> str:
    """Have a process run a script that says what it does, and return that.

    Raises OSError or RuntimeError if that is not permitted, or it is another Python; TimeoutError if it does not
    answer: it runs the script when its main thread runs Python code the next time.
    """
    folder = tempfile.mkdtemp(prefix="dangagreen-")
    script, answer = os.path.join(folder, "look.py"), os.path.join(folder, "answer")
    with open(script, "w") as file:
        file.write(_SCRIPT.replace("ANSWER", repr(answer)))
    late = False
    try:
        _give_to_owner(pid, folder, script)
        remote_exec(pid, script)
        until = time.monotonic() + ANSWER_SECONDS
        while not os.path.exists(answer):
            os.kill(pid, 0)  # raises ProcessLookupError if it has ended
            if late := time.monotonic() > until:
                raise TimeoutError(
                    f"it has not answered within {ANSWER_SECONDS} s, as its main thread waits in the kernel, or is in"
                    f" the middle of a call in C. At its next event it writes what it does to {answer}"
                )
            time.sleep(_LOOK_SECONDS)
        with open(answer, errors="replace") as file:
            return file.read().rstrip("\n")
    finally:
        if not late:
            shutil.rmtree(folder, ignore_errors=True)


def _give_to_owner(pid: int, *paths: str) -> None:
    """Root may look into a process of another user, who has to read and write these."""
    if hasattr(os, "geteuid") and os.geteuid() == 0 and os.path.isdir(f"/proc/{pid}"):
        owner = os.stat(f"/proc/{pid}")
        for path in paths:
            os.chown(path, owner.st_uid, owner.st_gid)


# -- by a signal


def ask(pid: int, number: int) -> str | None:
    """Send the signal if the process catches it. Returns why not, otherwise."""
    name = signal.Signals(number).name
    if not os.path.isdir("/proc/self"):
        return f"without /proc it cannot be seen whether process {pid} catches {name}, which would end it: kill -{name}"
    if not catches(pid, number):
        return f"process {pid} does not catch {name}, which would end it: it calls introspect.dump_on_signal() for that"
    os.kill(pid, number)
    return None


def catches(pid: int, number: int) -> bool:
    """Whether a process has a handler for this signal, by /proc."""
    with open(f"/proc/{pid}/status") as status:
        caught = next(line.split()[1] for line in status if line.startswith("SigCgt:"))
    return bool(int(caught, 16) >> (number - 1) & 1)


if __name__ == "__main__":
    sys.exit(main())
