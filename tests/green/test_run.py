"""run: what it returns and raises, Ctrl-C in it, a loop that is stopped, and what is wound up when main has ended."""

from __future__ import annotations

import signal

import pytest

import dangagreen as d
from tests.helpers import of_ours
from tests.programs import ended, start_python


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


def test_tasks_that_keep_the_program_from_ending_are_named(loop, caplog):
    def stubborn():
        with d.shield():
            d.sleep(60)

    d.run(lambda: (d.spawn(stubborn), d.sleep(1)))
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("run() ended, and waits for tasks that it has cancelled:\n")
    assert "stubborn  parked  sleep until 1060" in line


def test_nothing_is_said_of_a_clean_up_that_does_not_take_long(loop, caplog):
    def quick():
        with d.shield():
            d.sleep(5)

    d.run(lambda: (d.spawn(quick), d.sleep(1)))
    assert (loop.clock(), caplog.records, len(loop.timers)) == (1005, [], 0)


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


# -- a loop that is stopped


@pytest.mark.parametrize("how", ["stop", "post-loop callback"])
@pytest.mark.parametrize("ending", ["lets go", "returns", "raises"])
def test_a_loop_that_is_stopped_cancels_any_other_main(loop, how, ending):
    steps = []

    def other():
        try:
            d.sleep(1000)
        finally:
            steps.append("the other one")

    def stops():
        loop.stop() if how == "stop" else d.Socket.set_post_loop_callback(lambda *_: False)

    def main():
        d.spawn(other)
        loop.add_timer(1, stops)
        try:
            d.sleep(1000)
        except d.Cancelled as error:
            steps.append(error.reason)
            d.Socket.set_post_loop_callback(None)
            if ending == "lets go":
                raise
            if ending == "raises":
                raise KeyError("mine") from error
        return "main's own"

    start = loop.clock()
    if ending == "raises":
        with pytest.raises(KeyError):
            d.run(main)
    else:
        assert d.run(main) == (None if ending == "lets go" else "main's own")
    assert loop.clock() == start + 1
    assert steps == ["the loop was stopped", "the other one"]


def test_a_main_that_is_cancelled_by_somebody_else_raises_as_before(loop):
    def main():
        d.current_task().cancel("enough")
        d.sleep(1)

    with pytest.raises(d.TaskCancelledError):
        d.run(main)


def test_a_main_that_stops_the_loop_itself_is_cancelled_at_its_next_wait(loop):
    def main():
        loop.stop()
        d.sleep(1000)

    assert d.run(main) is None
    assert d.run(lambda: d.sleep(1) or "again") == "again"


# -- Ctrl-C


ctrl_c_in_the_loop = of_ours(  # as if it came while the loop itself is at it, or waits
    "lambda: raise_signal(2)", raise_signal=signal.raise_signal
)


def test_ctrl_c_arrives_in_main_at_its_wait(real_loop):
    steps = []

    def main():
        real_loop.add_timer(0.01, ctrl_c_in_the_loop)
        try:
            d.sleep(10)
        except KeyboardInterrupt:
            steps.append("interrupted")
            d.sleep(0.001)
            return "cleaned up"

    before = signal.getsignal(signal.SIGINT)
    assert d.run(main) == "cleaned up"
    assert steps == ["interrupted"]
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_arrives_in_main_and_in_no_other_task(real_loop):
    seen = []

    def other():
        try:
            d.sleep(10)
        except BaseException as error:
            seen.append(type(error))
            raise

    def main():
        d.spawn(other)
        real_loop.add_timer(0.01, ctrl_c_in_the_loop)
        d.sleep(10)

    with pytest.raises(KeyboardInterrupt):
        d.run(main)
    assert seen == [d.Cancelled]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("where", ["main", "task", "callback", "timer"])
def test_ctrl_c_strikes_at_once_where_the_programs_own_code_computes(real_loop, where):
    steps = []

    def computes():
        try:
            signal.raise_signal(signal.SIGINT)
            steps.append("went on")
        finally:
            steps.append("finally of the code")

    def main():
        try:
            if where == "main":
                computes()
            elif where == "task":
                d.spawn(computes)
            elif where == "callback":
                real_loop.call_soon(computes)
            else:
                real_loop.add_timer(0, computes)
            d.sleep(10)
        finally:
            steps.append("finally of main")

    with pytest.raises(KeyboardInterrupt):
        d.run(main)
    assert steps == ["finally of the code", "finally of main"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_ctrl_c_strikes_in_the_clean_up(real_loop):
    steps = []

    def main():
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            steps.append("one")
            signal.raise_signal(signal.SIGINT)
            steps.append("two")

    with pytest.raises(KeyboardInterrupt):
        d.run(main)
    assert steps == ["one"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_main_may_ignore_ctrl_c_and_gets_the_next_one_too(real_loop):
    caught = []

    def main():
        for _ in range(3):
            real_loop.add_timer(0.005, ctrl_c_in_the_loop)
            try:
                d.sleep(10)
            except KeyboardInterrupt as error:
                caught.append(error)

    d.run(main)
    assert len(set(map(id, caught))) == 3


def test_ctrl_c_while_main_reads_loses_no_bytes(real_loop, unix_pair):
    near, far = unix_pair()

    def main():
        sock = d.Socket(near)
        far.send(b"half ")
        real_loop.add_timer(0.005, ctrl_c_in_the_loop)
        with pytest.raises(KeyboardInterrupt):
            sock.read_line()
        far.send(b"a line\n")
        return sock.read_line()

    assert d.run(main) == b"half a line\n"


def test_run_leaves_a_handler_of_the_programs_own_alone(real_loop):
    seen = []
    before = signal.signal(signal.SIGINT, lambda *args: seen.append("mine"))
    try:
        d.run(lambda: (signal.raise_signal(signal.SIGINT), d.sleep(0.001)))
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == ["mine"]


def test_run_in_another_thread_installs_no_handler(in_thread):
    def program():
        try:
            return d.run(lambda: (d.sleep(0.001), signal.getsignal(signal.SIGINT))[1])
        finally:
            d.current_loop().close()

    assert in_thread(program) is signal.default_int_handler


def test_a_ctrl_c_that_comes_after_mains_last_wait_is_not_lost():
    def main():
        d.sleep(0)
        signal.raise_signal(signal.SIGINT)
        return "done"

    with pytest.raises(KeyboardInterrupt):
        d.run(main)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


STUBBORN = """
import contextlib
import dangagreen as d

told = []

def tell(error):
    if not told and isinstance(error, d.Cancelled):
        told.append(error)
        d.current_loop().add_timer(0.05, lambda: print("refused", flush=True))  # when it waits, or spins, again

def late():
    while True:
        try:
            d.sleep(1000)
        except BaseException as error:
            tell(error)
            with contextlib.suppress(BaseException), d.shield():
                d.sleep(1000)

def spinning():
    while True:
        try:
            while True:
                try:
                    d.sleep(1000)
                except BaseException as error:
                    tell(error)
        except BaseException:  # raised in the except block
            pass

def main():
    d.spawn(TASK)
    d.sleep(0.01)
    if FIRST:
        print("ready", flush=True)
        d.sleep(1000)

if RUN:
    d.run(main)
else:
    main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("task", ["late", "spinning"])
@pytest.mark.parametrize("run", [True, False], ids=["run", "script"])
@pytest.mark.parametrize("first", [True, False], ids=["main", "end"])
def test_a_second_ctrl_c_ends_a_program_whose_task_swallows_everything(task, run, first):
    process = start_python("-c", STUBBORN.replace("TASK", task).replace("RUN", str(run)).replace("FIRST", str(first)))
    for line in ["ready", "refused"] if first else ["refused"]:
        assert process.stdout.readline() == line + "\n"
        process.send_signal(signal.SIGINT)
    _, complaints, code = ended(process)
    assert "KeyboardInterrupt" in complaints
    assert code == (-signal.SIGINT if run or first else 0)  # of what an atexit function raises nothing is made
