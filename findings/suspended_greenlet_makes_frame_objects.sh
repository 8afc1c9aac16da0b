#!/usr/bin/env bash
# What a greenlet that is suspended in a stack of N functions in Python costs. A good guess: N matters little, since CPython
# 3.11 made frame objects rare (only who asks for one makes it) and greenlet keeps what lies on the stack as it is. So it is
# on 3.11. From 3.12 on, greenlet makes a frame object of each frame in Python that was entered since the last switch, so that
# gr_frame can be walked: one object a frame, of 100 bytes and more each, for as long as the frame lives. The memory of a
# thousand parked greenlets, and the time of a switch from a fresh stack, follow the number of functions between the entry
# and the switch: few, flat functions on the way to a wait are worth more there than on 3.11.
# Seen with greenlet 3.5.6: CPython 3.11.7 "4, 4, 4 blocks of memory at a depth of 1, 10, 100"; 3.12.1 and 3.13.0 "5, 14, 104".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet greenlet==3.5.6
timeout 60 venv/bin/python - <<'PY'
import platform
import sys

from greenlet import getcurrent, greenlet

main = getcurrent()


def deep(depth):
    if depth:
        return deep(depth - 1)
    main.switch()


def blocks_of_memory(depth):
    suspended = greenlet(deep)
    before = sys.getallocatedblocks()
    suspended.switch(depth)
    held = sys.getallocatedblocks() - before
    suspended.switch()
    return held


blocks_of_memory(1)
seen = [blocks_of_memory(depth) for depth in (1, 10, 100)]
print(f"CPython {platform.python_version()}: blocks of memory at a depth of 1, 10, 100: {seen}")
growth = seen[2] - seen[1]
assert growth == (90 if sys.version_info >= (3, 12) else 0), "this has changed"
PY
