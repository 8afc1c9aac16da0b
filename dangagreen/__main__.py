"""`python -m dangagreen dump PID`: what the loops of another process are doing.

Rules: a process that does not expect the signal is left alone, since it would end. What does not belong here: what is
printed there.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys

_SIGNALS = {name: number for name, number in vars(signal).items() if name.startswith("SIG") and "_" not in name}


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0, or 1 where the process cannot be asked."""
    parser = argparse.ArgumentParser(prog="python -m dangagreen", description="See what a running program is doing.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("dump", help="have a process print its loops, sockets and tasks to its stderr")
    command.add_argument("pid", type=int)
    command.add_argument("--signal", default="SIGUSR1", choices=sorted(_SIGNALS), metavar="NAME")
    asked = parser.parse_args(arguments)
    try:
        refusal = ask(asked.pid, _SIGNALS[asked.signal])
    except OSError as error:
        refusal = f"process {asked.pid} cannot be asked: {error}"
    if refusal is not None:
        print(refusal, file=sys.stderr)
        return 1
    print(f"process {asked.pid} was sent {asked.signal}: it prints to its own stderr")
    return 0


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
