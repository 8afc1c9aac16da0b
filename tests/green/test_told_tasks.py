"""The table that tells of tasks, and resumptions that are exchanged where they wait."""

import dangagreen as d
from dangagreen.green.told_tasks import ToldTasks, exchange
from dangagreen.loop.loop import Loop


class Tasks(d.Instrument):
    def __init__(self):
        self.told = []

    def task_spawned(self, task):
        self.told.append(f"{task.name} came")

    def task_ended(self, task):
        self.told.append(f"{task.name} went")


def test_the_table_is_exchanged_with_what_is_in_it(loop, run_turns):
    def work():
        d.sleep(1)

    before = d.spawn(work)
    usual = type(loop.green.tasks)  # of `dangagreen.introspect`, if that was imported
    instrument = Tasks()
    loop.add_instrument(instrument)
    assert isinstance(loop.green.tasks, ToldTasks)
    assert list(loop.green.tasks) == [before]
    assert instrument.told == []
    loop.run(lambda: before.done)
    assert instrument.told == [f"{before.name} went"]
    loop.remove_instrument(instrument)
    assert type(loop.green.tasks) is usual


def test_a_scheduler_that_is_made_later_tells_too():
    with Loop() as loop:
        instrument = Tasks()
        loop.add_instrument(instrument)
        assert loop.green is None
        task = d.spawn(int)
        task.name = "one"
        loop.run(lambda: task.done)
    assert instrument.told == ["int came", "one went"]


def test_a_task_of_a_group_and_a_cancelled_one_are_told_once_each(loop):
    def main():
        with d.TaskGroup() as group:
            group.spawn(d.sleep, 100)
            d.sleep(1)
            group.cancel()

    instrument = Tasks()
    loop.add_instrument(instrument)
    task = d.spawn(main)
    loop.run(lambda: task.done)
    assert sorted(instrument.told) == sorted([f"{task.name} came", f"{task.name} went", "sleep came", "sleep went"])


def test_exchange_puts_others_in_the_place_of_queued_calls_and_of_timers(loop):
    class Greeter:
        def __init__(self, log):
            self.log = log

        def old(self):
            self.log.append("old")

        def new(self):
            self.log.append("new")

    log = []
    greeter = Greeter(log)
    loop.ready.append(greeter.old)
    loop.runnable.append(greeter.old)
    loop.timers.add(0.0, greeter.old)
    loop.call_soon(log.append, "call")  # stays
    exchange(loop, {greeter.old: greeter.new})
    loop.run(lambda: len(log) == 4)
    assert sorted(log) == ["call", "new", "new", "new"]
