"""Random trees of tasks and coroutines that call each other, cancelled and timed out at every possible wait.

Whatever is cut off, and where: no result is lost, no clean-up is skipped, nobody waits on, and each sees its own
context. Run it for longer, or one seed again, by `BORDER_TREES=5000` and `BORDER_SEED=17` in the environment.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import random
import traceback

import pytest

import dangagreen as d
from dangagreen import bridge
from dangagreen.bridge import as_future, await_, to_task
from dangagreen.green.sched import scheduler
from dangagreen.loop.loop import here
from dangagreen.testing import virtual_loop
from tests.helpers import first_quick

TREES = int(os.environ.get("BORDER_TREES", "150"))
SEED = int(os.environ.get("BORDER_SEED", "0"))
PARTS = 10
DEPTH = 5
NODE = contextvars.ContextVar("NODE")


class Broken(Exception):
    """What a node fails with."""


class Tree:
    """One tree: what each node did, and what was seen to be wrong."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.count = 0
        self.begun, self.cleaned = [], []
        self.wrong = []
        self.background = []

    def plan(self, depth):
        """What a node does: a list of steps."""
        choose = self.random.random
        steps = []
        for _ in range(self.random.randint(1, 3)):
            if depth and choose() < 0.75:
                steps.append(("call", self.random.choice(["plain", "limit", "group", "shield"]), choose() * 6,
                              [self.plan(depth - 1) for _ in range(self.random.choice([1, 1, 2]))]))  # fmt: skip
            else:
                steps.append(("nap", self.random.choice([0, 0, 0.5, 1, 2, 3])))
        self.count += 1
        return {
            "name": f"node{self.count}",
            "steps": steps,
            "clean_up": self.random.choice([0, 0, 0, 1, 2]),
            "fails": choose() < 0.07,
        }

    # -- what both sides do

    def enter(self, node, parent):
        seen = NODE.get()
        if seen != parent:
            self.wrong.append(f"{node['name']} saw {seen}, not {parent}")
        NODE.set(node["name"])
        self.begun.append(node["name"])

    def check(self, node, side):
        if (seen := NODE.get()) != node["name"]:
            self.wrong.append(f"{node['name']} sees {seen}")
        running = asyncio._get_running_loop()
        if (running is None) != (side == "task"):
            self.wrong.append(f"{node['name']}, a {side}, sees {running}")

    def leave(self, node):
        self.cleaned.append(node["name"])
        if node["fails"]:
            raise Broken(node["name"])

    def answered(self, node, answer):
        if answer != node["name"]:
            self.wrong.append(f"{node['name']} answered {answer!r}")

    # -- a node as a task

    def task(self, node, parent):
        self.enter(node, parent)
        try:
            for step in node["steps"]:
                self.check(node, "task")
                if step[0] == "nap":
                    d.sleep(step[1])
                else:
                    self.call_from_task(node, *step[1:])
                self.check(node, "task")
            return node["name"]
        finally:
            if node["clean_up"]:
                with d.shield():
                    d.sleep(node["clean_up"])
            self.leave(node)

    def call_from_task(self, node, how, seconds, children):
        """Each child runs as a coroutine or, where more than one does, as a task as well."""
        one = children[0]
        if how == "plain":
            self.answered(one, await_(self.coroutine(one, node["name"])))
        elif how == "limit":
            try:
                with d.timeout(seconds):
                    self.answered(one, await_(self.coroutine(one, node["name"])))
            except TimeoutError:
                pass
        elif how == "shield":
            with d.shield():
                self.answered(one, await_(self.coroutine(one, node["name"])))
        else:
            try:
                with d.TaskGroup() as group:
                    for number, child in enumerate(children):
                        if number % 2:
                            group.spawn(self.task, child, node["name"])
                        else:
                            group.spawn(lambda child=child: await_(self.coroutine(child, node["name"])))
            except ExceptionGroup as failures:
                self.only_broken(failures)

    # -- a node as a coroutine

    async def coroutine(self, node, parent):
        self.enter(node, parent)
        try:
            for step in node["steps"]:
                self.check(node, "coroutine")
                if step[0] == "nap":
                    await asyncio.sleep(step[1])
                else:
                    await self.call_from_coroutine(node, *step[1:])
                self.check(node, "coroutine")
            return node["name"]
        finally:
            try:
                if node["clean_up"]:  # which may be the first wait that is cancelled
                    await asyncio.sleep(node["clean_up"])
            finally:
                self.leave(node)

    async def call_from_coroutine(self, node, how, seconds, children):
        one = children[0]
        if how == "plain":
            self.answered(one, await to_task(self.task, one, node["name"]))
        elif how == "limit":
            try:
                async with asyncio.timeout(seconds):
                    self.answered(one, await to_task(self.task, one, node["name"]))
            except TimeoutError:
                pass
        elif how == "shield":
            task = d.spawn(self.task, one, node["name"])
            self.background.append(task)
            self.answered(one, await asyncio.shield(as_future(task)))
        else:
            try:
                async with asyncio.TaskGroup() as group:
                    for number, child in enumerate(children):
                        if number % 2:
                            group.create_task(self.coroutine(child, node["name"]))
                        else:
                            group.create_task(self.as_task(child, node["name"]))
            except ExceptionGroup as failures:
                self.only_broken(failures)

    async def as_task(self, node, parent):
        return await to_task(self.task, node, parent)

    def only_broken(self, failures):
        _broken, other = failures.split((Broken, d.TaskCancelledError))
        if other is not None:
            raise other


def grow(seed, hosted):
    """Plant a tree, cut it once at a random time, and tell what is wrong when all has ended."""
    tree = Tree(seed)
    plan = tree.plan(DEPTH)
    cut, turns = tree.random.choice([(None, 0), (tree.random.random() * 12, 0), (0, tree.random.randrange(60))])
    loop = here.loop = virtual_loop(seed=tree.random.randrange(1000))
    errors = []
    loop.on_error = errors.append
    end = {}

    def main():
        NODE.set("main")

        def root():
            if not hosted:
                return tree.task(plan, "main")
            return bridge.run(tree.coroutine(plan, "main"))

        task = d.spawn(root)
        for _ in range(turns):  # there are many waits at one time of a virtual clock
            d.sleep(0)
        with d.move_on_after(cut):
            task.join()
        task.cancel("cut")
        task.join()
        for other in tree.background:
            other.join()
        end["task"] = task
        if asyncio._get_running_loop() is not None:
            tree.wrong.append("a loop runs in main")
        if scheduler(loop).tasks.keys() - {d.current_task()}:
            tree.wrong.append(f"tasks are left: {list(scheduler(loop).tasks)}")

    try:
        d.run(main)
        try:
            answer = end["task"].result()
        except d.TaskCancelledError:
            if cut is None:
                tree.wrong.append("cancelled by nobody")
        except Broken:
            pass
        except BaseException as error:
            tree.wrong.append("".join(traceback.format_exception(error)))
        else:
            tree.answered(plan, answer)
        if sorted(tree.begun) != sorted(tree.cleaned):
            tree.wrong.append(f"begun {tree.begun} and cleaned up {tree.cleaned}")
        if len(set(tree.begun)) != len(tree.begun):
            tree.wrong.append(f"begun twice: {tree.begun}")
        tree.wrong += [f"reported: {e}" for e in errors if not isinstance(e.exception, (Broken, d.TaskCancelledError))]
        if len(loop.timers):
            tree.wrong.append(f"{len(loop.timers)} timers are left")
    finally:
        loop.close()
        here.loop = None
    return tree


def is_expected(record):
    """Failures that nobody waits for any more, since the waits were cut off, are asyncio's to tell."""
    return record.exc_info is not None and isinstance(record.exc_info[1], (Broken, d.TaskCancelledError))


@pytest.mark.parametrize("hosted", [False, True], ids=["await_", "hosted"])
@pytest.mark.parametrize("part", first_quick(range(PARTS), 3))
def test_nothing_is_lost_at_the_border(part, hosted, caplog):
    begun = 0
    for seed in range(SEED + part, SEED + TREES, PARTS):
        tree = grow(seed, hosted)
        begun += len(tree.begun)
        heard = [record.getMessage() for record in caplog.records if not is_expected(record)]
        caplog.clear()
        assert not tree.wrong + heard, f"BORDER_SEED={seed} BORDER_TREES=1:\n" + "\n".join(tree.wrong + heard)
    assert begun > TREES // PARTS
