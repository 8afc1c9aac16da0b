"""busy: what is held is released once, by whoever comes first. What a drain makes of it is in net/test_draining."""

from __future__ import annotations

import pytest

import dangagreen as d


@pytest.fixture
def sock(loop, pair):
    """A connection in callback style that waits for its next request."""
    sock, _ = pair()
    sock.watch_read(True)
    return sock


def test_it_is_held_until_its_block_ends_however_it_ends(sock):
    def works(held):
        assert repr(held) == f"<busy with {sock!r}>"
        assert not sock.idle
        raise KeyError

    with pytest.raises(KeyError), sock.busy() as held:
        works(held)
    assert repr(held) == "<busy, released>"
    assert sock.idle


def test_several_hold_it_and_each_releases_once(sock):
    one, other = sock.busy(), sock.busy()
    one.release()
    one.release()
    assert not sock.idle
    with other:
        other.release()
    assert sock.idle


def test_one_that_nobody_has_any_more_is_released_and_complained_of(sock):
    held = sock.busy()
    with pytest.warns(ResourceWarning, match=r"busy\(\) of .*Socket.* was dropped and not released"):
        del held
    assert sock.idle


def test_it_belongs_to_the_thread_of_the_loop(sock, in_thread):
    with pytest.raises(d.ForeignThreadError, match="busy"):
        in_thread(sock.busy)
    with sock.busy() as held:
        with pytest.raises(d.ForeignThreadError, match=r"Busy\.release"):
            in_thread(held.release)
        assert not sock.idle
    assert sock.idle


def test_of_a_socket_that_has_closed_it_is_harmless(sock):
    with sock.busy():
        sock.close()
    assert sock.closed


def test_one_that_another_thread_drops_is_released_in_the_thread_of_the_loop(loop, sock, in_thread):
    held = [sock.busy()]
    with pytest.warns(ResourceWarning, match="was dropped and not released"):
        in_thread(held.clear)
    assert not sock.idle
    loop.run(lambda: sock.idle)
