"""A fork outside the running loop: the child watches what its parent watches, with a poller of its own.

A fork inside it is in tests/green/test_forking.py.
"""

import os

from tests.connections import Collector
from tests.helpers import exit_code_of


def test_a_fork_gives_the_child_a_fresh_poller_and_leaves_the_parents_registrations(real_loop, tcp_pair, run_until):
    sock, peer = tcp_pair()
    one = Collector(sock)
    one.watch_read(True)
    child = os.fork()
    if child == 0:  # what fails here must not come out as a test of its own
        code = 1
        try:
            turns = iter(range(50))
            one.loop.loop_timeout = 0.02
            peer.send(b"from the child")
            one.loop.run(lambda: bool(one.data) or next(turns, None) is None)
            code = 0 if one.data == b"from the child" else 2
            one.close()
            one.loop.reset()
        finally:
            os._exit(code)
    assert exit_code_of(child) == 0
    peer.send(b"for the parent")
    run_until(lambda: one.data, turns=100)
    assert one.data == b"for the parent"
    assert not one.closed
