"""The fixtures of the pytest plugin: loop, virtual_clock, wire, server.

Rules: each test has its own loop, which its fixtures share. What does not belong here: which tests run as tasks
(plugin).
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import pytest

from dangagreen.loop.loop import Loop
from dangagreen.net.listener import Listener
from dangagreen.net.serving import serve
from dangagreen.testing.clock import VirtualClock, VirtualPoller, virtual_loop
from dangagreen.testing.order import random_order
from dangagreen.testing.servers import ServerThread
from dangagreen.testing.time_limit import EndLimit, TimeLimit
from dangagreen.testing.trial import LeftBehindError, Trial
from dangagreen.testing.wire import wire as make_wire

TRIAL = pytest.StashKey[Trial]()
END_LIMIT = pytest.StashKey[EndLimit]()
LIMIT = pytest.StashKey[TimeLimit]()  # that of the moment: of the setup, the function, or the teardown
_SERVERS = pytest.StashKey[dict[Any, ServerThread]]()
_SCOPES: dict[str, Any] = {
    "class": pytest.Class,
    "module": pytest.Module,
    "package": pytest.Package,
    "session": pytest.Session,
}


def fresh_loop(seed: int | None, virtual: bool) -> Loop:
    """A loop on the virtual clock or on the real one, in random order if there is a seed."""
    if virtual:
        return virtual_loop(seed=seed)
    loop = Loop()
    if seed is not None:
        random_order(loop, seed)
    return loop


@pytest.fixture
def loop(request: pytest.FixtureRequest) -> Iterator[Loop]:
    """The loop of the test, fresh; on a virtual clock if it, or a fixture of it, uses `virtual_clock` or `wire`."""
    seed = request.config.option.task_order
    trial = Trial(functools.partial(fresh_loop, seed, "virtual_clock" in request.fixturenames))
    request.node.stash[TRIAL] = request.config.stash[TRIAL] = trial
    if seconds := request.config.option.dangagreen_timeout:
        tell = functools.partial(tell_last, request.config, request.node.nodeid)
        request.config.stash[END_LIMIT] = trial.end_limit = EndLimit(seconds, trial.loop, tell)
    try:
        with trial:
            yield trial.loop
            if (limit := request.config.stash.get(LIMIT, None)) is not None:
                limit.lift()  # the end of the loop has a limit of its own
    except LeftBehindError as error:
        words = f"a fixture has {error}"
    else:
        return
    finally:
        del request.config.stash[TRIAL], request.node.stash[TRIAL]  # pytest keeps the tests until the end of the run
        if END_LIMIT in request.config.stash:
            del request.config.stash[END_LIMIT]
    pytest.fail(words, pytrace=False)


def tell_last(config: pytest.Config, where: str, words: str) -> None:
    """Write the last words of the process where its user reads them: not into what captures its output.

    First the failures so far, which pytest tells at the end, that does not come.
    """
    capture = config.pluginmanager.getplugin("capturemanager")
    if capture is not None:
        capture.suspend_global_capture(in_=True)
    reporter = config.pluginmanager.getplugin("terminalreporter")  # a process of pytest-xdist has none, nor failures
    if reporter is not None:
        with contextlib.suppress(Exception):  # another plugin's report that fails must not hide the words
            reporter.ensure_newline()
            reporter.summary_errors()
            reporter.summary_failures()
            reporter.short_test_summary()
            reporter.flush()
    sys.stderr.write(f"\n{where}: {words}\n")
    sys.stderr.flush()


@pytest.fixture
def virtual_clock(loop: Loop) -> VirtualClock:
    """The virtual clock of the test: it stands still while anything can happen, and then jumps to the next timer."""
    if not isinstance(loop.poller, VirtualPoller):
        pytest.fail(
            "the loop is on the real clock already: name virtual_clock, or wire, among the arguments of the test"
        )
    clock = loop.clock
    assert isinstance(clock, VirtualClock)
    return clock


@pytest.fixture
def wire(virtual_clock: VirtualClock) -> Callable[..., Any]:
    """`wire(capacity=65536, *, family=socket.AF_INET)` makes two connected ends in memory; the clock is virtual."""
    return make_wire


class StartServer(Protocol):
    """What the fixture `server` is."""

    def __call__(
        self,
        handler: Any,
        address: Any = ("127.0.0.1", 0),
        *,
        scope: str = "function",
        start: Callable[..., Listener] = serve,
        **options: Any,
    ) -> Listener: ...


@pytest.fixture
def server(loop: Loop, request: pytest.FixtureRequest) -> StartServer:
    """`server(handler, address=("127.0.0.1", 0), *, scope="function", start=serve, **options)` starts a server.

    It ends with the test, on whose loop it runs; or, with scope "class", "module", "package" or "session", with that,
    and runs in a thread. Then the same call in a later test returns the same one.
    """

    def server(
        handler: Any,
        address: Any = ("127.0.0.1", 0),
        *,
        scope: str = "function",
        start: Callable[..., Listener] = serve,
        **options: Any,
    ) -> Listener:
        trial = request.node.stash[TRIAL]
        begin = functools.partial(start, address, handler, **options)
        with trial.exempt():
            if scope != "function":
                key = start, handler, address, *sorted(options.items())
                kept = _kept(request.node, scope, key, begin)
                trial.elsewhere.append(kept.take_errors)
                return kept.listener
            listener = begin()
        trial.at_end.append(listener.close)
        return listener

    return server


def _kept(item: pytest.Item, scope: str, key: tuple[Any, ...], begin: Callable[[], Listener]) -> ServerThread:
    """The server in a thread that is begun by this call, or was before, for the part of the tests that is `scope`."""
    if scope not in _SCOPES:
        raise ValueError(f"the scope of server is one of function, {', '.join(_SCOPES)}, not {scope!r}")
    if isinstance(item.stash[TRIAL].loop.poller, VirtualPoller):
        raise RuntimeError(f"a server of scope {scope!r} runs in a thread, which the virtual clock would outrun")
    node: pytest.Item | pytest.Collector | None = item.getparent(_SCOPES[scope])
    if node is None:
        raise RuntimeError(f"{item.nodeid} is in no {scope}, with which a server could end")
    servers = node.stash.setdefault(_SERVERS, {})
    if key not in servers:
        servers[key] = ServerThread(begin)
        node.addfinalizer(functools.partial(_end, servers, key))
    return servers[key]


def _end(servers: dict[Any, ServerThread], key: Any) -> None:
    if leaks := servers.pop(key).end():
        pytest.fail("a server has left behind:\n" + "\n".join(f"  {leak}" for leak in leaks), pytrace=False)
