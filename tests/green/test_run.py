"""run: what it returns and raises, and what it winds up when main has ended."""

from __future__ import annotations

import pytest

import dangagreen as d


def test_run_returns_the_result_of_main(loop):
    assert d.run(lambda *args: (d.sleep(1), args)[1], 1, 2) == (1, 2)


def test_run_raises_what_main_raises(loop, take_errors):
    def main():
        d.sleep(1)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        d.run(main)
    assert take_errors() == []


def test_run_can_be_called_again(loop):
    assert [d.run(lambda: (d.sleep(1), loop.clock())[1]) for _ in range(2)] == [1001, 1002]


def test_run_within_run_raises(loop):
    def main():
        d.run(int)

    with pytest.raises(RuntimeError, match="spawn"):
        d.run(main)


def test_when_main_ends_the_other_tasks_are_cancelled_and_waited_for(loop):
    steps = []

    def other():
        try:
            d.sleep(1000)
        except d.Cancelled as error:
            steps.append(f"cancelled: {error.reason}")
            raise
        finally:
            steps.append("cleaned up")

    def main():
        d.spawn(other)
        d.sleep(1)
        steps.append("main ends")

    d.run(main)
    assert steps == ["main ends", "cancelled: run() ended", "cleaned up"]
    assert loop.clock() == 1001


def test_when_main_ends_listeners_are_closed_first_and_sockets_last(loop, pair):
    sock, _ = pair()
    seen = []

    def other(listener):
        try:
            sock.read_line()
        finally:
            seen.append((listener.closed, sock.closed))

    def main():
        listener = d.serve(("127.0.0.1", 0), lambda sock: None)
        d.spawn(other, listener)
        d.sleep(1)
        return listener

    listener = d.run(main)
    assert seen == [(True, False)]
    assert listener.closed
    assert sock.closed


def test_when_main_fails_the_rest_is_wound_up_too(loop):
    ended = []

    def other():
        try:
            d.sleep(1000)
        finally:
            ended.append(True)

    def main():
        d.spawn(other)
        d.sleep(1)
        raise ValueError

    with pytest.raises(ValueError):
        d.run(main)
    assert ended == [True]


def test_a_task_spawned_while_winding_up_is_ended_too(loop):
    def late():
        d.sleep(1000)

    def other():
        try:
            d.sleep(1000)
        finally:
            d.spawn(late)

    def main():
        d.spawn(other)
        d.sleep(1)

    d.run(main)
    assert loop.clock() == 1001


def test_system_exit_of_main_leaves_run(loop):
    def main():
        d.sleep(1)
        raise SystemExit(3)

    with pytest.raises(SystemExit) as caught:
        d.run(main)
    assert caught.value.code == 3


def test_system_exit_of_another_task_leaves_run_and_winds_up(loop):
    ended = []

    def leave():
        d.sleep(1)
        raise SystemExit(4)

    def main():
        d.spawn(leave)
        try:
            d.sleep(100)
        finally:
            ended.append(loop.clock())

    with pytest.raises(SystemExit) as caught:
        d.run(main)
    assert caught.value.code == 4
    assert ended == [1001]


def test_a_task_that_exits_in_its_clean_up_does_not_keep_the_others_from_theirs(loop, pair):
    steps = []
    sock, _ = pair()

    def cleans_up(words, error):
        try:
            d.sleep(100)
        finally:
            steps.append(words)
            if error is not None:
                raise error

    def main():
        for number in range(4):
            d.spawn(cleans_up, number, SystemExit(number) if number % 2 else None)
        d.sleep(1)

    with pytest.raises(SystemExit) as caught:
        d.run(main)
    assert caught.value.code in (1, 3)
    assert sorted(steps) == [0, 1, 2, 3]
    assert sock.closed
    assert d.task_table() == ""


@pytest.mark.parametrize("call", ["join", "wait"])
def test_to_wait_for_a_task_that_exits_does_not_keep_it_from_leaving_the_loop(loop, call):
    def leaves():
        d.sleep(1)
        raise SystemExit(3)

    def main():
        task = d.spawn(leaves)
        task.join() if call == "join" else d.wait([task])
        d.sleep(100)

    with pytest.raises(SystemExit) as caught:
        d.run(main)
    assert caught.value.code == 3
    assert loop.clock() == 1001


@pytest.mark.parametrize("seconds", [0, 1])
def test_a_callback_that_exits_at_each_turn_does_not_keep_run_from_ending(loop, pair, seconds):
    class Leaves(d.Socket):
        __slots__ = ()

        def event_read(self):
            raise SystemExit(3)

    steps = []
    sock, far = pair(Leaves)
    sock.watch_read(True)

    def other():
        try:
            d.sleep(100)
        finally:
            steps.append("cleaned up")

    def main():
        d.spawn(other)
        d.sleep(0)
        far.send(b"x")
        d.sleep(seconds)

    with pytest.raises(SystemExit):
        d.run(main)
    assert steps == ["cleaned up"]
    assert sock.closed
