"""The water marks and their hooks, and the hard limit."""

from tests.connections import Plain


class Marked(Plain):
    __slots__ = ()
    high_water = 100
    low_water = 20

    def on_high_water(self):
        self.calls.append(("high", self.unsent))

    def on_low_water(self):
        self.calls.append(("low", self.unsent))


def test_the_water_marks_call_their_hooks_once_for_each_crossing(loop, wires, run_turns):
    sock, peer = wires(10)
    one = Marked(sock)
    for _ in range(2):
        for _ in range(13):
            one.write(b"x" * 10)
        for _ in range(20):
            if peer.events(1):
                peer.recv(10)
            run_turns(1)
    marks = [call for call in one.calls if call != "write"]
    assert marks == [("high", 110), ("low", 20), ("high", 110), ("low", 20)]


def test_exactly_the_high_water_mark_is_not_above_it(loop, wires):
    one = Marked(wires(10)[0])
    one.write(b"x" * 110)
    assert one.calls == []
    one.write(b"x")
    assert one.calls == [("high", 101)]


def test_more_than_max_unsent_closes_with_a_reason(loop, wires, run_turns):
    class Limited(Plain):
        __slots__ = ()
        high_water = low_water = max_unsent = 100

    sock, peer = wires(10)
    one = Limited(sock)
    one.write(b"x" * 110)
    assert not one.closed
    one.write(b"y")
    assert one.closed
    assert "100" in str(one.close_reason)
    assert one.unsent == 0
    run_turns(1)
    assert peer.recv(1000) == b"x" * 10
    assert peer.recv(1000) == b""


def test_max_unsent_counts_what_is_queued_and_not_what_the_kernel_took(loop, wires):
    class Limited(Plain):
        __slots__ = ()
        high_water = low_water = max_unsent = 10

    one = Limited(wires(1000)[0])
    assert one.write(b"x" * 1000) is True
    assert one.write(b"x" * 10) is False
    assert not one.closed
