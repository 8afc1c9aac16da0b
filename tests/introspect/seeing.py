"""Programs that look into themselves, each in an interpreter of its own: the import of introspect changes a process."""

from __future__ import annotations

import json

from tests.programs import run_python

PREAMBLE = """
import gc, io, json, os, signal, sys, threading, time
import dangagreen as d
from dangagreen import introspect
from dangagreen.testing import virtual_loop, wire

def line_of(function, offset=0):
    return f"{function.__code__.co_filename}:{function.__code__.co_firstlineno + offset}"

answers = {}
"""
END = """
print(json.dumps(answers))
"""


def answers(program: str) -> dict[str, object]:
    """What a program has put into `answers`; it must not complain of anything."""
    code, out, complaints = run_python("-X", "dev", "-W", "error", "-c", PREAMBLE + program + END)
    assert not complaints, complaints
    assert code == 0
    return json.loads(out)


LINTED = """
found = []
introspect.lint(tell=found.append)
loop = virtual_loop()
loop.__enter__()

def time_passes(step=0.01):  # outside callbacks and tasks
    loop.post_loop_callback = lambda *_maps: loop.clock.jump(step) or True

def each_turn_brings(peer, data):  # for half a minute
    def bring(*_maps):
        peer.send(data)
        loop.clock.jump(0.01)
        return True
    loop.post_loop_callback = bring
    d.sleep(30)
    loop.post_loop_callback = None

def kinds():
    return [report.kind for report in found]
"""


def linted(program: str) -> dict[str, object]:
    """`answers` of a program with lints on, which has a virtual loop in `loop`, and what was found in `found`."""
    return answers(f"{LINTED}{program}\nloop.close()\n")


def finds(kind: str, program: str, *words: str) -> None:
    """Run the program's `main` with lints on: there is one finding, in the line that ends with "# HERE".

    Or in a chain of lines, those further in end with "# HERE in FUNCTION, called from". In `words`, ACQUIRED stands for
    the line that ends with "# ACQUIRED".
    """
    linted(
        program
        + f"""
d.run(main)
(report,) = found
assert report.kind == {kind!r}, report
lines = [(f"<string>:{{number}}", line) for number, line in enumerate(sys.orig_argv[-1].splitlines(), 1)]
marked = [(place, line.partition("#" + " HERE")) for place, line in lines]
here = [place for place, (_, mark, more) in marked if mark and not more]
inner = "".join(f"{{place}}{{more}} " for place, (_, mark, more) in marked if more)
assert report.place in [inner + place for place in here], (report, inner, here)
acquired = [place for place, line in lines if line.endswith("#" + " ACQUIRED")]
assert str(report) == f"lint {kind}: {{report.what}}: {{report.place}}"
for word in {words!r}:
    assert word.replace("ACQUIRED", *acquired or [""]) in report.what, (word, report.what)
"""
    )


def finds_nothing(program: str) -> None:
    """Run the program's `main` with lints on: nothing is found."""
    linted(program + "\nd.run(main)\nassert found == [], found\n")
