"""Soak the library: `python -m tests.soak --seconds 600` in a checkout.

Four kinds of runs share the time.
  programs  random programs of both styles against a byte-exact model, in memory and over real sockets and every poller
  ends      random programs about the end of a connection, whose states and transitions are those of the table in
            dangagreen/sockets/states.py
  faults    a program of everything, in which one call of the poller or of a socket fails, with an errno that its manual
            page names
  parsers   hostile input for the example servers and the crawler, beside an honest client
What is wrong is printed, and the exit status is 1. The seed decides all that is random but for what the kernel's timing
makes of it; a program that failed is repeated by --program and its number, for "ends" with --kinds ends.
"""

from __future__ import annotations

import argparse
import faulthandler
import logging
import secrets
import sys
from functools import partial
from random import Random

from tests.soak import ends, faulty, parsers, programs, repeated

KINDS = {
    "programs": partial(repeated, programs.once),
    "ends": partial(repeated, ends.once),
    "faults": faulty.soak,
    "parsers": parsers.soak,
}
NOUNS = {"programs": "programs", "ends": "programs", "faults": "faults", "parsers": "attacks"}


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-s", "--seconds", type=float, default=60.0, help="for all kinds together (default: 60)")
    parser.add_argument("--seed", type=int, help="repeat the run of that seed (default: a new one)")
    parser.add_argument("-k", "--kinds", help=f"of {','.join(KINDS)} (default: all)")
    parser.add_argument("--program", type=int, help="run that program, and nothing else")
    return parser.parse_args()


def main() -> int:
    chosen = options()
    kinds = chosen.kinds.split(",") if chosen.kinds else list(KINDS)
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        sys.exit(f"no such kind: {', '.join(unknown)}; there are {', '.join(KINDS)}")
    logging.getLogger("dangagreen").setLevel(logging.CRITICAL + 1)  # what reaches on_error is looked at by each kind
    if chosen.program is not None:
        wrong = (ends if kinds == ["ends"] else programs).once(chosen.program)
        print(*wrong, sep="\n")
        return bool(wrong)
    seed = chosen.seed if chosen.seed is not None else secrets.randbelow(1 << 32)
    print(f"seed {seed}", flush=True)
    failed = False
    for kind in kinds:
        seconds = chosen.seconds / len(kinds)
        faulthandler.dump_traceback_later(seconds + 120, exit=True)  # something hangs in a way that nobody foresaw
        count, found = KINDS[kind](Random(f"{seed} {kind}"), seconds)
        faulthandler.cancel_dump_traceback_later()
        print(f"{kind}: {count} {NOUNS[kind]}, {len(found)} wrong", *found, sep="\n  ", flush=True)
        failed = failed or bool(found)
    return failed


if __name__ == "__main__":
    sys.exit(main())
