"""A slot is written by its own module alone, but for the fast paths that are listed here, each with what it saves."""

from __future__ import annotations

import pytest

from tests.ownership import Sources

USES = 116  # of private slots outside their own modules, reads included: fewer whenever it can be

# Function: the slots of other modules that it writes, and what methods of the owners in the place of these writes would
# take more. A call takes 384 instructions more than the store that it makes (valgrind, Python 3.11); the percentages
# are of the whole unit of work: a request with its reply takes from 22,000 to 59,000.
FAST_PATHS = {
    "sockets.receiving.Receiving.read": ("_last_activity", "1.8 percent of a request to a callback"),
    "sockets.receiving.Receiving.watch_read": ("_last_activity", "0.6 percent of a request of serve_requests"),
    "sockets.receiving.Receiving._begin_request": ("_at_work _buffer", "1.3 percent of it"),
    "sockets.receiving.Receiving._end_request": ("_at_work", "0.6 percent of it"),
    "sockets.receiving.Receiving._await_input": ("_last_activity", "1.1 percent of a request to a task"),
    "streams.reading.ReadingSocket._fill": ("_buffer _last_activity _reader", "3.1 percent of it"),
    "sockets.write_queue.WriteQueue._begin_writing": (
        "_high_water _write_closed _write_error",
        "0.3 percent of the life of a connection",
    ),
    "sockets.write_queue.WriteQueue._drop_queue": ("_write_closed", "0.3 percent of it"),
    "sockets.acceptor.Admitting.set_up": ("_listener", "0.3 percent of it"),
    "net.handler_task.begin_handler": ("_sequential", "0.3 percent of it"),
    "sockets.sock.CallbackSocket.__init__": (
        "_at_work _buffer _bulk_credit _created_at _eof _finishing _last_activity _line_limit _lines _pos"
        " _read_error _scan_from _sequential",
        "1.1 percent of the life of a connection",
    ),
    "streams.reading.ReadingSocket.read_line": ("_buffer _pos", "3.7 percent of a line among several"),
    "streams.reading.ReadingSocket.read_some": ("_buffer", "1.0 percent of a request to a task"),
    "streams.reading.ReadingSocket.__iter__": ("_pos", "4.8 percent of a line among several"),
    "streams.writing.StreamSocket.write_all": ("_queue _sequential", "2.1 percent of a request to a task"),
}


@pytest.fixture(scope="module")
def sources():
    return Sources()


def test_a_slot_is_written_by_its_own_module(sources):
    assert (
        sources.faults({function: (set(slots.split()), gain) for function, (slots, gain) in FAST_PATHS.items()}) == []
    )


def test_each_fast_path_is_there(sources):
    written = {(f"{use.module}.{use.function}", use.slot) for use in sources.uses if use.written}
    assert written == {(function, slot) for function, (slots, _) in FAST_PATHS.items() for slot in slots.split()}


def test_slots_are_used_outside_their_modules_no_more_often_than_now(sources):
    assert len(sources.uses) <= USES


LOW = """
class Low:
    __slots__ = {"_one": "A slot.", "_two": "Another.", "three": "No private one."}

    def keep(self):
        self._one = self._two
"""


@pytest.mark.parametrize(
    ("source", "found"),
    [
        (
            "from dangagreen.low import Low\nclass High(Low):\n    def f(self):\n        self._one = 1\n",
            ["High.f writes _one"],
        ),
        ("from dangagreen.low import Low\ndef f(low: Low):\n    low._two += 1\n", ["f writes _two"]),
        ("def f(anything):\n    del anything._one\n", ["f writes _one"]),
        ("from dangagreen.low import Low\ndef f():\n    one = Low()\n    one._one = 1\n", ["f writes _one"]),
        ("from dangagreen.low import Low\ndef f(low: Low):\n    return low._one, low.three\n", []),
        ("class Own:\n    __slots__ = ('_one',)\n    def f(self):\n        self._one = 1\n", []),
        ("class Other:\n    def f(self):\n        self._one = 1\n", []),
    ],
)
def test_what_is_a_write_outside_its_module(tmp_path, source, found):
    (tmp_path / "low.py").write_text(LOW)
    (tmp_path / "high.py").write_text(source)
    assert [fault.split(" ", 1)[1].split(",")[0] for fault in Sources(tmp_path).faults({})] == found


def test_homonyms_are_told_apart_by_the_classes(sources):
    """`_listener` of a drain and that of a connection; `_reader` of a handler, whose owner is receiving."""
    assert sources.owners("_listener", "net.draining.Drain") == {"net.draining"}
    assert sources.owners("_listener", "net.sock.Socket") == {"sockets.descriptor"}
    assert "sockets.receiving" in sources.owners("_reader", "streams.reading.ReadingSocket")
    assert sources.owners("_buffer", "net.draining.Drain") == set()
