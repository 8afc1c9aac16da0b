#!/usr/bin/env bash
# gr_context of a greenlet that is suspended. A good guess: it can be read and set as long as the greenlet does not run, and
# whether one runs is what its repr says. It is otherwise: greenlet takes one for running whose stack holds no frame of
# Python, as where a function in C (of an extension module, compiled by Cython, functools.partial, or a bound switch) is what
# it runs and what switches away. Then gr_frame is None, and gr_context raises ValueError of "a different thread" in a
# program of one thread, while repr says "suspended"; switching to it goes well. The cure: let one function in Python be the
# first that the greenlet runs, or give it its context before the first switch.
# Seen with greenlet 3.5.6, CPython 3.11.7 and 3.13.0: "cannot set context of a greenlet that is running in a different
# thread", of "suspended active started".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet greenlet==3.5.6
timeout 60 venv/bin/python - <<'PY'
import contextvars
import platform
import threading

from greenlet import getcurrent, greenlet

main = getcurrent()
in_python, in_c = greenlet(lambda: main.switch()), greenlet(main.switch)
print(f"CPython {platform.python_version()}, {threading.active_count()} thread")
seen = []
for suspended in in_python, in_c:
    suspended.switch()
    try:
        suspended.gr_context = contextvars.Context()
        answer = "set"
    except ValueError as error:
        answer = str(error)
    state = repr(suspended).rpartition(")")[2].strip(" >")
    seen.append((suspended.gr_frame is not None, state, answer, suspended.switch("goes on"), suspended.dead))
    print(seen[-1])
words = "cannot set context of a greenlet that is running in a different thread"
assert seen == [
    (True, "suspended active started", "set", "goes on", True),
    (False, "suspended active started", words, "goes on", True),
], "this has changed"
PY
