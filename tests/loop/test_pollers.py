"""Every poller: the same five calls, the same events."""

import os
import select
import socket
import threading
import time
from types import SimpleNamespace

import pytest

from dangagreen.loop.pollers import ERR, HUP, READ, WRITE, KqueuePoller, PollPoller, SelectPoller, available_pollers

HANGS_UP = [cls for cls in available_pollers() if cls is not SelectPoller]


@pytest.fixture
def poller(poller_class):
    poller = poller_class()
    yield poller
    poller.close()


@pytest.fixture
def pair():
    one, other = socket.socketpair()
    with one, other:
        yield one, other


def events(poller, timeout=0):
    return dict(poller.wait(timeout))


def test_the_best_poller_comes_first_and_select_last():
    names = [cls.__name__ for cls in available_pollers()]
    best = [name for name in ("EpollPoller", "KqueuePoller", "PollPoller", "SelectPoller") if name in names]
    assert names == best
    assert names[-1] == "SelectPoller"
    if hasattr(select, "epoll"):
        assert names[0] == "EpollPoller"


def test_reading_and_writing_are_reported_as_they_were_asked_for(poller, pair):
    one, other = pair
    fd = one.fileno()
    poller.add(fd, READ)
    assert events(poller) == {}
    other.send(b"x")
    assert events(poller) == {fd: READ}
    poller.modify(fd, WRITE)
    assert events(poller) == {fd: WRITE}
    poller.modify(fd, READ | WRITE)
    assert poller.wait(0) == [(fd, READ | WRITE)]
    poller.modify(fd, 0)
    assert events(poller) == {}
    poller.modify(fd, READ)
    assert events(poller) == {fd: READ}
    poller.remove(fd)
    assert events(poller) == {}


def test_an_event_is_reported_until_it_is_over(poller, pair):
    one, other = pair
    poller.add(one.fileno(), READ)
    other.send(b"ab")
    for _ in range(3):
        assert events(poller) == {one.fileno(): READ}
    one.recv(1)
    assert events(poller) == {one.fileno(): READ}
    one.recv(1)
    assert events(poller) == {}


def test_several_descriptors_are_reported_together(poller):
    pairs = [socket.socketpair() for _ in range(30)]
    for one, other in pairs:
        poller.add(one.fileno(), READ)
        other.send(b"x")
    assert events(poller) == {one.fileno(): READ for one, _ in pairs}
    for one, other in pairs:
        poller.remove(one.fileno())
        one.close()
        other.close()
    assert events(poller) == {}


def test_adding_twice_and_changing_or_removing_the_unknown_raises(poller, pair):
    one, other = pair
    poller.add(one.fileno(), READ)
    with pytest.raises((OSError, KeyError)):
        poller.add(one.fileno(), WRITE)
    assert events(poller) == {}  # the mask is what it was
    with pytest.raises((OSError, KeyError)):
        poller.modify(other.fileno(), READ)
    with pytest.raises((OSError, KeyError)):
        poller.remove(other.fileno())
    poller.remove(one.fileno())
    with pytest.raises((OSError, KeyError)):
        poller.remove(one.fileno())
    poller.add(one.fileno(), WRITE)
    assert events(poller) == {one.fileno(): WRITE}


def test_a_fin_alone_is_readable_and_no_hang_up(poller, pair):
    one, other = pair
    poller.add(one.fileno(), READ)
    other.shutdown(socket.SHUT_WR)
    assert events(poller) == {one.fileno(): READ}


def test_no_interest_in_reading_means_no_event_for_a_fin(poller, pair):
    one, other = pair
    poller.add(one.fileno(), 0)
    other.send(b"x")
    other.shutdown(socket.SHUT_WR)
    assert events(poller) == {}


@pytest.mark.parametrize("mask", [0, READ])
@pytest.mark.parametrize("poller_class", HANGS_UP)
def test_a_hang_up_is_reported_beside_what_can_be_read(poller_class, mask, pair):
    one, other = pair
    poller = poller_class()
    poller.add(one.fileno(), mask)
    other.send(b"x")
    other.close()
    reported = events(poller).get(one.fileno(), 0)
    poller.close()
    if poller_class is not KqueuePoller:
        assert reported == mask | HUP


def test_select_finds_a_hang_up_by_reading_alone(pair):
    one, other = pair
    poller = SelectPoller()
    poller.add(one.fileno(), 0)
    other.close()
    assert events(poller) == {}
    poller.modify(one.fileno(), READ)
    assert events(poller) == {one.fileno(): READ}


def test_select_refuses_a_descriptor_that_it_cannot_watch(pair):
    poller = SelectPoller()
    with pytest.raises(ValueError, match="another poller"):
        poller.add(1024, READ)
    assert poller.wait(0) == []


def test_wait_without_limit_waits_for_an_event(poller, pair):
    one, other = pair
    poller.add(one.fileno(), READ)
    thread = threading.Thread(target=other.send, args=(b"x",))
    thread.start()
    assert events(poller, None) == {one.fileno(): READ}
    thread.join()


@pytest.mark.parametrize("seconds", [0.0004, 0.0019, 0.0123])
def test_wait_never_ends_early_without_an_event(poller, pair, seconds):
    poller.add(pair[0].fileno(), READ)
    start = time.monotonic()
    assert poller.wait(seconds) == []
    assert time.monotonic() - start >= seconds


def test_wait_of_nothing_does_not_wait(poller):
    start = time.monotonic()
    for _ in range(1000):
        assert poller.wait(0) == []
    assert time.monotonic() - start < 10  # of which a hundredth of a second each would be all


# -- kqueue, where there is none


class FakeKqueue:
    """Keeps the filters that were added; reports the events that the test has put into `ready`."""

    def __init__(self):
        self.filters = set()
        self.ready = []
        self.closed = False
        self.timeouts = []

    def control(self, changes, limit, timeout=None):
        for change in changes or ():
            key = (change.ident, change.filter)
            if change.flags & 2:
                self.filters.remove(key)
            else:
                self.filters.add(key)
        if limit:
            self.timeouts.append(timeout)
        return self.ready[:limit]

    def close(self):
        self.closed = True


NAMES = {"KQ_FILTER_READ": -1, "KQ_FILTER_WRITE": -2, "KQ_EV_ADD": 1, "KQ_EV_DELETE": 2, "KQ_EV_EOF": 0x8000}


@pytest.fixture
def kqueue(monkeypatch):
    """A KqueuePoller, and the fake one beneath it."""
    fake = FakeKqueue()
    monkeypatch.setattr(select, "kqueue", lambda: fake, raising=False)
    monkeypatch.setattr(select, "kevent", kevent, raising=False)
    for name, value in NAMES.items():
        monkeypatch.setattr(select, name, value, raising=False)
    return KqueuePoller(), fake


def kevent(ident, filter, flags=0, fflags=0):
    return SimpleNamespace(ident=ident, filter=filter, flags=flags, fflags=fflags)


def test_kqueue_is_offered_where_there_is_one(kqueue):
    assert KqueuePoller in available_pollers()


def test_kqueue_keeps_two_filters_for_a_descriptor(kqueue):
    poller, fake = kqueue
    poller.add(5, READ)
    assert fake.filters == {(5, -1)}
    poller.modify(5, READ | WRITE)
    assert fake.filters == {(5, -1), (5, -2)}
    poller.modify(5, WRITE)
    assert fake.filters == {(5, -2)}
    poller.modify(5, 0)
    assert fake.filters == set()
    poller.remove(5)
    poller.add(5, WRITE)
    poller.remove(5)
    assert fake.filters == set()
    for call in (lambda: poller.modify(5, READ), lambda: poller.remove(5)):
        with pytest.raises((OSError, KeyError)):
            call()
    poller.add(6, 0)
    with pytest.raises(FileExistsError):
        poller.add(6, READ)
    poller.close()
    assert fake.closed


@pytest.mark.parametrize(
    ("ready", "expected"),
    [
        ([kevent(5, -1)], READ),
        ([kevent(5, -2)], WRITE),
        ([kevent(5, -1), kevent(5, -2)], READ | WRITE),
        ([kevent(5, -1, 0x8000)], READ),
        ([kevent(5, -2, 0x8000)], WRITE | HUP),
        ([kevent(5, -1, 0x8000), kevent(5, -2, 0x8000)], READ | WRITE | HUP),
        ([kevent(5, -1, 0x8000, 54)], READ | ERR),
        ([kevent(5, -2, 0x8000, 54)], WRITE | HUP | ERR),
        ([kevent(5, -1, 0, 54)], READ),
    ],
)
def test_kqueue_events_become_ours_one_for_a_descriptor(kqueue, ready, expected):
    poller, fake = kqueue
    fake.ready = [*ready, kevent(9, -1)]
    assert sorted(poller.wait(1.5)) == [(5, expected), (9, READ)]
    assert fake.timeouts == [1.5]


def test_kqueue_waits_without_limit_and_not_at_all(kqueue):
    poller, fake = kqueue
    assert poller.wait(None) == poller.wait(0) == []
    assert fake.timeouts == [None, 0]


def test_a_descriptor_closed_behind_its_back_is_an_error_for_poll():
    read_end, write_end = os.pipe()
    poller = PollPoller()
    poller.add(read_end, READ)
    os.close(read_end)
    os.close(write_end)
    assert poller.wait(0) == [(read_end, ERR | HUP)]


def test_what_has_a_descriptor_is_readable_while_there_are_events(poller, pair):
    if not hasattr(poller, "fileno"):
        assert isinstance(poller, PollPoller | SelectPoller)
        return
    one, other = pair
    poller.add(one.fileno(), READ)
    assert select.select([poller.fileno()], [], [], 0)[0] == []
    other.send(b"x")
    assert select.select([poller.fileno()], [], [], 1)[0] == [poller.fileno()]
    one.recv(1)
    assert select.select([poller.fileno()], [], [], 0)[0] == []
