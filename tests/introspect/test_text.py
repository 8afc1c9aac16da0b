"""What `dump` prints and `to_json` returns."""

from __future__ import annotations

import pytest

from tests.introspect.seeing import answers

pytestmark = pytest.mark.slow_but_first  # each starts a program


def test_a_line_for_each_thing_and_the_stack_beneath_a_task():
    said = answers("""
loop = virtual_loop()
def waits(lock):
    with d.timeout(60), lock:
        pass
def main():
    lock = d.Lock()
    lock.acquire()
    task = d.spawn(waits, lock)
    ours, theirs = wire()
    sock, other = d.Socket(ours), d.Socket(theirs)
    sock.write(b"abc")
    d.sleep(2)
    out = io.StringIO()
    introspect.dump(out)
    answers["lines"] = out.getvalue().splitlines()
    answers["place"] = line_of(waits, 1)
    answers["spawned"] = line_of(main, 3)
    lock.release()
    task.join()
    sock.close(); other.close()
with loop:
    d.run(main)
""")
    lines = said["lines"]
    assert lines[0].startswith("loop of thread 'MainThread': running, ")
    assert any(line.startswith("task main#1: running; ") for line in lines)
    (at,) = [number for number, line in enumerate(lines) if line.startswith("task waits#2: parked in acquire of ")]
    for words in ("waiting 2.0 s", "deadline in 58.0 s", f"spawned at {said['spawned']}, by main#1"):
        assert words in lines[at]
    assert lines[at + 1] == f"    {said['place']} waits"
    assert sum(line.startswith("fd ") for line in lines) == 2


def test_what_is_long_is_cut_and_says_so():
    said = answers("""
loop = virtual_loop()
def main():
    tasks = [d.spawn(d.sleep, 100) for _ in range(20)]
    d.sleep(1)
    out = io.StringIO()
    introspect.dump(out, most=5)
    answers["text"] = out.getvalue()
    for task in tasks:
        task.cancel()
with loop:
    d.run(main)
""")
    lines = said["text"].splitlines()
    assert sum(line.startswith("task ") for line in lines) == 5
    assert sum(line.startswith("timer ") for line in lines) == 5
    assert "... and 16 more tasks" in lines
    assert "... and 15 more timers" in lines


def test_the_tree_of_groups_stands_as_one():
    said = answers("""
loop = virtual_loop()
def leaf(): d.sleep(5)
def inner():
    with d.TaskGroup(limit=1) as group:
        group.spawn(leaf)
        group.spawn(leaf)
def main():
    with d.TaskGroup() as group:
        group.spawn(inner)
        group.spawn(leaf)
        d.sleep(1)
        out = io.StringIO()
        introspect.dump(out)
        answers["lines"] = out.getvalue().splitlines()
        out = io.StringIO()
        introspect.dump(out, most=2)
        answers["cut"] = out.getvalue().splitlines()
with loop:
    d.run(main)
""")
    lines = said["lines"]
    at = lines.index("group main#1/1 of main#1: 2 tasks")
    assert lines[at + 1 : at + 6] == [
        "  inner#2",
        "    group inner#2/2 of inner#2: 2 tasks, 1 of them not started",
        "      leaf#4",
        "      leaf#5",
        "  leaf#3",
    ]
    assert sum(line.strip().startswith(("leaf#", "inner#", "group ")) for line in said["cut"]) == 2


def test_json_has_the_fields_of_a_snapshot():
    answers("""
loop = virtual_loop()
def main():
    d.spawn(d.sleep, 1)
    d.sleep(0)
    seen = json.loads(introspect.to_json())
    lists = {"sockets", "tasks", "asyncio_tasks", "groups", "timers", "listeners", "threads", "ended"}
    assert set(seen) == {"loop", *lists}
    assert [task["state"] for task in seen["tasks"]] == ["running", "parked"]
    assert len(json.loads(introspect.to_json(most=1))["tasks"]) == 1
with loop:
    d.run(main)
""")


def test_a_repr_that_raises_costs_its_line_only():
    said = answers("""
loop = virtual_loop()
class Bad(d.Lock):
    def __repr__(self):
        raise ValueError("no")
def main():
    lock = Bad()
    lock.acquire()
    task = d.spawn(lock.acquire)
    d.sleep(1)
    out = io.StringIO()
    introspect.dump(out)
    answers["text"] = out.getvalue()
    task.cancel()
with loop:
    d.run(main)
""")
    assert "(ValueError in its description)" in said["text"]


def test_descriptors_stand_in_their_order():
    answers("""
pairs = [os.pipe() for _ in range(4)]
loop = d.current_loop()
for reader, _ in reversed(pairs):
    d.Socket.add_other_fds({reader: len})
seen = [sock.fd for sock in introspect.snapshot().sockets]
assert seen == sorted(reader for reader, _ in pairs) and len(seen) == 4, seen
out = io.StringIO()
introspect.dump(out)
printed = [int(line.split()[1]) for line in out.getvalue().splitlines() if line.startswith("fd ")]
assert printed == seen, printed
loop.close()
""")


def test_of_many_tasks_and_timers_it_is_told_where_most_of_them_are_from():
    said = answers("""
loop = virtual_loop()
def leak():
    loop.add_timer(300, lambda: None)
    d.spawn(d.sleep, 100)
def main():
    for _ in range(20):
        leak()
    for _ in range(2):
        d.spawn(d.sleep, 100)
    d.sleep(1)
    answers["lines"] = introspect.text.as_text(introspect.snapshot(most=5)).splitlines()
    answers["place"], answers["other"] = line_of(leak, 2), line_of(main, 4)
    answers["timer"] = line_of(leak, 1)
with loop:
    d.run(main)
""")
    lines, place = said["lines"], said["place"]
    at = lines.index("... and 18 more tasks")
    assert lines[at + 1 : at + 3] == [f"    of all: 20 spawned at {place}", f"    of all: 2 spawned at {said['other']}"]
    at = lines.index("... and 37 more timers")
    assert lines[at + 1 :][:2] == [
        "    of all: 22 for waits of tasks",
        f"    of all: 20 of leak.<locals>.<lambda> ({said['timer']})",
    ]
