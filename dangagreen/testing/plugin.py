"""The pytest plugin: tests as tasks, each on a fresh loop, and what they leave behind is named.

Rules: nothing of it touches a test that has neither the marker nor a fixture of it; a test that runs in a task begins
after its fixtures, on their loop; it is judged when its function has ended. pytest finds this module by its entry
point, or by `-p dangagreen.testing.plugin`. What does not belong here: how a test is judged (trial), and fixtures.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import inspect
import random
import signal
import threading
import unittest
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest

from dangagreen.loop.deadlock import WATCHING_HANDLERS
from dangagreen.testing.cases import TestCase
from dangagreen.testing.fixtures import END_LIMIT, LIMIT, TRIAL, loop, server, tell_last, virtual_clock, wire
from dangagreen.testing.time_limit import WIDER, EndLimit, TimeLimit, TimeLimitError
from dangagreen.testing.trial import LeftBehindError, Trial

__all__ = ["loop", "server", "virtual_clock", "wire"]  # pytest finds fixtures by their names here

_MARKER = "dangagreen: run the test as a task on a fresh loop, and fail it for what it leaves behind"
_OTHERS = ("anyio", "asyncio", "trio", "twisted")  # markers of other plugins: tests that are not ours in mode auto
_SEED = "dangagreen_task_order"
_ENDING = pytest.StashKey[dict[Any, EndLimit]]()  # fixtures of a wider scope whose teardown is under way


# -- options


def _seed(text: str) -> int | str:
    return text if text == "random" else int(text)


def _time(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds <= threading.TIMEOUT_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} is no time limit in seconds, and no 0, for none")
    return seconds


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("dangagreen")
    group.addoption(
        "--task-order",
        type=_seed,
        metavar="SEED",
        help="run tasks that are ready at the same time in random order, by this int; 'random' chooses one",
    )
    group.addoption(
        "--dangagreen-timeout",
        type=_time,
        metavar="SECONDS",
        help="fail a test on a loop of dangagreen, or its fixtures, that take longer, and show what the loop was doing;"
        " end the process if it cannot be ended (0: no limit)",
    )
    parser.addini(
        "dangagreen_mode", "strict: marked tests run as tasks; auto: all that are plain functions", default="strict"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", _MARKER)
    if (mode := config.getini("dangagreen_mode")) not in ("strict", "auto"):
        raise pytest.UsageError(f"dangagreen_mode is 'strict' or 'auto', not {mode!r}")
    if config.option.task_order == "random":
        of_worker = getattr(config, "workerinput", {})
        config.option.task_order = of_worker.get(_SEED, random.randrange(1_000_000))
    if config.option.dangagreen_timeout:
        importlib.import_module("dangagreen.introspect")  # takes notes from now on: the dump has ages and times by them


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Of pytest-xdist: all its processes have one seed."""
    node.workerinput[_SEED] = node.config.option.task_order


def pytest_report_header(config: pytest.Config) -> str | None:
    seed = config.option.task_order
    return None if seed is None else f"dangagreen: --task-order={seed}"


# -- which tests


def _is_ours(item: pytest.Item) -> bool:
    """Whether a test is to run as a task."""
    if not isinstance(item, pytest.Function):
        return False
    if item.get_closest_marker("dangagreen") is not None:
        return True
    return (
        item.config.getini("dangagreen_mode") == "auto"
        and not _is_case(item)
        and not _is_async(item)
        and all(item.get_closest_marker(name) is None for name in _OTHERS)
    )


def _is_case(item: pytest.Function) -> bool:
    return item.cls is not None and issubclass(item.cls, unittest.TestCase)


def _is_async(item: pytest.Function) -> bool:
    function = _function(item)
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def _function(item: pytest.Function) -> Callable[..., Any]:
    """The function of a test; that which gets the examples, if it is one of Hypothesis."""
    hypothesis = getattr(item.obj, "hypothesis", None)
    function: Callable[..., Any] = item.obj if hypothesis is None else hypothesis.inner_test
    return function


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, None, None]:
    if _is_ours(item):
        _prepare(item)
    with _limited_fixtures(item, "the setup of the fixtures"):
        yield


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    with _limited_fixtures(item, "the teardown of the fixtures", interrupts=False):
        yield


def _prepare(item: pytest.Item) -> None:
    """Have a test that is ours have a loop, or refuse it."""
    assert isinstance(item, pytest.Function)
    if _is_case(item):
        if not issubclass(item.cls, TestCase):
            pytest.fail(f"{item.name}: derive its class from dangagreen.testing.TestCase, not mark it", pytrace=False)
    elif _is_async(item):
        pytest.fail(
            f"{item.name} is an async def, and a test of dangagreen is a plain function, in which calls that wait park."
            " It awaits what is asyncio's by dangagreen.bridge.await_(...)",
            pytrace=False,
        )
    elif "loop" not in item.fixturenames:
        item.fixturenames.insert(_place_of_loop(item), "loop")


def _place_of_loop(item: pytest.Function) -> int:
    """Where the loop belongs among the fixtures of a test: before those of function scope, after all others."""
    known = item._fixtureinfo.name2fixturedefs
    for place, name in enumerate(item.fixturenames):
        if name in known and known[name][-1].scope == "function":
            return place
    return len(item.fixturenames)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Generator[None, Any, Any]:
    """What a fixture opens that outlives the test, at whose request it is made, is no leak, and may take longer."""
    config = request.config
    with contextlib.ExitStack() as blocks:
        if fixturedef.scope != "function":
            if (trial := config.stash.get(TRIAL, None)) is not None:
                blocks.enter_context(trial.exempt())
            if (limit := config.stash.get(LIMIT, None)) is not None:
                words = f"of the fixture {fixturedef.argname!r}, of scope {fixturedef.scope!r},"
                blocks.enter_context(limit.extended(f"the setup {words}"))
                tell = functools.partial(tell_last, config, f"{fixturedef.baseid}::{fixturedef.argname}")
                end = EndLimit(WIDER * config.option.dangagreen_timeout, None, tell, f"the teardown {words}")
                blocks.callback(fixturedef.addfinalizer, functools.partial(_limit_end, config, fixturedef, end))
        return (yield)


def _limit_end(config: pytest.Config, fixturedef: pytest.FixtureDef[Any], end: EndLimit) -> None:
    """The teardown of a fixture begins."""
    config.stash.setdefault(_ENDING, {})[fixturedef] = end
    end.__enter__()


@pytest.hookimpl(trylast=True)
def pytest_fixture_post_finalizer(fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest) -> None:
    if (end := request.config.stash.get(_ENDING, {}).pop(fixturedef, None)) is not None:
        end.__exit__()


# -- how they are called


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    if TRIAL not in pyfuncitem.stash:
        return (yield)
    try:
        with _sure_of_deadlocks(), _limited(pyfuncitem, _thrown(pyfuncitem)), _called_by_us(pyfuncitem):
            return (yield)
    except (LeftBehindError, TimeLimitError) as error:
        words = "\n".join([str(error), *getattr(error, "__notes__", ())])  # Hypothesis notes the example
    pytest.fail(words, pytrace=False)


@contextlib.contextmanager
def _called_by_us(item: pytest.Function) -> Iterator[None]:
    """In this block the test's function runs on its trial, or each example of it on one of its own."""
    function, hypothesis = _function(item), getattr(item.obj, "hypothesis", None)
    run = _call if hypothesis is None else _call_example

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        return run(item, function, *args, **kwargs)

    if hypothesis is None:
        item.obj = called
    else:
        hypothesis.inner_test = called
    try:
        yield
    finally:
        if hypothesis is None:
            item.obj = function
        else:
            hypothesis.inner_test = function


def _call(item: pytest.Function, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    __tracebackhide__ = True
    return item.stash[TRIAL].run(item.name, functools.partial(function, *args, **kwargs), in_task=_is_ours(item))


def _call_example(item: pytest.Function, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call it on a fresh loop, of the same kind as that of the fixtures, in whose place it and its clock are given."""
    __tracebackhide__ = True
    outer = item.stash[TRIAL]
    with Trial(outer.make_loop) as trial:
        given = {id(outer.loop): trial.loop, id(outer.loop.clock): trial.loop.clock}
        kwargs = {name: given.get(id(value), value) for name, value in kwargs.items()}
        item.stash[TRIAL] = trial
        try:
            return _call(item, function, *args, **kwargs)
        finally:
            item.stash[TRIAL] = outer
            outer.left, outer.errors = trial.left, trial.errors


@contextlib.contextmanager
def _sure_of_deadlocks() -> Iterator[None]:
    """The handler of pytest-timeout ends the test, and wakes no loop: it is no reason to hope in a deadlock."""
    handler = signal.getsignal(signal.SIGALRM)
    others = [handler] if getattr(handler, "__module__", None) == "pytest_timeout" else []
    WATCHING_HANDLERS.extend(others)
    try:
        yield
    finally:
        for handler in others:
            WATCHING_HANDLERS.remove(handler)


def _thrown(item: pytest.Function) -> Callable[[str], BaseException]:
    """What ends the function of a test. Hypothesis would try again what fails, but not what is interrupted."""
    return KeyboardInterrupt if hasattr(item.obj, "hypothesis") else pytest.fail.Exception


def _limited(
    item: pytest.Item, thrown: Callable[[str], BaseException], **about: Any
) -> contextlib.AbstractContextManager[object]:
    """The time limit of a part of a test."""
    seconds = item.config.option.dangagreen_timeout
    if not seconds:
        return contextlib.nullcontext()
    tell = functools.partial(tell_last, item.config, item.nodeid)
    limit = TimeLimit(seconds, lambda: item.stash.get(TRIAL, None), thrown, tell, **about)
    item.stash[LIMIT] = item.config.stash[LIMIT] = limit
    return limit


@contextlib.contextmanager
def _limited_fixtures(item: pytest.Item, what: str, **about: Any) -> Iterator[None]:
    """A block in which the fixtures of a test are made, or end."""
    if "loop" not in getattr(item, "fixturenames", ()):
        yield
        return
    try:
        with _limited(item, pytest.fail.Exception, what=what, **about):
            yield
        return
    except TimeLimitError as error:
        words = str(error)
    pytest.fail(words, pytrace=False)


def pytest_enter_pdb(config: pytest.Config) -> None:
    """A debugger takes as long as its user does."""
    for limit in (
        config.stash.get(LIMIT, None),
        config.stash.get(END_LIMIT, None),
        *config.stash.get(_ENDING, {}).values(),
    ):
        if limit is not None:
            limit.lift()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    report = yield
    if report.failed:
        if (limit := item.stash.get(LIMIT, None)) is not None and limit.dump is not None:
            report.sections.append(("dangagreen: what the loop was doing", limit.dump))
        if (trial := item.stash.get(TRIAL, None)) is not None:
            trial.judged = True  # what a failed fixture leaves is not told beside its failure
            if call.when == "call":
                report.sections += _sections(item, trial)
    if call.when == "teardown" and LIMIT in item.stash:
        del item.stash[LIMIT], item.config.stash[LIMIT]
    return report


def _sections(item: pytest.Item, trial: Trial) -> Iterator[tuple[str, str]]:
    """What is told beside a failure."""
    if trial.errors:
        yield "dangagreen: unhandled errors", "\n".join(trial.errors)
    if trial.left:
        yield "dangagreen: left behind by the failed test", "\n".join(trial.left)
    if (seed := item.config.option.task_order) is not None:
        yield "dangagreen: order of tasks", f"--task-order={seed} repeats it"
