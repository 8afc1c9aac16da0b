"""What a compiled build might have otherwise, across modules, and has not: subclasses, overrides, tracebacks, tools."""

from __future__ import annotations

import gc
import inspect
import linecache
import pickle
import sys
import traceback
import weakref

import pytest

import dangagreen as d
from tests.programs import run_python


class Slotted(d.Socket):
    __slots__ = ("heard",)

    def __init__(self, sock, loop=None):
        super().__init__(sock, loop)
        self.heard = []

    def event_read(self):
        self.heard.append("event_read")
        if self.read(100) is None:
            self.close("read to the end")

    def event_write(self):
        self.heard.append("event_write")
        super().event_write()

    def event_hup(self):
        self.heard.append("event_hup")
        super().event_hup()

    def on_high_water(self):
        self.heard.append("on_high_water")

    def on_low_water(self):
        self.heard.append("on_low_water")

    def on_incomplete_write(self):
        self.heard.append("on_incomplete_write")

    def close(self, reason=None):
        self.heard.append("close")
        super().close(reason)

    @property
    def idle(self):
        self.heard.append("idle")
        return super().idle


def test_slots_of_a_subclass_are_its_only_attributes_of_its_own(loop, wires):
    sock = Slotted(wires()[0])
    assert not hasattr(sock, "__dict__")
    with pytest.raises(AttributeError):
        sock.herd = 1


def test_overrides_are_what_the_library_calls(loop, wires, run_turns):
    one, other = wires(10)
    sock = Slotted(one)
    sock.low_water, sock.high_water = 5, 20
    assert sock.idle is False
    sock.watch_read(True)
    sock.write(b"x" * 40)
    other.send(b"?")
    run_turns(2)
    while other_has(other):
        run_turns(2)
    other.close()
    run_turns(3)
    assert sock.closed
    assert set(sock.heard) >= {
        "idle", "event_read", "event_write", "on_high_water", "on_low_water", "on_incomplete_write", "close",
    }  # fmt: skip


def other_has(other):
    try:
        return bool(other.recv(10))
    except BlockingIOError:
        return False


def test_a_hook_that_raises_closes_its_socket_by_the_close_of_its_class(loop, wires, run_turns, take_errors):
    class Careless(Slotted):
        __slots__ = ()

        def event_read(self):
            raise KeyError("x")

    one, other = wires()
    sock = Careless(one)
    sock.watch_read(True)
    other.send(b"?")
    run_turns(2)
    (context,) = take_errors()
    assert isinstance(context.exception, KeyError)
    assert "close" in sock.heard


def test_weak_references(loop, wires):
    sock, task, timer = d.Socket(wires()[0]), d.spawn(int), loop.add_timer(5, int)
    assert all(weakref.ref(one)() is one for one in (loop, sock, task, timer))
    timer.cancel()
    task.join()
    sock.close()
    reference = weakref.ref(sock)
    del sock
    gc.collect()
    assert reference() is None


def test_an_error_of_a_call_can_be_pickled(loop, wires):
    one, other = wires()
    sock = d.Socket(one)
    other.send(b"x" * 50)
    with pytest.raises(d.LimitError) as caught:
        sock.read_line(10)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), again.args, again.limit) == (d.LimitError, caught.value.args, 10)
    sock.close()


def test_a_traceback_names_file_and_line_of_each_step(loop, wires):
    one, other = wires()
    sock = d.Socket(one)
    other.send(b"abc")
    other.close()
    with pytest.raises(d.IncompleteReadError) as caught:
        sock.read_exactly(9)
    step = traceback.extract_tb(caught.value.__traceback__)[-1]
    assert step.filename.endswith("dangagreen/streams/reading.py")
    assert step.name.endswith("read_exactly")
    assert step.line.startswith("raise IncompleteReadError(")
    assert linecache.getline(step.filename, step.lineno).strip() == step.line
    sock.close()


def test_signatures():
    assert str(inspect.signature(d.Socket.read_line)) == "(self, limit: 'int | None' = None) -> 'bytes'"
    assert list(inspect.signature(d.Socket.write).parameters) == ["self", "data"]
    assert list(inspect.signature(d.Loop.add_timer).parameters) == ["self", "seconds", "callback"]
    assert inspect.getdoc(d.Socket.read_line).startswith("Parks until a line is there")


def test_a_debugger_sees_the_functions_of_the_program(loop, wires, run_turns):
    one, other = wires()
    sock = Slotted(one)
    sock.watch_read(True)
    other.send(b"?")
    seen = []
    before = sys.gettrace()
    sys.settrace(lambda frame, event, argument: seen.append(frame.f_code))
    try:
        run_turns(2)
    finally:
        sys.settrace(before)
    assert Slotted.event_read.__code__ in seen
    sock.close()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sys.monitoring is new in Python 3.12")
def test_monitoring_sees_the_functions_of_the_program(loop, wires, run_turns):
    one, other = wires()
    sock = Slotted(one)
    sock.watch_read(True)
    other.send(b"?")
    seen, monitoring, tool = [], sys.monitoring, 4
    monitoring.use_tool_id(tool, "test")
    monitoring.register_callback(tool, monitoring.events.PY_START, lambda code, offset: seen.append(code))
    monitoring.set_events(tool, monitoring.events.PY_START)
    try:
        run_turns(2)
    finally:
        monitoring.set_events(tool, 0)
        monitoring.free_tool_id(tool)
    assert Slotted.event_read.__code__ in seen
    sock.close()


PROGRAM = """
import dangagreen as d

class Echo(d.Socket):
    __slots__ = ()
    def event_read(self):
        data = self.read(100)
        if data is None:
            self.close()
        else:
            self.write(data)

def main():
    with d.serve(("127.0.0.1", 0), Echo) as server, d.connect(server.address) as client:
        client.write_all(b"x\\n")
        print(client.read_line())
        client.write_eof()
        client.read_to_end()

d.run(main)
"""


@pytest.mark.slow
def test_coverage_counts_the_lines_of_the_program(tmp_path):
    pytest.importorskip("coverage")
    (tmp_path / "program.py").write_text(PROGRAM)
    words = ["--concurrency=greenlet", f"--data-file={tmp_path}/data", f"--include={tmp_path}/*"]
    code, out, complaints = run_python("-m", "coverage", "run", *words, str(tmp_path / "program.py"))
    assert (code, out) == (0, "b'x\\n'\n"), complaints
    _, out, _ = run_python("-m", "coverage", "report", f"--data-file={tmp_path}/data", "-m")
    assert out.split()[-1] == "100%", out


@pytest.mark.slow
def test_pdb_stops_in_a_callback(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    steps = "b 7\nc\np type(self).__name__\nw\ncl 1\nc\nq\n"
    _, out, _ = run_python("-m", "pdb", str(tmp_path / "program.py"), text_in=steps)
    assert "'Echo'" in out
    assert "event_read()" in out
