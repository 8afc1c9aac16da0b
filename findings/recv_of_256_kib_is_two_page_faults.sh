#!/usr/bin/env bash
# recv(262144) of a few bytes, as the transports of asyncio's selector loops call it. A good guess: what recv costs follows
# from how many bytes have come, and malloc raises its threshold for mmap(2) (M_MMAP_THRESHOLD, 128 KiB, dynamic) at the first
# free, so that the buffer is mapped once. On glibc it is otherwise: CPython shrinks the new bytes object to what has come,
# mremap(2) shrinks its mapping, and what is freed then is a small mapping, which raises nothing: each read of 64 bytes is a
# mmap, an mremap, a munmap and two page faults, for the life of the process. One larger object that was allocated and freed
# anywhere ends it; so an echo server of asyncio may take four times the processor time of the same one that imports more.
# The cure: ask for less than 128 KiB at a time.
# Seen on Linux 6.18, glibc 2.36, CPython 3.11.7 and 3.13.0: "2.00 page faults for each read, and 0.00 after 300 kB were freed".
set -euo pipefail
[ "$(uname -s)" = Linux ] && getconf GNU_LIBC_VERSION >/dev/null 2>&1 || { echo "Linux with glibc only"; exit 0; }
timeout 60 python3 - <<'PY'
import asyncio.selector_events
import platform
import resource
import socket

SIZE = asyncio.selector_events._SelectorTransport.max_size
READS = 2000


def page_faults(size):
    ours, theirs = socket.socketpair()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(READS):
        theirs.send(bytes(64))
        assert len(ours.recv(size)) == 64
    ours.close()
    theirs.close()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / READS


small, large = page_faults(65536), page_faults(SIZE)
del [bytes(300_000)][0]
after = page_faults(SIZE)
print(f"{platform.system()} {platform.release()}, {' '.join(platform.libc_ver())}, CPython {platform.python_version()}")
print(f"recv({SIZE}) of 64 bytes: {large:.2f} page faults for each read, and {after:.2f} after 300 kB were freed")
print(f"recv(65536) of 64 bytes: {small:.2f}")
assert SIZE == 262144 and large > 1.5 and after < 0.5 and small < 0.5, "this has changed"
PY
