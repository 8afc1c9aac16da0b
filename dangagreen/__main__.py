"""`python -m dangagreen dump PID`: what the loops of another process are doing.

Rules: a process is asked by `sys.remote_exec`, which Python has from 3.14 on, and need not be prepared; elsewhere by a
signal, which is sent only to a process whose mark says that it prints a dump upon it: any other might end, or do
something else. What does not belong here: what is printed.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable

from dangagreen.introspect.mark import ask_for, marks_of
from dangagreen.introspect.remote import Refusal, look_into
from dangagreen.introspect.text import MOST

_USUAL = signal.SIGUSR1  # that of `dump_on_signal`
_ENDING = (signal.SIGTERM, signal.SIGINT)  # a dump upon them is one of a program that ends


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0, or 1 where the process cannot be asked."""
    asked = _parser().parse_args(arguments)
    refusals = []
    remote_exec: Callable[[int, str], object] | None = getattr(sys, "remote_exec", None)
    if remote_exec is not None and asked.signal is None:
        try:
            print(look_into(asked.pid, remote_exec, asked.most, asked.json))
            return 0
        except Refusal as refusal:
            print(refusal, file=sys.stderr)
            return 1
        except (OSError, RuntimeError) as error:
            refusals.append(f"process {asked.pid} cannot be looked into: {error}")
    try:
        number = ask(asked.pid, asked.signal, asked.most, asked.json)
    except OSError as error:
        refusals.append(f"process {asked.pid} cannot be asked: {error}")
    except Refusal as refusal:
        refusals.append(str(refusal))
    else:
        print(f"process {asked.pid} was sent {name_of(number)}: it prints to its own stderr")
        return 0
    print(*refusals, sep="\n", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m dangagreen", description="See what a running program is doing.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("dump", help="print the loops, sockets and tasks of a process")
    command.add_argument("pid", type=_from_one, help="its number")
    command.add_argument(
        "--signal",
        type=_signal,
        metavar="SIGNAL",
        help="have it print them to its own stderr, upon this signal, such as USR1 (where it cannot be asked otherwise:"
        " the one of its dump_on_signal)",
    )
    command.add_argument(
        "--most",
        type=_from_one,
        default=MOST,
        metavar="N",
        help="at most so many sockets, tasks and timers (%(default)s)",
    )
    command.add_argument("--json", action="store_true", help="as JSON, a line for each loop")
    return parser


def _signal(text: str) -> int:
    """The number of a signal: "SIGUSR1", "USR1", "10"."""
    name = text.upper() if text.upper().startswith("SIG") else f"SIG{text.upper()}"
    number = int(text) if text.isdecimal() else signal.Signals.__members__.get(name, 0)
    if number not in signal.valid_signals():
        raise argparse.ArgumentTypeError(f"there is no signal {text!r}")
    return int(number)


def _from_one(text: str) -> int:
    if not text.isdecimal() or not (number := int(text)):
        raise argparse.ArgumentTypeError(f"it is a number from 1 on, not {text!r}")
    return number


# -- by a signal


def ask(pid: int, number: int | None, most: int, as_json: bool) -> int:
    """Send a process this signal, by default the one upon which it prints a dump. Returns the signal.

    Raises Refusal unless it prints a dump upon it; OSError where it may not be looked into, or be sent signals.
    """
    if not os.path.isdir("/proc/self"):
        name = name_of(_USUAL if number is None else number)
        raise Refusal(f"without /proc it cannot be seen whether process {pid} expects {name}, which may end it: kill")
    if not os.path.isdir(f"/proc/{pid}"):
        raise Refusal(f"there is no process {pid}")
    marks = marks_of(pid)
    if number is None:
        number = int(_USUAL) if _USUAL in marks else min(marks, default=int(_USUAL))
    name = name_of(number)
    if number in _ENDING:
        raise Refusal(f"process {pid} is not sent {name}, which ends programs")
    if number not in marks:
        others = ", ".join(map(name_of, sorted(marks)))
        hint = f"; it does upon {others}" if others else ": call introspect.dump_on_signal() in it"
        raise Refusal(f"process {pid} prints no dump upon {name}, which might end it{hint}")
    if not catches(pid, number):
        raise Refusal(f"process {pid} does not catch {name} any more, which might end it")
    if most != MOST or as_json:
        ask_for(marks[number], most, as_json)
    os.kill(pid, number)
    return number


def name_of(number: int) -> str:
    """The name of a signal; those for real time have none."""
    return signal.Signals(number).name if number in list(signal.Signals) else f"signal {number}"


def catches(pid: int, number: int) -> bool:
    """Whether a process has a handler for this signal, by /proc."""
    with open(f"/proc/{pid}/status") as status:
        caught = next(line.split()[1] for line in status if line.startswith("SigCgt:"))
    return bool(int(caught, 16) >> (number - 1) & 1)


if __name__ == "__main__":
    sys.exit(main())
