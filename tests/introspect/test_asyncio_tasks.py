"""Snapshots of a loop that lives with asyncio, which spans introspect and the bridge: the tasks of both sides, and who
waits for whom."""

from __future__ import annotations

import pytest

from tests.introspect.seeing import answers
from tests.programs import run_python

pytestmark = pytest.mark.slow_but_first  # each starts a program

ASYNCIO = """
import asyncio
from dangagreen import bridge
from dangagreen.bridge import await_, to_task
def of_ours(seen):
    return {task.name.partition("#")[0].rpartition(".")[2]: task for task in seen.tasks}
def theirs(seen):
    return {task.coroutine: task for task in seen.asyncio_tasks}
"""


def test_tasks_of_both_sides_and_who_waits_for_whom():
    answers(
        ASYNCIO
        + """
loop = virtual_loop()
def leaf():
    d.sleep(10)
async def inner():
    await to_task(leaf)
async def outer():
    await asyncio.create_task(inner(), name="the inner one")
async def rests():
    await asyncio.sleep(5)
async def bare():
    await asyncio.get_running_loop().create_future()
def branch():
    await_(outer())
def main():
    tasks = [d.spawn(branch), d.spawn(await_, rests()), d.spawn(await_, bare())]
    d.sleep(1)
    seen = introspect.snapshot()
    ours, asyncios = of_ours(seen), theirs(seen)
    assert seen.loop.asyncio_tasks == len(seen.asyncio_tasks) == 4, seen.asyncio_tasks
    assert asyncios["inner"].name == "the inner one"
    assert ours["branch"].waits_on == asyncios["outer"].name
    assert asyncios["outer"].waits_on == asyncios["inner"].name
    assert asyncios["inner"].waits_on == ours["leaf"].name
    assert asyncios["outer"].awaited_by == (ours["branch"].name,) and asyncios["inner"].awaited_by == ()
    assert ours["leaf"].spawned_at == line_of(inner, 1)
    assert ours["branch"].stack == (line_of(branch, 1) + " branch",)
    assert ours["branch"].waits_for == "await_ of outer at " + line_of(outer, 1)
    assert asyncios["outer"].stack == (line_of(outer, 1) + " outer",)
    assert asyncios["rests"].waits_for == "sleep" and asyncios["rests"].waits_on is None
    assert asyncios["rests"].stack == (line_of(rests, 1) + " rests",)
    assert asyncios["bare"].waits_for.startswith("<Future pending")
    assert {task.state for task in seen.asyncio_tasks} == {"waiting"}
    for task in tasks:
        task.cancel()
        task.join()
    assert introspect.snapshot().asyncio_tasks == ()
with loop:
    d.run(main)
"""
    )


def test_a_look_from_inside_a_coroutine():
    answers(
        ASYNCIO
        + """
loop = virtual_loop()
async def looks():
    await asyncio.sleep(1)
    helper = asyncio.create_task(asyncio.sleep(0))
    seen = introspect.snapshot()
    await helper
    return seen
def main():
    seen = await_(looks())
    me, other = theirs(seen)["looks"], theirs(seen)["sleep"]
    assert (me.state, me.waits_for, me.stack) == ("running", None, (line_of(looks, 3) + " looks",)), me
    assert (other.state, other.waits_for, other.waits_on) == ("ready", None, None), other
    assert of_ours(seen)["main"].state == "parked"
with loop:
    d.run(main)
"""
    )


@pytest.mark.parametrize("hosting", ["bridge.run in tasks", "guest"])
def test_in_each_hosting(hosting):
    answers(
        ASYNCIO
        + f"""
guest = {hosting == "guest"}
async def waits(event):
    await event.wait()
async def application(event):
    waiting = asyncio.create_task(waits(event))
    await to_task(d.sleep, 0.01)
    if looks:
        introspect_it()
    event.set()
    await waiting
def introspect_it():
    seen = introspect.snapshot()
    found = [task for task in seen.asyncio_tasks if task.coroutine == "waits"]
    assert [task.waits_for for task in found] == ["Event.wait"] * (1 if guest else 2), seen
    answers["seen"] = True
async def as_guest():
    async with bridge.guest():
        await application(asyncio.Event())
def hosted():
    bridge.run(application(asyncio.Event()))
looks = guest
if guest:
    asyncio.run(as_guest())
else:
    def main():
        tasks = [d.spawn(hosted) for _ in range(2)]
        d.sleep(0.005)
        introspect_it()
        for task in tasks:
            task.join()
    with virtual_loop():
        d.run(main)
assert answers["seen"]
"""
    )


def test_a_circle_across_the_border_is_named():
    said = answers(
        ASYNCIO
        + """
loop = virtual_loop()
async def waits():
    await task
def ours():
    try:
        await_(waits())
    except ValueError:
        pass
def main():
    global task
    task = d.spawn(ours)
    d.sleep(1)
    out = io.StringIO()
    introspect.dump(out)
    (waiting,) = asyncio.all_tasks(next(iter(loop.green.bridge.borders)))
    answers["lines"], answers["name"] = out.getvalue().splitlines(), waiting.get_name()
    answers["place"] = line_of(waits, 1)
    waiting._fut_waiter.set_exception(ValueError())
    task.join()
with loop:
    d.run(main)
"""
    )
    lines, name = said["lines"], said["name"]
    assert f"DEADLOCK: ours#2 waits for {name} waits for ours#2" in lines
    (at,) = [number for number, line in enumerate(lines) if line.startswith(f"asyncio task {name}: waiting in ")]
    assert lines[at].endswith("; which ours#2 can end, awaited by ours#2, coroutine waits")
    assert lines[at + 1] == f"    {said['place']} waits"


def test_many_are_cut_and_json_has_them():
    answers(
        ASYNCIO
        + """
loop = virtual_loop()
async def many():
    waiting = [asyncio.create_task(asyncio.sleep(9)) for _ in range(19)]
    await asyncio.sleep(1)
    out = io.StringIO()
    introspect.dump(out, most=5)
    lines = out.getvalue().splitlines()
    assert sum(line.startswith("asyncio task ") for line in lines) == 5
    assert "... and 15 more tasks of asyncio" in lines
    seen = json.loads(introspect.to_json())
    assert len(seen["asyncio_tasks"]) == seen["loop"]["asyncio_tasks"] == 20
    assert {task["state"] for task in seen["asyncio_tasks"]} == {"waiting", "running"}
with loop:
    bridge.run(many())
"""
    )


def test_a_task_whose_description_raises_spoils_no_snapshot():
    answers(
        ASYNCIO
        + """
loop = virtual_loop()
class Rude(asyncio.Future):
    def __repr__(self):
        raise RuntimeError("no")
async def waits():
    await Rude()
def main():
    task = d.spawn(await_, waits())
    d.sleep(1)
    (seen,) = introspect.snapshot().asyncio_tasks
    assert seen.waits_for == "(RuntimeError in its description)", seen
    task.cancel()
    task.join()
with loop:
    d.run(main)
"""
    )


def test_neither_asyncio_nor_the_bridge_is_imported():
    program = (
        "import sys, dangagreen.introspect as i; i.snapshot(); print({'asyncio', 'dangagreen.bridge'} & {*sys.modules})"
    )
    assert run_python("-c", program) == (0, "set()\n", "")
