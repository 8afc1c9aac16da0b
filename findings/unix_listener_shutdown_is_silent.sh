#!/usr/bin/env bash
# shutdown(2) of a listening Unix socket. A good guess, from TCP: accept() then fails with EINVAL, so that a server which
# looks at its errors finds out. On Linux a Unix listener says EAGAIN for ever when it does not block, exactly as one that
# has nothing to accept, while epoll reports EPOLLHUP (and EPOLLIN) each time: an event loop that trusts either alone
# spins. The two together are the sign that it is over. A TCP listener says EINVAL.
# Seen on Linux 6.18, CPython 3.11.7: "unix: EAGAIN three times, epoll IN|HUP", "tcp: EINVAL".
set -euo pipefail
[ "$(uname -s)" = Linux ] || { echo "Linux only"; exit 0; }
timeout 60 python3 - <<'PY'
import errno
import os
import platform
import select
import socket
import tempfile


def what_it_says(listener):
    listener.listen()
    listener.setblocking(False)
    listener.shutdown(socket.SHUT_RDWR)
    epoll = select.epoll()
    epoll.register(listener.fileno(), select.EPOLLIN)
    said = []
    for _ in range(3):
        try:
            listener.accept()
        except OSError as error:
            said.append(errno.errorcode[error.errno])
    events = [mask for _, mask in epoll.poll(1)]
    epoll.close()
    return said, events


print(f"{platform.system()} {platform.release()}, CPython {platform.python_version()}")
with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as unix, socket.socket() as tcp:
    unix.bind(os.path.join(folder, "listener"))
    tcp.bind(("127.0.0.1", 0))
    said, events = what_it_says(unix)
    print("unix:", said, "epoll", events)
    assert said == ["EAGAIN"] * 3 and events[0] & select.EPOLLHUP, "this has changed"
    said, events = what_it_says(tcp)
    print("tcp:", said, "epoll", events)
    assert said == ["EINVAL"] * 3, "this has changed"
PY
