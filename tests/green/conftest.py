"""What the tests of sequential style share."""

from __future__ import annotations

import threading

import pytest

import dangagreen as d


@pytest.fixture
def pair(wires):
    """A function that makes a connection in memory: (socket, the peer's end). Both are closed after the test."""

    def make(socket_class=d.Socket, capacity=65536):
        near, far = wires(capacity)
        return socket_class(near), far

    return make


@pytest.fixture
def wait_for(run_until):
    """`run_until`, that runs no turn if the condition is true already."""

    def wait_for(condition):
        if not condition():
            run_until(condition)

    return wait_for


@pytest.fixture
def in_thread():
    """A function that runs another in a thread called "the other one": its result, or what it raised."""

    def in_thread(function, *args):
        answer = {}

        def body():
            try:
                answer["result"] = function(*args)
            except BaseException as error:
                answer["error"] = error

        thread = threading.Thread(target=body, name="the other one", daemon=True)
        thread.start()
        thread.join(10)
        assert not thread.is_alive()
        if "error" in answer:
            raise answer["error"]
        return answer["result"]

    return in_thread
