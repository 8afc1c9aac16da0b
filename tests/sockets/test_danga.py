"""Danga::Socket's own names, and post-loop callbacks."""

import logging
import os
import re

import pytest

from dangagreen import Socket

CLASS_METHODS = """
    EventLoop Reset WatchedSockets DescriptorMap ToClose HaveEpoll DebugMsg OtherFds AddOtherFds AddTimer SetLoopTimeout
    SetPostLoopCallback EnableProfiling ProfilingData
"""


class Reader(Socket):
    __slots__ = ("data",)

    def __init__(self, sock, loop=None):
        super().__init__(sock, loop)
        self.data = b""

    def event_read(self):
        data = self.read(100)
        if data is None:
            self.close("the end")
        else:
            self.data += data


@pytest.mark.parametrize("camel", re.findall(r"\w+", CLASS_METHODS))
def test_each_class_method_has_both_names(camel):
    snake = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in camel).lstrip("_")
    names = {name: value for cls in Socket.__mro__ for name, value in vars(cls).items()}
    assert names[camel] is names[snake]
    assert names[snake].__doc__ or type(names[snake]).__doc__


def test_the_camel_case_names_do_the_same(loop, wires):
    sock, peer = wires()
    one = Reader(sock)
    one.watch_read(True)
    peer.send(b"x")
    Reader.SetLoopTimeout(100)
    Reader.AddTimer(1, lambda: None)
    Reader.EnableProfiling()
    seen = []
    Reader.SetPostLoopCallback(lambda *_: seen.append(1) or len(seen) < 20)
    Reader.EventLoop()
    assert one.data == b"x"
    assert len(seen) == 20
    assert Reader.ProfilingData()["Reader-read"][2] == 1
    assert Reader.WatchedSockets() == 1
    assert Reader.DescriptorMap() == {one.fd: one}
    assert Reader.ToClose() == []
    assert Reader.OtherFds() == {}
    Reader.Reset()
    assert Reader.WatchedSockets() == 0


def test_have_epoll_tells_which_poller_the_loop_has(real_loop, poller_class):
    assert Socket.have_epoll() is (poller_class.__name__ == "EpollPoller")


def test_debug_msg_goes_to_the_log(loop, caplog):
    Socket.debug_msg("not now")
    assert caplog.messages == []
    caplog.set_level(logging.DEBUG, "dangagreen")
    Socket.DebugMsg("now %d of %s", 2, "three")
    assert caplog.record_tuples == [("dangagreen", logging.DEBUG, "now 2 of three")]
    caplog.clear()
    Socket.DebugMsg("as in Perl, %s\n", "without a blank line")
    assert caplog.messages == ["as in Perl, without a blank line"]


# -- post-loop callbacks


def test_the_global_callback_runs_after_every_turn_until_it_answers_false(loop):
    Socket.set_loop_timeout(0)
    seen = []
    Socket.set_post_loop_callback(lambda *_: seen.append(1) or len(seen) < 3)
    Socket.event_loop()
    assert len(seen) == 3


@pytest.mark.parametrize("answer", [False, None, 0, ""])
def test_any_false_answer_ends_the_loop(loop, answer):
    Socket.set_loop_timeout(0)
    seen = []
    Socket.set_post_loop_callback(lambda *_: seen.append(1) or answer)
    Socket.event_loop()
    assert seen == [1]


def test_a_callback_gets_the_descriptor_map_and_the_other_fds(loop, wires):
    read_end, write_end = os.pipe()
    one = Reader(wires()[0])
    seen = []
    Socket.set_loop_timeout(0)
    Socket.add_other_fds({read_end: print})
    Socket.set_post_loop_callback(lambda descriptors, others: seen.append((dict(descriptors), dict(others))))
    Socket.event_loop()
    assert seen == [({one.fd: one}, {read_end: print})]
    Socket.other_fds({})
    os.close(read_end)
    os.close(write_end)


def test_it_sees_the_map_without_what_was_closed_in_the_turn(loop, wires):
    sock, _ = wires()
    one = Reader(sock)
    seen = []
    loop.call_soon(one.close)
    Socket.set_post_loop_callback(lambda descriptors, _: seen.append((one.fd in descriptors, sock.closed)))
    Socket.event_loop()
    assert seen == [(False, True)]


def test_an_objects_own_callback_runs_while_the_object_lives(loop, wires, run_turns):
    one, other = Reader(wires()[0]), Reader(wires()[0])
    seen = []
    one.set_post_loop_callback(lambda *_: seen.append("one") or True)
    other.SetPostLoopCallback(lambda *_: seen.append("other") or True)
    run_turns(2)
    assert sorted(seen) == ["one", "one", "other", "other"]
    seen.clear()
    other.close()
    run_turns(2)
    assert seen == ["one", "one"]
    one.set_post_loop_callback(None)
    seen.clear()
    run_turns(2)
    assert seen == []


def test_an_objects_callback_replaces_neither_the_global_one_nor_anothers(loop, wires, run_turns):
    one = Reader(wires()[0])
    seen = []
    Socket.set_post_loop_callback(lambda *_: seen.append("global") or True)
    one.set_post_loop_callback(lambda *_: seen.append("first") or True)
    one.set_post_loop_callback(lambda *_: seen.append("own") or True)
    run_turns(1)
    assert sorted(seen) == ["global", "own"]


def test_an_objects_false_answer_ends_the_loop(loop, wires):
    Socket.set_loop_timeout(0)
    one = Reader(wires()[0])
    seen = []
    one.set_post_loop_callback(lambda *_: seen.append(1) or len(seen) < 4)
    Socket.set_post_loop_callback(lambda *_: True)
    Socket.event_loop()
    assert len(seen) == 4


def test_a_callback_set_on_a_closed_object_never_runs(loop, wires, run_turns):
    one = Reader(wires()[0])
    one.close()
    seen = []
    one.set_post_loop_callback(lambda *_: seen.append(1))
    run_turns(2)
    assert seen == []


def test_a_callback_that_raises_is_reported_and_counts_as_true(loop, wires, run_turns, take_errors):
    def raising(*_):
        raise ZeroDivisionError

    one = Reader(wires()[0])
    seen = []
    one.set_post_loop_callback(raising)
    Socket.set_post_loop_callback(lambda *_: seen.append(1) or True)
    run_turns(3)
    assert seen == [1, 1, 1]
    assert [type(context.exception) for context in take_errors()] == [ZeroDivisionError] * 3
    assert not one.closed


def test_the_loop_can_run_again_after_a_callback_ended_it(loop, wires):
    sock, peer = wires()
    one = Reader(sock)
    one.watch_read(True)
    Socket.set_loop_timeout(0)
    Socket.set_post_loop_callback(lambda *_: False)
    Socket.event_loop()
    peer.send(b"x")
    Socket.event_loop()
    assert one.data == b"x"


def test_a_callback_may_close_set_and_clear_callbacks(loop, wires, run_turns):
    ones = [Reader(wires()[0]) for _ in range(3)]
    seen = []

    def callback(*_):
        seen.append(1)
        for one in ones[1:]:
            one.close()
        ones[0].set_post_loop_callback(None)
        return True

    for one in ones:
        one.set_post_loop_callback(callback)
    run_turns(3)
    assert 1 <= len(seen) <= 3
    assert [one.closed for one in ones] == [False, True, True]


def test_the_callback_of_an_object_that_an_earlier_callback_closed_does_not_run(loop, wires, run_turns):
    one, other = Reader(wires()[0]), Reader(wires()[0])
    seen = []
    one.set_post_loop_callback(lambda *_: seen.append("one") or other.close() or True)
    other.set_post_loop_callback(lambda *_: seen.append("other") or one.close() or True)
    run_turns(1)
    assert len(seen) == 1


def test_the_maps_of_post_loop_callbacks_are_made_once_a_turn_and_only_for_those_who_get_them(
    loop, wires, run_turns, monkeypatch
):
    made = []
    original = type(loop).descriptor_map
    monkeypatch.setattr(type(loop), "descriptor_map", lambda self: made.append(1) or original(self))
    loop.object_callbacks["somebody of our own"] = lambda: True
    run_turns(3)
    assert made == []
    one, other = (Reader(end) for end in wires())
    seen = []
    for sock in (one, other, Socket):
        sock.set_post_loop_callback(lambda descriptors, others: seen.append((descriptors, others)) or True)
    run_turns(2)
    assert len(made) == 2
    assert len(seen) == 6
    assert all(descriptors == {one.fd: one, other.fd: other} and others == {} for descriptors, others in seen)
    assert loop._maps is None  # they would keep closed sockets
    loop.object_callbacks.clear()


def test_enabling_profiling_forgets_what_was_measured(loop, wires, run_turns):
    class Profiled(Socket):
        __slots__ = ()

        def event_read(self):
            self.read(10)

    near, far = wires()
    sock = Profiled(near)
    sock.watch_read(True)
    for calls in (2, 1):
        assert Socket.EnableProfiling()
        assert Socket.ProfilingData() == {}
        for _ in range(calls):
            far.send(b"x")
            run_turns(1)
        assert Socket.ProfilingData()["Profiled-read"][2] == calls
    Socket.DisableProfiling()
    sock.close()
