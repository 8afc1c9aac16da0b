"""asyncio's graph of who awaits whom, in the process and from outside, by the tools of Python 3.14."""

from __future__ import annotations

import asyncio
import re
import sys

import pytest

import dangagreen as d
from dangagreen.bridge import await_, call_graph, to_task
from tests.programs import TRACEABLE, run_python, start_python

pytestmark = pytest.mark.skipif(sys.version_info < (3, 14), reason="kept since Python 3.14")


def chain():
    """The names of this file's functions, from the coroutine that is running outwards; no two await one of them."""
    names, graph = [], asyncio.capture_call_graph(depth=2)
    while True:
        codes = [entry.frame.f_code for entry in graph.call_stack]
        names += [code.co_name for code in codes if code.co_filename == __file__]
        if not graph.awaited_by:
            return names
        (graph,) = graph.awaited_by


@pytest.fixture(autouse=True)
def nothing_is_left():
    yield
    assert not call_graph.entered


def test_it_goes_on_through_each_task_in_each_hosting(theirs):
    async def innermost():
        await asyncio.sleep(0)
        return chain()

    async def inner():
        return await to_task(lambda: await_(innermost()))

    async def outer():
        return await to_task(lambda: await_(inner()))

    async def outermost():
        return await to_task(lambda: await_(outer()))

    assert theirs(outermost())[:4] == ["innermost", "inner", "outer", "outermost"]


async def asks(seconds=1):
    await asyncio.sleep(seconds)
    return chain()


def test_through_a_task_that_is_joined_and_through_a_group(vloop):
    def joins():
        task = d.spawn(await_, asks())
        task.join()
        return task.result()

    def groups():
        with d.TaskGroup() as group:
            task = group.spawn(joins)
        return task.result()

    async def outer():
        return await to_task(groups)

    assert d.run(lambda: await_(outer())) == ["asks", "outer"]


WAYS = {
    "await": lambda future: future,
    "gather": asyncio.gather,
    "shield": asyncio.shield,
    "wait": lambda future: asyncio.wait([future]),
    "wait_for": lambda future: asyncio.wait_for(future, 9),
    "as_completed": lambda future: next(iter(asyncio.as_completed([future]))),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("first", ["awaited", "parked"])
def test_whichever_begins_to_wait_first(vloop, way, first):
    async def outer():
        future = to_task(await_, asks(2))
        if first == "parked":
            await asyncio.sleep(1)
        await WAYS[way](future)
        return await future

    assert d.run(lambda: await_(outer())) == ["asks", "outer"]


def test_a_task_that_was_spawned_and_waits_already(vloop):
    async def outer():
        task = d.spawn(await_, asks(2))
        await asyncio.sleep(1)
        return await task

    assert d.run(lambda: await_(outer())) == ["asks", "outer"]


def test_nobody_is_said_to_await_what_he_does_not_await(vloop):
    async def outer():
        future = to_task(await_, asks(1))
        await asyncio.sleep(2)
        return await future

    assert d.run(lambda: await_(outer())) == ["asks"]
    assert d.run(lambda: await_(asks())) == ["asks"]
    assert await_(asks()) == ["asks"]


def test_who_has_awaited_does_not_any_more(vloop):
    """A future that outlives the wait for it, be that given up or over."""

    async def outer():
        future = asyncio.get_running_loop().create_future()

        def gives_up():
            with d.move_on_after(1):
                await_(asyncio.shield(future))
            with d.move_on_after(1):
                await_(shielded)

        shielded = asyncio.shield(future)
        await to_task(gives_up)
        assert future._asyncio_awaited_by in (None, frozenset())
        assert shielded._asyncio_awaited_by in (None, frozenset())

    d.run(lambda: await_(outer()))


def test_tasks_that_join_each_other(vloop):
    """A circle, in which who awaits is looked for."""

    async def outer():
        tasks = []

        def joins(other):
            with d.move_on_after(3):
                tasks[other].join()

        def asked():
            tasks.append(d.spawn(joins, 1))
            tasks.append(d.spawn(waits))
            return tasks[1]

        def waits():
            with d.TaskGroup() as group:
                group.spawn(joins, 0)
                return await_(asks(2))

        return await asked()

    assert d.run(lambda: await_(outer())) == ["asks", "outer"]


def test_ours_is_told_of_in_words(vloop):
    async def inner():
        await asyncio.sleep(1)
        return asyncio.format_call_graph()

    async def outermost():
        return await to_task(lambda: await_(inner()))

    graph = d.run(lambda: await_(outermost()))
    assert graph.index("inner()") < graph.index("Awaited by") < graph.index("outermost()")


# -- by the tools, from outside

PROGRAM = f"""{TRACEABLE}
import asyncio, functools
import dangagreen as d
from dangagreen import bridge
from dangagreen.bridge import await_, to_task

async def innermost():
    asyncio.get_running_loop().call_later(0.01, functools.partial(print, "ready", flush=True))
    await asyncio.sleep(1000)
async def inner():
    await to_task(await_, innermost())
async def outer():
    await to_task(await_, inner())
async def outermost():
    await to_task(await_, outer())
async def as_guest():
    async with bridge.guest():
        await outermost()
def on_uvloop():
    import uvloop
    uvloop.run(as_guest())
"""
HOSTINGS = {
    "in a task": "d.run(lambda: await_(outermost()))",
    "in run": "d.run(bridge.run, outermost())",
    "top-level code": "bridge.run(outermost())",
    "guest of asyncio": "asyncio.run(as_guest())",
    "guest of uvloop": "on_uvloop()",
}
NAMES = ["outermost", "outer", "inner", "innermost"]


@pytest.fixture(params=HOSTINGS)
def tool(request):
    """`tool(command)` is what `python -m asyncio` prints of such a program, by line."""
    if request.param == "guest of uvloop":
        pytest.importorskip("uvloop")
    program = start_python("-c", PROGRAM + HOSTINGS[request.param])

    def tool(command):
        code, out, complaint = run_python("-m", "asyncio", command, str(program.pid))
        assert (code, complaint) == (0, "")
        return out.splitlines()

    try:
        assert program.stdout.readline() == "ready\n", program.stderr.read()
        yield tool
    finally:
        program.kill()
        program.communicate()


@pytest.mark.slow
def test_the_tools_go_on_from_task_to_task(tool):
    lines = list(filter(None, tool("pstree")))
    depths = [re.search(r"\w|\(", line).start() for line in lines]
    assert depths == sorted(set(depths))  # one tree, without branches
    assert [word for line in lines for word in line.split() if word in NAMES] == NAMES
    assert sum("(T)" in line for line in lines) == len(NAMES)
    rows = [re.split(r"\s{2,}", line.strip()) for line in tool("ps")[2:]]
    tasks, awaiters = [row[2] for row in rows], [row[-2] for row in rows]
    assert awaiters[1:] == tasks[:-1]  # each is awaited by the one before
