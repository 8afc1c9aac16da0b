"""Scopes: who is interrupted, when, and at the edge of whose block it ends; shields; Task.cancel; no_parking."""

# ruff: noqa: PT012  what is raised at the edge of a block has that block inside

from __future__ import annotations

import contextlib
import itertools
import math

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import dangagreen as d

thorough = settings(deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

SCOPES = {
    "timeout": lambda seconds: d.timeout(seconds),
    "timeout_at": lambda seconds: d.timeout_at(d.current_loop().clock() + seconds),
    "move_on_after": lambda seconds: d.move_on_after(seconds),
}
any_scope = pytest.mark.parametrize("scope_of", SCOPES.values(), ids=SCOPES)


@pytest.fixture(params=["task", "top-level code"])
def call(request, loop):
    """A function that calls another, in a task or right here, and hands back what it returns or raises."""

    def in_task(function):
        task = d.spawn(function)
        task.join()
        return task.result()

    return in_task if request.param == "task" else lambda function: function()


def start(function, *args):
    """Spawn it, and have it run to its first wait."""
    task = d.spawn(function, *args)
    d.sleep(0)
    return task


def outcome(task):
    """How it ended: its result, or the class of what it raised."""
    task.join()
    try:
        return task.result()
    except Exception as error:
        return type(error)


def edge(scope):
    """What comes out at the edge of a `timeout` block is no concern of this test."""
    stack = contextlib.ExitStack()
    stack.enter_context(contextlib.suppress(TimeoutError))
    stack.enter_context(scope)
    return stack


# -- one scope


@pytest.mark.parametrize("scope_of", [SCOPES["timeout"], SCOPES["timeout_at"]], ids=["timeout", "timeout_at"])
def test_a_timeout_raises_at_the_edge_of_its_block_when_it_expires(loop, call, scope_of):
    seen = []

    def work():
        with pytest.raises(TimeoutError) as raised, scope_of(2) as scope:
            try:
                d.sleep(10)
            except Exception:
                seen.append("no Exception inside")
            finally:
                seen.append(loop.clock())
        seen.append(scope.cancelled_caught)
        assert not isinstance(raised.value, d.Cancelled)
        d.sleep(1)
        return loop.clock()

    assert call(work) == 1003
    assert seen == [1002, True]


def test_inside_the_block_the_interruption_is_cancelled(loop, call):
    def work():
        with d.move_on_after(2), pytest.raises(d.Cancelled):
            d.sleep(10)
        return loop.clock()

    assert call(work) == 1002


def test_move_on_after_just_ends_its_block(loop, call):
    def work():
        steps = []
        with d.move_on_after(2) as scope:
            d.sleep(1)
            steps.append("one second")
            d.sleep(2)
            steps.append("never")
        return steps, loop.clock(), scope.cancelled_caught

    assert call(work) == (["one second"], 1002, True)


@any_scope
def test_a_block_that_ends_in_time_is_left_alone(loop, call, scope_of):
    def work():
        with scope_of(5) as scope:
            d.sleep(1)
        assert (scope.cancelled, scope.cancelled_caught) == (False, False)
        d.sleep(10)
        assert len(loop.timers) == 0
        assert scope.cancelled_caught is False
        return loop.clock()

    assert call(work) == 1011


def test_a_deadline_is_known_and_is_a_time_of_the_loops_clock(loop, call):
    def work():
        with d.timeout(5) as one, d.move_on_after(7) as two, d.timeout_at(1003) as three, d.timeout(None) as four:
            return one.deadline, two.deadline, three.deadline, four.deadline

    assert call(work) == (1005, 1007, 1003, None)


@pytest.mark.parametrize("scope_of", [d.timeout, d.timeout_at, d.move_on_after], ids=lambda scope_of: scope_of.__name__)
def test_none_is_no_limit(loop, call, scope_of):
    def work():
        with scope_of(None) as scope:
            d.sleep(1_000_000)
        return scope.deadline, scope.cancelled, scope.cancelled_caught

    assert call(work) == (None, False, False)


@any_scope
def test_the_block_may_end_late_if_no_wait_was_interrupted(loop, call, scope_of):
    def work():
        with scope_of(2) as scope:
            d.sleep(1)
            loop.clock.jump(5)
        assert scope.cancelled_caught is False
        d.sleep(1)
        return loop.clock()

    assert call(work) == 1007


@any_scope
@pytest.mark.parametrize("seconds", [0, -5])
def test_an_expired_scope_is_entered_quietly_and_raises_at_the_first_wait(loop, call, scope_of, seconds):
    def work():
        steps = []
        with edge(scope_of(seconds)):
            steps.append("inside")
            d.sleep(3)
            steps.append("never")
        return steps, loop.clock()

    assert call(work) == (["inside"], 1000)


@any_scope
def test_an_expired_scope_without_a_wait_raises_nothing(loop, call, scope_of):
    def work():
        with scope_of(0) as scope:
            pass
        return scope.cancelled_caught

    assert call(work) is False


def test_an_expired_scope_raises_also_at_a_wait_that_need_not_wait(loop, call, pair):
    sock, far = pair()
    sock.push_back_read(b"there\n")
    ended = d.spawn(int)
    ended.join()

    def work():
        for wait in (sock.read_line, ended.join, lambda: d.sleep(0), lambda: sock.write_all(b"x"), sock.drain):
            with pytest.raises(TimeoutError), d.timeout(0):
                wait()
        return sock.read_line()

    assert call(work) == b"there\n"
    assert sock.unsent == 0
    assert far.events(1) == 0


@any_scope
def test_other_exceptions_pass_through_unchanged(loop, call, scope_of):
    error = KeyError("mine")

    def fail():
        with scope_of(5) as scope:
            scopes.append(scope)
            d.sleep(1)
            raise error

    def fail_after_the_interruption():
        with scope_of(5) as scope:
            scopes.append(scope)
            try:
                d.sleep(10)
            except d.Cancelled:
                raise error from None

    scopes = []
    for work in (fail, fail_after_the_interruption):
        with pytest.raises(KeyError) as raised:
            call(work)
        assert raised.value is error
    assert [scope.cancelled_caught for scope in scopes] == [False, False]


def test_a_timeout_error_of_the_block_itself_is_not_mistaken_for_expiry(loop, call):
    error = TimeoutError("the kernel's own")

    def work():
        with d.move_on_after(5) as scope:
            raise error
        return scope

    with pytest.raises(TimeoutError) as raised:
        call(work)
    assert raised.value is error


@any_scope
def test_a_cancelled_that_nobody_sent_is_no_interruption_of_the_scope(loop, call, scope_of):
    mine = d.Cancelled("made by hand")

    def work():
        with pytest.raises(d.Cancelled) as raised, scope_of(5) as scope:
            raise mine
        return raised.value is mine, scope.cancelled_caught

    assert call(work) == (True, False)


def test_an_interrupt_of_the_program_passes_through_an_expired_scope(loop):
    def work():
        with d.move_on_after(1):
            try:
                d.sleep(5)
            except d.Cancelled:
                raise KeyboardInterrupt from None

    with pytest.raises(KeyboardInterrupt):
        work()
    d.sleep(1)
    assert loop.clock() == 1002


def test_the_next_block_begins_afresh(loop, call):
    def work():
        ends = []
        for _ in range(5):
            with d.move_on_after(1):
                d.sleep(10)
            ends.append(loop.clock())
        with d.timeout(3):
            d.sleep(2)
        return ends

    assert call(work) == [1001, 1002, 1003, 1004, 1005]


def test_scopes_of_two_tasks_know_nothing_of_each_other(loop):
    def work(seconds):
        with d.move_on_after(seconds) as scope:
            d.sleep(5)
        return scope.cancelled_caught, loop.clock()

    tasks = [d.spawn(work, seconds) for seconds in (1, 9, 3)]
    assert [outcome(task) for task in tasks] == [(True, 1001), (False, 1005), (True, 1003)]


def test_what_a_task_spawns_is_not_in_its_scope(loop):
    def work():
        with d.move_on_after(1):
            other = d.spawn(lambda: (d.sleep(5), loop.clock(), d.current_deadline())[1:])
            d.sleep(10)
        return other

    task = d.spawn(work)
    task.join()
    assert outcome(task.result()) == (1005, None)


def test_a_scope_of_top_level_code_is_not_that_of_the_tasks_that_run_underneath(loop):
    with d.move_on_after(1):
        task = d.spawn(lambda: (d.sleep(5), d.current_deadline())[1])
        d.sleep(10)
    assert loop.clock() == 1001
    assert outcome(task) is None
    assert loop.clock() == 1005


def test_scopes_work_in_main(loop):
    def main():
        with pytest.raises(TimeoutError), d.timeout(1):
            d.sleep(10)
        return loop.clock()

    assert d.run(main) == 1001


def test_a_scope_on_an_exit_stack(loop, call):
    def work():
        with contextlib.suppress(TimeoutError), contextlib.ExitStack() as stack:
            stack.enter_context(d.timeout(1))
            stack.enter_context(d.move_on_after(2))
            d.sleep(10)
        return loop.clock()

    assert call(work) == 1001


def test_join_may_time_out_within_a_scope_and_the_scope_within_a_join(loop, call):
    def work():
        other = d.spawn(d.sleep, 100)
        with d.timeout(5) as scope, pytest.raises(TimeoutError):
            other.join(1)
        assert scope.cancelled_caught is False
        with pytest.raises(TimeoutError), d.timeout(1) as scope:
            other.join(5)
        assert scope.cancelled_caught is True
        assert loop.clock() == 1002
        other.cancel()
        other.join()

    call(work)


# -- used wrongly


@any_scope
def test_a_scope_is_used_once(loop, call, scope_of):
    def work():
        scope = scope_of(5)
        with scope:
            with pytest.raises(RuntimeError), scope:
                pass
            d.sleep(1)
        with pytest.raises(RuntimeError), scope:
            pass
        d.sleep(10)
        return loop.clock()

    assert call(work) == 1011


def test_a_shield_is_used_once_too(loop, call):
    def work():
        scope = d.shield()
        with scope:
            pass
        with pytest.raises(RuntimeError), scope:
            pass

    call(work)


def test_a_scope_is_left_by_the_task_that_entered_it(loop):
    scope = d.move_on_after(5)

    def enter():
        with scope:
            d.sleep(3)
            return loop.clock()

    task = start(enter)
    with pytest.raises(RuntimeError):
        scope.__exit__(None, None, None)
    other = d.spawn(scope.__exit__, None, None, None)
    assert outcome(other) is RuntimeError
    assert outcome(task) in (1003, RuntimeError)  # its scope was taken from it
    assert loop.clock() == 1003


@pytest.mark.parametrize("enter", [*SCOPES.values(), lambda _: d.shield()], ids=[*SCOPES, "shield"])
def test_a_scope_cannot_be_entered_in_a_callback(loop, enter):
    seen = []

    def callback():
        try:
            with enter(1):
                seen.append("inside")
        except d.CannotParkError as error:
            seen.append(str(error))

    loop.call_soon(callback)
    d.sleep(1)
    assert len(seen) == 1
    assert seen != ["inside"]
    assert "callback" in seen[0]


# -- again and again


@any_scope
def test_code_that_swallows_the_interruption_is_interrupted_at_its_next_wait(loop, call, pair, scope_of):
    sock, far = pair()
    sock.push_back_read(b"there is input, and still\n")
    ended = d.spawn(int)
    ended.join()
    waits = [
        lambda: d.sleep(5),
        lambda: d.sleep(5),
        lambda: d.sleep(0),
        ended.join,
        lambda: sock.read_exactly(1),
        lambda: sock.read_exactly(0),
        sock.read_line,
        lambda: sock.read_until(b";"),
        sock.read_some,
        sock.read_to_end,
        lambda: next(iter(sock)),
        lambda: sock.write_all(b"x"),
        sock.drain,
        lambda: d.connect(("127.0.0.1", 1)),
    ]
    raised = []

    def work():
        with edge(scope_of(1)):
            for wait in waits:
                try:
                    wait()
                except d.Cancelled:
                    raised.append(loop.clock())
        return sock.read_line()

    assert call(work) == b"there is input, and still\n"
    assert raised == [1001] * len(waits)
    assert far.events(1) == 0


def test_a_finally_that_waits_is_interrupted_as_well(loop, call):
    def work():
        steps = []
        with d.move_on_after(1):
            try:
                d.sleep(10)
            finally:
                steps.append("before")
                d.sleep(10)
                steps.append("never")
        return steps, loop.clock()

    assert call(work) == (["before"], 1001)


def test_a_retry_loop_that_swallows_everything_still_ends_with_its_scope(loop, call):
    def work():
        attempts = 0
        with d.move_on_after(10):
            while attempts < 100:
                attempts += 1
                try:
                    d.sleep(3)
                except BaseException:
                    d.sleep(0)
        return attempts, loop.clock()

    assert call(work) == (4, 1010)


# -- nested


def test_an_inner_expiry_is_none_of_the_outer_ones_business(loop, call):
    def work():
        with d.timeout(5) as outer:
            with pytest.raises(TimeoutError), d.timeout(1):
                d.sleep(10)
            d.sleep(1)
        return outer.cancelled_caught, loop.clock()

    assert call(work) == (False, 1002)


@pytest.mark.parametrize("inner_of", SCOPES.values(), ids=SCOPES)
@any_scope
def test_an_outer_expiry_passes_the_inner_scope(loop, call, scope_of, inner_of):
    def work():
        steps = []
        with edge(scope_of(1)):
            with inner_of(5) as inner:
                d.sleep(10)
            steps.append("never")
        return steps, inner.cancelled_caught, loop.clock()

    assert call(work) == ([], False, 1001)


@pytest.mark.parametrize("kinds", list(itertools.product(["timeout", "move_on_after"], repeat=3)), ids="-".join)
@pytest.mark.parametrize("in_order", [True, False], ids=["outer timer first", "inner timer first"])
def test_of_equal_deadlines_the_outermost_converts(loop, call, kinds, in_order):
    scopes = [SCOPES[kind](5 if in_order else 5 + 5 * (3 - depth)) for depth, kind in enumerate(kinds)]

    def work():
        with contextlib.ExitStack() as stack:
            for scope in scopes:
                stack.enter_context(scope)
            for scope in reversed(scopes):
                scope.deadline = 1005
            d.sleep(10)

    try:
        call(work)
        raised = False
    except TimeoutError:
        raised = True
    assert raised == (kinds[0] == "timeout")
    assert [scope.cancelled_caught for scope in scopes] == [True, False, False]
    assert loop.clock() == 1005


def test_an_outer_scope_that_expires_while_the_inner_one_cleans_up_gets_the_interruption(loop, call):
    def work():
        steps = []
        with pytest.raises(TimeoutError), d.timeout(3) as outer:
            with d.move_on_after(1) as inner:
                try:
                    d.sleep(10)
                finally:
                    with d.shield():
                        d.sleep(5)
            steps.append("never")
        return steps, inner.cancelled_caught, outer.cancelled_caught, loop.clock()

    assert call(work) == ([], False, True, 1006)


def test_an_outer_scope_that_is_cancelled_while_an_inner_timeout_unwinds_ends_quietly(loop, call):
    def work():
        with d.timeout(100) as outer:
            with d.timeout(1) as inner:
                try:
                    d.sleep(10)
                finally:
                    outer.cancel("all of it")
            raise AssertionError("the outer scope was cancelled too")
        return inner.cancelled_caught, outer.cancelled_caught

    assert call(work) == (False, True)


def test_between_two_expired_scopes_code_runs_but_cannot_wait(loop, call):
    def work():
        steps = []
        with d.move_on_after(3):
            with d.move_on_after(1):
                try:
                    d.sleep(10)
                except d.Cancelled:
                    loop.clock.jump(5)
            steps.append("after the inner block")
            d.sleep(10)
            steps.append("never")
        return steps

    assert call(work) == ["after the inner block"]


class Expected:
    """What a stack of scopes does, by the rules of the contract: each level is entered, and at its end it naps."""

    def __init__(self, levels):
        self.levels = levels
        self.now = 1000.0
        self.deadlines = [1000.0 + seconds if kind != "shield" else math.inf for kind, seconds, _ in levels]
        self.trace = []

    def visible(self, depth):
        """The scopes that a wait at this depth sees, the outermost first."""
        shields = [number for number in range(depth + 1) if self.levels[number][0] == "shield"]
        return range(shields[-1] if shields else 0, depth + 1)

    def expired(self, depth):
        return any(self.deadlines[number] <= self.now for number in self.visible(depth))

    def nap(self, depth, seconds):
        """False if it is interrupted."""
        first = min(self.deadlines[number] for number in self.visible(depth))
        done = first > self.now + seconds
        self.now = self.now + seconds if done else max(self.now, first)
        return done

    def run(self, depth=0):
        """What comes out of the block at this depth: "", "cancelled" or "timeout"."""
        kind, _, nap = self.levels[depth]
        raised = self.run(depth + 1) if depth + 1 < len(self.levels) else ""
        if not raised and not self.nap(depth, nap):
            raised = "cancelled"
        outside = depth > 0 and kind != "shield" and self.expired(depth - 1)
        caught = raised == "cancelled" and self.deadlines[depth] <= self.now and not outside
        if caught:
            raised = "timeout" if kind == "timeout" else ""
        self.trace.append((depth, raised, caught, self.now))
        return raised


class Seen:
    """The same stack, run."""

    def __init__(self, loop, levels):
        self.loop = loop
        self.levels = levels
        self.trace = []

    def run(self, depth=0):
        kind, seconds, nap = self.levels[depth]
        scope = d.shield() if kind == "shield" else SCOPES[kind](seconds)
        raised = ""
        try:
            with scope:
                if depth + 1 < len(self.levels):
                    self.run(depth + 1)
                d.sleep(nap)
        except BaseException as error:
            raised = {d.Cancelled: "cancelled", TimeoutError: "timeout"}[type(error)]
            raise
        finally:
            caught = kind != "shield" and scope.cancelled_caught
            self.trace.append((depth, raised, caught, round(self.loop.clock(), 6)))


levels = st.lists(
    st.tuples(
        st.sampled_from(["timeout", "move_on_after", "move_on_after", "shield"]),
        st.integers(0, 4),
        st.integers(0, 2).map(lambda seconds: seconds + 0.37),
    ),
    min_size=1,
    max_size=5,
)


@thorough
@given(levels)
@example([("timeout", 2, 0.37), ("shield", 0, 2.37), ("move_on_after", 1, 0.37)])
@example([("move_on_after", 1, 2.37), ("move_on_after", 1, 2.37), ("timeout", 1, 2.37)])
def test_nested_scopes_end_where_and_when_the_rules_say(loop, levels):
    loop.clock.now = 1000.0
    seen, expected = Seen(loop, levels), Expected(levels)
    with contextlib.suppress(TimeoutError):
        seen.run()
    expected.run()
    assert seen.trace == [(*entry, round(now, 6)) for *entry, now in expected.trace]


# -- cancelled and rescheduled by hand


@any_scope
def test_a_scope_cancelled_by_hand_ends_its_block_quietly(loop, call, scope_of):
    def work():
        with scope_of(50) as scope:
            d.sleep(1)
            scope.cancel("enough")
            assert scope.cancelled is True
            with pytest.raises(d.Cancelled) as raised:
                d.sleep(10)
            assert raised.value.reason == "enough"
            d.sleep(10)
        assert scope.cancelled_caught is True
        d.sleep(1)
        return loop.clock()

    assert call(work) == 1002


@any_scope
def test_a_scope_cancelled_by_hand_whose_block_waits_no_more_has_caught_nothing(loop, call, scope_of):
    def work():
        with scope_of(50) as scope:
            scope.cancel()
        return scope.cancelled, scope.cancelled_caught

    assert call(work) == (True, False)


@any_scope
@pytest.mark.parametrize("by", ["another task", "call_soon", "a timer", "call_soon_threadsafe"])
def test_a_scope_can_be_cancelled_from_elsewhere(loop, scope_of, by):
    scopes = []

    def work():
        with scope_of(50) as scope:
            scopes.append(scope)
            d.sleep(40)
        return scope.cancelled_caught, loop.clock()

    task = d.spawn(work)
    d.sleep(1)
    (scope,) = scopes
    if by == "another task":
        d.spawn(scope.cancel)
    elif by == "call_soon":
        loop.call_soon(scope.cancel)
    elif by == "a timer":
        loop.add_timer(0, scope.cancel)
    else:
        loop.call_soon_threadsafe(scope.cancel)
    assert outcome(task) == (True, 1001)


@any_scope
@pytest.mark.parametrize("by", ["another task", "call_soon", "a timer", "call_soon_threadsafe"])
@pytest.mark.parametrize("assign", [True, False], ids=["deadline", "reschedule"])
def test_a_scope_can_be_rescheduled_from_elsewhere(loop, scope_of, by, assign):
    scopes = []

    def reschedule(deadline):
        if assign:
            scopes[0].deadline = deadline
        else:
            scopes[0].reschedule(deadline)

    def work():
        with contextlib.suppress(TimeoutError), scope_of(5) as scope:
            scopes.append(scope)
            d.sleep(40)
        return loop.clock()

    for deadline in (20, 3, 2.5):
        scopes.clear()
        task, begun = d.spawn(work), loop.clock()
        d.sleep(1)
        change = [lambda deadline=deadline, begun=begun: reschedule(begun + deadline)]
        if by == "another task":
            d.spawn(*change)
        elif by == "call_soon":
            loop.call_soon(*change)
        elif by == "a timer":
            loop.add_timer(0, *change)
        else:
            loop.call_soon_threadsafe(*change)
        assert outcome(task) == begun + deadline
        assert scopes[0].deadline == begun + deadline


def test_from_a_real_thread(real_loop, in_thread):
    scopes = []

    def work():
        with d.move_on_after(60) as scope:
            scopes.append(scope)
            d.sleep(50)
        return scope.cancelled_caught

    task = start(work)
    for name in ("cancel", "reschedule"):
        with pytest.raises(d.ForeignThreadError):
            in_thread(*{"cancel": (scopes[0].cancel,), "reschedule": (scopes[0].reschedule, 0.0)}[name])
    in_thread(real_loop.call_soon_threadsafe, scopes[0].cancel)
    task.join(10)
    assert outcome(task) is True


def test_the_deadline_may_be_moved_by_the_block_itself(loop, call):
    def work():
        with d.move_on_after(2) as scope:
            for _ in range(10):
                d.sleep(1)
                scope.deadline = loop.clock() + 2
            d.sleep(10)
        return loop.clock()

    assert call(work) == 1012


def test_the_deadline_may_be_taken_away_and_given(loop, call):
    def work():
        with d.move_on_after(2) as scope:
            scope.deadline = None
            assert scope.deadline is None
            d.sleep(10)
        assert scope.cancelled_caught is False
        with pytest.raises(TimeoutError), d.timeout(None) as scope:
            scope.deadline = loop.clock() + 1
            d.sleep(10)
        return loop.clock()

    assert call(work) == 1011


def test_a_deadline_that_is_moved_into_the_past_interrupts_at_once(loop, call):
    def work():
        with d.move_on_after(50) as scope:
            loop.add_timer(1, lambda: scope.reschedule(loop.clock() - 5))
            d.sleep(10)
        assert loop.clock() == 1001
        with d.move_on_after(50) as scope:
            scope.deadline = 0
            d.sleep(10)
        return loop.clock(), scope.cancelled_caught

    assert call(work) == (1001, True)


def test_an_expired_scope_is_not_revived(loop, call):
    def work():
        steps = []
        with pytest.raises(TimeoutError), d.timeout(1) as scope:
            try:
                d.sleep(10)
            except d.Cancelled:
                with contextlib.suppress(RuntimeError):
                    scope.deadline = loop.clock() + 100
            d.sleep(10)
            steps.append("never")
        return steps, loop.clock()

    assert call(work) == ([], 1001)


def test_a_cancelled_scope_is_not_revived(loop, call):
    def work():
        with d.move_on_after(1) as scope:
            scope.cancel()
            with contextlib.suppress(RuntimeError):
                scope.deadline = loop.clock() + 100
            d.sleep(10)
        return loop.clock()

    assert call(work) == 1000


def test_expired_first_and_then_cancelled_is_still_a_timeout(loop, call):
    def work():
        with pytest.raises(TimeoutError), d.timeout(1) as scope:
            try:
                d.sleep(10)
            finally:
                scope.cancel("late")

    call(work)


def test_expired_before_anybody_has_noticed_and_then_cancelled_is_a_timeout_as_well(loop, call):
    def work():
        with pytest.raises(TimeoutError), d.timeout(1) as scope:
            loop.clock.jump(2)
            scope.cancel("late")
            d.sleep(1)
        return loop.clock()

    assert call(work) == 1002


def test_cancelled_first_and_then_expired_is_still_quiet(loop, call):
    def work():
        with d.timeout(1) as scope:
            scope.cancel()
            try:
                d.sleep(10)
            except d.Cancelled:
                with d.shield():
                    d.sleep(5)
            d.sleep(10)
        return scope.cancelled_caught, loop.clock()

    assert call(work) == (True, 1005)


def test_cancelling_twice_and_after_the_block_is_harmless(loop, call):
    def work():
        with d.move_on_after(None) as scope:
            scope.cancel("first")
            scope.cancel("second")
            with pytest.raises(d.Cancelled) as raised:
                d.sleep(1)
        scope.cancel("third")
        d.sleep(1)
        return raised.value.reason, loop.clock()

    assert call(work) == ("first", 1001)


def test_a_scope_may_be_cancelled_before_it_is_entered(loop, call):
    def work():
        scope = d.move_on_after(5)
        scope.cancel()
        steps = []
        with scope:
            steps.append("inside")
            d.sleep(1)
            steps.append("never")
        return steps, scope.cancelled_caught, loop.clock()

    assert call(work) == (["inside"], True, 1000)


def test_cancelling_an_outer_scope_from_the_inner_block_leaves_both(loop, call):
    def work():
        with d.move_on_after(50) as outer:
            with d.timeout(50) as inner:
                outer.cancel()
                d.sleep(1)
            raise AssertionError("not here")
        return outer.cancelled_caught, inner.cancelled_caught

    assert call(work) == (True, False)


def test_cancelling_an_inner_scope_leaves_the_outer_one_alone(loop, call):
    def work():
        with d.timeout(50) as outer:
            with d.timeout(50) as inner:
                inner.cancel()
                d.sleep(1)
            d.sleep(1)
        return outer.cancelled_caught, inner.cancelled_caught

    assert call(work) == (False, True)


def test_whoever_cancels_his_own_outer_scope_while_parked_elsewhere_is_woken_once(loop):
    seen = []

    def work():
        with d.move_on_after(5) as outer, d.move_on_after(5) as inner:
            loop.add_timer(1, inner.cancel)
            loop.add_timer(1, outer.cancel)
            loop.add_timer(1, inner.cancel)
            d.sleep(10)
        seen.append(loop.clock())
        d.sleep(10)
        seen.append(loop.clock())

    d.spawn(work).join()
    assert seen == [1001, 1011]


@pytest.mark.parametrize("seconds", [0.5, 1, 1.5])
def test_a_wait_that_ends_at_the_very_deadline_is_woken_once(loop, seconds):
    """Which of the two comes first at 1 is left open, but not that one of them does."""

    def work():
        with d.move_on_after(1) as scope:
            d.sleep(seconds)
        ended = loop.clock()
        d.sleep(10)
        return scope.cancelled_caught, ended, loop.clock()

    caught, ended, after = outcome(d.spawn(work))
    assert ended == 1000 + min(seconds, 1)
    assert after == ended + 10
    if seconds != 1:
        assert caught == (seconds > 1)


# -- shield


def test_a_shield_holds_off_the_scopes_around_it_until_the_next_wait(loop, call):
    def work():
        steps = []
        with d.move_on_after(1) as scope:
            with d.shield():
                d.sleep(5)
                d.sleep(0)
                steps.append("in the shield")
            steps.append("after it")
            d.sleep(5)
            steps.append("never")
        return steps, scope.cancelled_caught, loop.clock()

    assert call(work) == (["in the shield", "after it"], True, 1005)


def test_a_shield_holds_off_task_cancel(loop):
    steps = []

    def work():
        with d.shield():
            d.sleep(5)
            steps.append(loop.clock())
        steps.append("after it")
        d.sleep(5)
        steps.append("never")

    task = d.spawn(work)
    d.sleep(1)
    assert task.cancel("now") is True
    assert outcome(task) is d.TaskCancelledError
    assert steps == [1005, "after it"]
    assert loop.clock() == 1005


def test_a_shield_protects_cleaning_up_after_the_interruption(loop, pair):
    sock, far = pair()

    def work():
        try:
            sock.read_line()
        finally:
            with d.shield():
                sock.write_all(b"bye\n")
                sock.drain()
                d.sleep(1)

    task = d.spawn(work)
    d.sleep(1)
    task.cancel()
    assert outcome(task) is d.TaskCancelledError
    assert loop.clock() == 1002
    assert far.recv(100) == b"bye\n"


def test_a_scope_within_a_shield_works_and_may_bound_the_cleaning_up(loop):
    def work():
        try:
            d.sleep(100)
        finally:
            with d.shield(), d.move_on_after(2) as scope:
                d.sleep(100)
            seen.append((scope.cancelled_caught, loop.clock()))

    seen = []
    task = d.spawn(work)
    d.sleep(1)
    task.cancel()
    assert outcome(task) is d.TaskCancelledError
    assert seen == [(True, 1003)]


def test_a_timeout_within_a_shield_raises_also_when_everything_around_is_cancelled(loop, call):
    def work():
        with d.move_on_after(1) as outer:
            with d.shield():
                with pytest.raises(TimeoutError), d.timeout(3):
                    d.sleep(10)
                d.sleep(1)
            d.sleep(10)
        return outer.cancelled_caught, loop.clock()

    assert call(work) == (True, 1004)


def test_a_shield_within_a_shield(loop, call):
    def work():
        with d.move_on_after(1):
            with d.shield():
                with d.shield():
                    d.sleep(2)
                d.sleep(2)
            d.sleep(2)
        return loop.clock()

    assert call(work) == 1004


def test_a_shield_that_is_entered_by_a_cancelled_task_lets_it_wait(loop):
    def work():
        d.current_task().cancel()
        with d.shield():
            d.sleep(3)
        try:
            d.sleep(3)
        except d.Cancelled:
            return loop.clock()

    assert outcome(d.spawn(work)) == 1003


def test_a_shield_lets_exceptions_out(loop, call):
    def work():
        with d.shield():
            raise KeyError("mine")

    with pytest.raises(KeyError):
        call(work)


def test_after_an_exception_left_a_shield_the_interruption_comes_at_the_next_wait(loop, call):
    def work():
        with d.move_on_after(1):
            with contextlib.suppress(KeyError), d.shield():
                d.sleep(2)
                raise KeyError("mine")
            d.sleep(5)
        return loop.clock()

    assert call(work) == 1002


# -- current_deadline


def test_current_deadline_is_the_earliest_that_a_wait_would_see(loop, call):
    def work():
        assert d.current_deadline() is None
        with d.timeout(None):
            assert d.current_deadline() is None
            with d.timeout(5) as outer:
                assert d.current_deadline() == 1005
                with d.move_on_after(9) as inner:
                    assert d.current_deadline() == 1005
                    inner.deadline = 1002
                    assert d.current_deadline() == 1002
                    outer.deadline = 1001
                    assert d.current_deadline() == 1001
                    with d.shield():
                        assert d.current_deadline() is None
                        with d.timeout(50):
                            assert d.current_deadline() == 1050
                    assert d.current_deadline() == 1001
                outer.deadline = None
                assert d.current_deadline() is None
        assert d.current_deadline() is None
        return "through"

    assert call(work) == "through"


def test_current_deadline_of_what_is_cancelled_already(loop, call):
    def work():
        with d.move_on_after(5) as outer:
            with d.timeout(3):
                outer.cancel()
                assert d.current_deadline() == -math.inf
                with d.shield():
                    assert d.current_deadline() is None
                    with d.move_on_after(None) as inner:
                        inner.cancel()
                        assert d.current_deadline() == -math.inf
            assert d.current_deadline() == -math.inf
        assert d.current_deadline() is None
        with d.move_on_after(1):
            try:
                d.sleep(5)
            except d.Cancelled:
                return d.current_deadline()

    assert call(work) == -math.inf


def test_current_deadline_of_a_cancelled_task(loop):
    def work():
        d.current_task().cancel()
        with d.timeout(5):
            inside = d.current_deadline()
            with d.shield():
                shielded = d.current_deadline()
        return inside, shielded, d.current_deadline()

    assert outcome(d.spawn(work)) == (-math.inf, None, -math.inf)


# -- Task.cancel


@any_scope
def test_task_cancel_is_caught_by_no_scope(loop, scope_of):
    scopes = []

    def work():
        with scope_of(10) as outer, scope_of(20) as inner:
            scopes.extend([outer, inner])
            d.sleep(100)

    task = d.spawn(work)
    d.sleep(1)
    task.cancel("my reason")
    task.join()
    with pytest.raises(d.TaskCancelledError, match="my reason"):
        task.result()
    assert [scope.cancelled_caught for scope in scopes] == [False, False]
    assert loop.clock() == 1001


@any_scope
@pytest.mark.parametrize("expires", [True, False])
def test_task_cancel_goes_before_every_scope_that_is_cancelled_as_well(loop, scope_of, expires):
    def work():
        with scope_of(1 if expires else 100) as scope:
            loop.add_timer(1, d.current_task().cancel)
            if not expires:
                loop.add_timer(1, scope.cancel)
            try:
                d.sleep(100)
            finally:
                with d.shield():
                    d.sleep(1)
        raise AssertionError("the task was cancelled too")

    assert outcome(d.spawn(work)) is d.TaskCancelledError
    assert loop.clock() == 1002


@any_scope
def test_a_scope_entered_after_task_cancel_catches_nothing(loop, scope_of):
    def work():
        d.current_task().cancel()
        with scope_of(0) as scope:
            scopes.append(scope)
            d.sleep(1)
        raise AssertionError("the task was cancelled")

    scopes = []
    assert outcome(d.spawn(work)) is d.TaskCancelledError
    assert scopes[0].cancelled_caught is False


def test_cancel_of_a_task_that_has_not_started(loop):
    ran = []
    task = d.spawn(ran.append, 1)
    assert task.cancel("first") is True
    assert task.cancel("second") is True
    assert outcome(task) is d.TaskCancelledError
    assert task.cancel() is False
    assert ran == []


def test_cancelling_twice_wakes_once_and_keeps_the_first_reason(loop):
    seen = []

    def work():
        for _ in range(3):
            try:
                d.sleep(10)
            except d.Cancelled as error:
                seen.append((error.reason, loop.clock()))
        with d.shield():
            d.sleep(10)
        seen.append(loop.clock())

    task = d.spawn(work)
    d.sleep(1)
    assert task.cancel("first") is True
    assert task.cancel("second") is True
    d.sleep(1)
    assert task.cancel("third") is True
    task.join()
    assert seen == [("first", 1001)] * 3 + [1011]


def test_cancel_of_a_finished_task_changes_nothing(loop):
    task = d.spawn(lambda: 5)
    task.join()
    assert task.cancel() is False
    assert task.result() == 5


def test_a_task_that_cancels_itself_goes_on_to_its_next_wait(loop):
    steps = []

    def work():
        with d.move_on_after(5):
            assert d.current_task().cancel("me") is True
            steps.append("goes on")
            d.sleep(0)
            steps.append("never")

    assert outcome(d.spawn(work)) is d.TaskCancelledError
    assert steps == ["goes on"]


def test_a_task_that_cancels_itself_and_waits_no_more_has_ended_normally(loop):
    def work():
        d.current_task().cancel()
        return "my result"

    assert outcome(d.spawn(work)) == "my result"


def test_cancelling_from_finally(loop):
    """A cancelled task cancels another, and itself again, while it unwinds."""
    steps = []

    def other():
        try:
            d.sleep(100)
        finally:
            steps.append(("other", loop.clock()))

    def work():
        try:
            d.sleep(100)
        finally:
            steps.append(second.cancel("by the first"))
            steps.append(d.current_task().cancel("again"))

    second = d.spawn(other)
    first = d.spawn(work)
    d.sleep(1)
    first.cancel("from outside")
    first.join()
    second.join()
    assert steps == [True, True, ("other", 1001)]
    with pytest.raises(d.TaskCancelledError, match="from outside"):
        first.result()
    with pytest.raises(d.TaskCancelledError, match="by the first"):
        second.result()


def test_a_cancelled_task_that_waits_in_finally_without_a_shield_is_interrupted_there(loop):
    steps = []

    def work():
        try:
            d.sleep(100)
        finally:
            try:
                d.sleep(100)
            finally:
                steps.append(loop.clock())

    task = d.spawn(work)
    d.sleep(1)
    task.cancel()
    assert outcome(task) is d.TaskCancelledError
    assert steps == [1001]


@pytest.mark.in_order
def test_cancel_between_the_wake_and_the_run_comes_at_the_next_wait(loop):
    """The first wake counts: the join has been answered already."""
    steps = []

    def work():
        try:
            other.join()
            steps.append("joined")
            d.sleep(1)
            steps.append("never")
        except d.Cancelled:
            steps.append("cancelled")
            raise

    def cancel():
        other.join()  # woken together with the task
        steps.append(task.waits_for)
        task.cancel()

    other = d.spawn(d.sleep, 1)
    canceller = d.spawn(cancel)
    task = d.spawn(work)
    assert outcome(task) is d.TaskCancelledError
    assert steps == [None, "joined", "cancelled"]
    canceller.join()


@pytest.mark.in_order
@any_scope
def test_a_scope_that_is_cancelled_between_the_wake_and_the_run_ends_at_its_next_wait(loop, scope_of):
    steps, scopes = [], []

    def work():
        with scope_of(100) as scope:
            scopes.append(scope)
            other.join()
            steps.append("joined")
            d.sleep(1)
            steps.append("never")
        return scope.cancelled_caught

    def cancel():
        other.join()
        steps.append(task.waits_for)
        scopes[0].cancel()

    other = d.spawn(d.sleep, 1)
    canceller = d.spawn(cancel)
    task = d.spawn(work)
    assert outcome(task) is True
    assert steps == [None, "joined"]
    canceller.join()


def test_a_scope_that_was_left_between_the_wake_and_the_run_interrupts_nobody(loop):
    scopes = []

    def work():
        with d.timeout(100) as scope:
            scopes.append(scope)
            other.join()
        d.sleep(5)
        return loop.clock()

    def cancel():
        other.join()
        scopes[0].cancel()

    other = d.spawn(d.sleep, 1)
    d.spawn(cancel)
    assert outcome(d.spawn(work)) == 1006


def test_the_reason_of_task_cancel_is_seen_inside(loop):
    def work():
        with d.move_on_after(5):
            try:
                d.sleep(100)
            except d.Cancelled as error:
                seen.append(error.reason)
                raise

    seen = []
    task = start(work)
    task.cancel(("any", "object"))
    task.join()
    assert seen == [("any", "object")]


# -- no_parking

PARKS = {
    "sleep": lambda sock, task: d.sleep(1),
    "sleep(0)": lambda sock, task: d.sleep(0),
    "join": lambda sock, task: task.join(),
    "join with a timeout": lambda sock, task: task.join(0),
    "read_exactly": lambda sock, task: sock.read_exactly(1),
    "read_exactly(0)": lambda sock, task: sock.read_exactly(0),
    "read_line": lambda sock, task: sock.read_line(),
    "read_until": lambda sock, task: sock.read_until(b"\n"),
    "read_some": lambda sock, task: sock.read_some(),
    "read_to_end": lambda sock, task: sock.read_to_end(),
    "iteration": lambda sock, task: next(iter(sock)),
    "write_all": lambda sock, task: sock.write_all(b"x"),
    "drain": lambda sock, task: sock.drain(),
    "connect": lambda sock, task: d.connect(("127.0.0.1", 1)),
}


@pytest.mark.parametrize("park", PARKS.values(), ids=PARKS)
def test_no_parking_makes_every_call_that_may_wait_raise(loop, call, pair, park):
    sock, far = pair()
    sock.push_back_read(b"there\n")
    ended = d.spawn(int)
    ended.join()
    turns = loop.poller.waits

    def work():
        before = loop.poller.waits
        with d.no_parking(), pytest.raises(d.CannotParkError):
            park(sock, ended)
        assert loop.poller.waits == before
        return sock.read_line()

    assert call(work) == b"there\n"
    assert sock.unsent == 0
    assert far.events(1) == 0
    assert loop.poller.waits >= turns


def test_no_parking_says_which_call_it_was(loop, call):
    def work():
        with d.no_parking(), pytest.raises(d.CannotParkError, match="sleep"):
            d.sleep(1)

    call(work)


def test_no_parking_leaves_alone_what_never_waits(loop, call, pair):
    sock, far = pair()

    def work():
        with d.no_parking():
            sock.write(b"x")
            task = d.spawn(int)
            loop.call_soon(int)
            assert sock.read(10) == b""
            task.cancel()
        d.sleep(1)
        return loop.clock()

    assert call(work) == 1001
    assert far.recv(10) == b"x"


def test_no_parking_ends_with_its_block_also_by_an_exception(loop, call):
    def work():
        with d.no_parking(), d.no_parking(), contextlib.suppress(KeyError):
            pass
        with contextlib.suppress(KeyError), d.no_parking():
            raise KeyError
        with contextlib.suppress(d.CannotParkError), d.no_parking():
            d.sleep(1)
        d.sleep(1)
        return loop.clock()

    assert call(work) == 1001


def test_no_parking_within_no_parking(loop, call):
    def work():
        with d.no_parking():
            with d.no_parking():
                pass
            with pytest.raises(d.CannotParkError):
                d.sleep(1)
        d.sleep(1)

    call(work)


def test_no_parking_in_a_shield_and_a_shield_in_no_parking(loop, call):
    def work():
        with d.shield(), d.no_parking(), pytest.raises(d.CannotParkError):
            d.sleep(1)
        d.sleep(1)
        return loop.clock()

    assert call(work) == 1001


def test_no_parking_of_one_task_is_nothing_to_the_others(loop):
    def work():
        with d.no_parking():
            other = d.spawn(lambda: (d.sleep(1), loop.clock())[1])
        other.join()
        return other.result()

    assert outcome(d.spawn(work)) == 1001


def test_after_no_parking_a_cancelled_task_is_still_cancelled(loop):
    def work():
        d.current_task().cancel()
        with d.no_parking():
            pass
        d.sleep(1)

    assert outcome(d.spawn(work)) is d.TaskCancelledError
