"""A loop as a whole: reset, close, its thread. Its turn is in test_turn, who is in it in test_registry."""

import socket
import struct
import sys
import threading
from contextlib import ExitStack

from dangagreen import Loop, Socket, current_loop
from dangagreen.frames import LOOPS
from dangagreen.loop.loop import here
from dangagreen.loop.turn import latest
from tests.connections import Collector


def test_reset_closes_everything_and_the_loop_starts_again(real_loop, real_pair, run_until, peers):
    fired = []
    old_sock, _ = real_pair()
    old = Collector(old_sock)
    old.watch_read(True)
    timer = real_loop.add_timer(0, lambda: fired.append("timer"))
    real_loop.call_soon(fired.append, "call_soon")
    Socket.set_post_loop_callback(lambda *_: fired.append("post-loop"))
    Socket.set_loop_timeout(0)
    Socket.reset()
    assert old.closed
    assert old_sock.fileno() == -1
    assert not timer.active
    assert Socket.watched_sockets() == 0
    assert real_loop.loop_timeout is None
    sock, peer = real_pair()
    new = Collector(sock)
    new.watch_read(True)
    peer.send(b"again")
    run_until(lambda: new.data, turns=10)
    assert new.data == b"again"
    assert fired == []
    threading.Thread(target=real_loop.call_soon_threadsafe, args=(fired.append, "from a thread")).start()
    run_until(lambda: fired, turns=10)
    new.close()
    real_loop.reset()


def test_reset_of_a_running_loop_raises(loop, run_turns, take_errors):
    loop.call_soon(Socket.reset)
    run_turns(1)
    (context,) = take_errors()
    assert isinstance(context.exception, RuntimeError)


def test_a_reset_by_linger_is_no_news_to_other_sockets(real_loop, tcp_pair, run_turns):
    (sock, peer), (other_sock, other_peer) = tcp_pair(), tcp_pair()
    one, other = Collector(sock), Collector(other_sock)
    one.watch_read(True)
    other.watch_read(True)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
    other_peer.send(b"fine")
    run_turns(3)
    assert one.closed
    assert other.data == b"fine"


# -- turns that others make


def test_a_loop_that_was_begun_runs_until_the_block_ends_and_turns_when_it_is_told_to(loop):
    seen = []
    with ExitStack() as undo:
        loop.begin(undo)
        assert loop.running
        assert here.loop is loop
        loop.call_soon(lambda: seen.append(sum(frame in LOOPS for frame in frames())))
        assert seen == []
        loop.turn()
        assert seen == [1]
    assert not loop.running
    assert LOOPS.isdisjoint(frames())


def frames():
    frame = sys._getframe()
    while frame is not None:
        yield frame
        frame = frame.f_back


def test_the_latest_loop_is_the_current_one_of_its_thread_while_it_runs(loop, in_thread):
    seen = {}

    def run(other, word):
        def note():
            seen[word] = latest.loop
            other.stop()

        other.call_soon(note)
        other.run()

    def run_one():
        with Loop() as other:
            seen["the one in a thread"] = other
            run(other, "in a thread")

    def look():
        seen["in its run"] = latest.loop
        with Loop() as other:
            seen["in a block"] = latest.loop
            run(other, "in the run of another")
            seen["after that run"] = latest.loop
            assert seen["in the run of another"] is other
        seen["after the block"] = latest.loop
        in_thread(run_one)
        assert seen["in a thread"] is seen["the one in a thread"] is not loop
        seen["after the thread"] = latest.loop
        seen["here"] = current_loop()

    before = latest.loop
    loop.call_soon(look)
    loop.run(lambda: "here" in seen)
    assert before is latest.loop is None
    assert seen["in its run"] is seen["after the block"] is seen["here"] is loop
    assert seen["in a block"] is seen["after that run"] is seen["after the thread"] is None
