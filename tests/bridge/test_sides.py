"""The sides of the border: nothing parks beyond it, nor inside an asyncio loop that knows nothing of ours."""

from __future__ import annotations

import asyncio

import pytest

import dangagreen as d
from dangagreen import bridge
from dangagreen.bridge import await_, to_task
from tests.bridge.programs import nap, program

# -- running


def test_the_package_does_not_import_asyncio():
    program("import sys, dangagreen; assert 'asyncio' not in sys.modules")


# -- errors in words


def test_bridge_run_in_a_callback_or_a_coroutine_is_refused(vloop):
    seen = []

    def callback():
        with pytest.raises(d.CannotParkError):
            bridge.run(nap(0))
        seen.append(1)

    async def main():
        with pytest.raises(d.CannotParkError):
            bridge.run(nap(0))

    vloop.call_soon(callback)
    d.sleep(1)
    bridge.run(main())
    await_(main())
    assert seen


PLAIN = {
    "sleep": lambda: d.sleep(1),
    "event": lambda: d.Event().wait(),
    "await_": lambda: await_(nap(0)),
}


@pytest.mark.parametrize("call", PLAIN.values(), ids=PLAIN)
@pytest.mark.parametrize("where", ["task", "top-level code"])
def test_a_plain_loop_of_asyncio_is_refused_at_the_first_wait_inside_it(vloop, call, where):
    async def main():
        with pytest.raises(d.CannotParkError, match=r"bridge\.run"):
            call()
        return "goes on"

    def work():
        return asyncio.run(main())

    assert (d.run(work) if where == "task" else work()) == "goes on"


def test_one_in_which_nothing_parks_is_named_by_the_report_of_slow_tasks(rloop):
    reports = []
    rloop.slow_seconds, rloop.on_slow = 0.0, reports.append

    def stops_all():
        asyncio.run(nap(0))
        d.sleep(0)

    d.run(stops_all)
    code = stops_all.__code__
    place = next(report.place for report in reports if "stops_all" in report.what)
    assert place == f"{code.co_filename}:{code.co_firstlineno + 2}"


def test_to_task_in_a_plain_loop_is_refused(vloop):
    async def main():
        with pytest.raises(RuntimeError, match="guest"):
            await to_task(d.sleep, 1)

    asyncio.run(main())
