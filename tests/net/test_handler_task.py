"""What lies beneath a handler, and what a listener counts."""

from __future__ import annotations

from pathlib import Path

import pytest

import dangagreen as d
from tests.connections import LOCAL


class Plain(d.Socket):
    __slots__ = ()


class ActsItself(d.Socket):
    """Starts its handlers from an `event_read` of its own."""

    __slots__ = ()

    def event_read(self):
        return super().event_read()


KINDS = {
    "serve": (d.serve, Plain),
    "serve_requests": (d.serve_requests, Plain),
    "event_read": (d.serve_requests, ActsItself),
}


@pytest.mark.parametrize(("server", "socket_class"), KINDS.values(), ids=KINDS)
def test_three_frames_of_ours_lie_beneath_a_parked_handler(loop, server, socket_class):
    def handler(sock):
        sock.read_line()
        tasks.append(d.current_task())
        sock.read_line()

    tasks = []
    with server(LOCAL, handler, socket_class=socket_class) as listener, d.connect(listener.address) as client:
        client.write_all(b"one\n")
        d.sleep(1)
        (task,) = tasks
        frame = task.worker.gr_frame
        while frame.f_code is not handler.__code__:
            frame = frame.f_back
        beneath = []
        while (frame := frame.f_back) is not None:
            beneath.append(Path(frame.f_code.co_filename).stem)
        assert beneath == ["handler_task", "tasks", "sched"]
        client.write_all(b"two\n")
        d.sleep(1)
        assert task.done
