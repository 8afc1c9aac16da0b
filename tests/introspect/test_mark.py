"""The mark of a process that prints a dump upon a signal: when it is there, and when it is not any more."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests.inside import notes_that_end

with notes_that_end():
    from dangagreen.introspect.mark import Mark, ask_for, marks_of

pytestmark = pytest.mark.skipif(
    not os.path.isdir("/proc/self") or not hasattr(os, "memfd_create"), reason="needs /proc, and files in memory"
)
HERE = os.getpid()


@pytest.fixture
def mark():
    mark = Mark(signal.SIGUSR2)
    yield mark
    mark.close()


def test_it_is_seen_until_it_is_closed(mark):
    assert list(marks_of(HERE)) == [signal.SIGUSR2]
    mark.close()
    mark.close()
    assert marks_of(HERE) == {}


def test_each_signal_has_its_own(mark):
    other = Mark(signal.SIGUSR1)
    assert sorted(marks_of(HERE)) == [signal.SIGUSR1, signal.SIGUSR2]
    other.close()


def test_it_does_not_outlive_the_handler_in_a_process_that_runs_another_program(mark):
    child = "import sys; from dangagreen.introspect.mark import marks_of; print(marks_of('self'))"
    seen = subprocess.run([sys.executable, "-c", child], close_fds=False, capture_output=True, text=True, check=True)
    assert seen.stdout == "{}\n"


def test_how_many_things_are_asked_for_is_told_once(mark):
    assert mark.asked() == (None, False)
    ask_for(marks_of(HERE)[signal.SIGUSR2], 1234)
    assert mark.asked() == (1234, False)
    assert mark.asked() == (None, False)


def test_whether_as_json_is_told_once(mark):
    ask_for(marks_of(HERE)[signal.SIGUSR2], 10**17, as_json=True)
    assert mark.asked() == (10**17, True)
    assert mark.asked() == (None, False)


def test_what_is_no_number_is_none(mark):
    with open(marks_of(HERE)[signal.SIGUSR2], "w") as file:
        file.write("many")
    assert mark.asked() == (None, False)


def test_a_program_that_has_closed_its_descriptor_loses_none_of_those_that_took_its_number(mark):
    (path,) = marks_of(HERE).values()
    fd = int(path.rpartition("/")[2])
    os.close(fd)
    assert mark.asked() == (None, False)
    reader, writer = os.pipe()
    if reader != fd:
        os.dup2(reader, fd)
        os.close(reader)
    mark.close()
    os.write(writer, b"x")
    assert os.read(fd, 1) == b"x"
    os.close(fd)
    os.close(writer)


def test_a_number_is_written_into_no_other_file(tmp_path):
    """As of another user who exchanges the descriptor after it was looked at."""
    (tmp_path / "passwd").write_text("root")
    with open(tmp_path / "passwd") as file, pytest.raises(OSError, match="is no mark any more"):
        ask_for(f"/proc/self/fd/{file.fileno()}", 5)
    assert (tmp_path / "passwd").read_text() == "root"


def test_a_name_that_only_begins_like_that_of_a_mark_is_none():
    fd = os.memfd_create("dangagreen-dump-often")
    assert marks_of(HERE) == {}
    os.close(fd)


def test_where_there_are_no_such_files_there_is_no_mark(monkeypatch):
    def refuses(_name):
        raise OSError(38, "not here")

    monkeypatch.setattr(os, "memfd_create", refuses)
    mark = Mark(signal.SIGUSR2)
    assert (mark.asked(), marks_of(HERE)) == ((None, False), {})
    mark.close()


def test_of_a_process_that_is_not_there_nothing_is_told():
    with pytest.raises(OSError, match="No such file"):
        marks_of(999999999)
