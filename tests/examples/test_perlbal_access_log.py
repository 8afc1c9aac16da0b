"""The access log: its lines, and what becomes of them where files are rotated or cannot be written."""

from __future__ import annotations

import os
import re

import pytest

from perlbal.access_log import FLUSH_SECONDS
from perlbal.language import CommandError
from perlbal_talk import Talker, get, served

STAMP = r"\[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\]"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "access.log"


@pytest.fixture
def service(loop, tmp_path, path):
    (tmp_path / "a.txt").write_bytes(b"content")
    with served(persist_client="on", docroot=tmp_path, access_log=path) as service:
        yield service


@pytest.fixture
def talker(service, wires, run_turns):
    return Talker(service, wires, run_turns, 1 << 20)


@pytest.fixture
def written(path, advance, talker):
    """`written(n)` waits for n lines in all, and returns them."""

    def written(count):
        advance(FLUSH_SECONDS)
        talker.until(lambda: path.exists() and path.read_text().count("\n") >= count)
        return path.read_text().splitlines()

    return written


def test_a_line_is_in_combined_format(talker, written):
    talker.say(get("/a.txt?x=1", 'User-Agent: curl/8 "x"\\', "Referer: http://a/\xe9"), get("/none"), b"x\r\n\r\n")
    first, second, third = written(3)
    assert re.fullmatch(
        rf'10\.0\.0\.2 - - {STAMP} "GET /a\.txt\?x=1 HTTP/1\.1" 200 7 "http://a/\\xe9" "curl/8 \\x22x\\x22\\x5c"',
        first,
    )
    assert re.fullmatch(rf'10\.0\.0\.2 - - {STAMP} "GET /none HTTP/1\.1" 404 25 "-" "-"', second)
    assert re.fullmatch(rf'10\.0\.0\.2 - - {STAMP} "-" 400 \d+ "-" "-"', third)


def test_times_may_be_added(service, talker, written):
    service.set("access_log_times", "on")
    talker.say(get("/a.txt"))
    assert re.search(r' "-" node=- queue=0\.0{6} connect=0\.0{6} answer=0\.0{6} total=\d\.\d{6}$', written(1)[0])


def test_it_is_off_by_default(loop, tmp_path, wires, run_turns):
    with served(docroot=tmp_path) as service:
        Talker(service, wires, run_turns, 1 << 20).say(get("/x"))
        assert service.log is None


def test_a_file_that_was_renamed_is_opened_anew(talker, written, path):
    talker.say(get("/1"))
    written(1)
    path.rename(path.with_suffix(".1"))
    talker.say(get("/2"))
    assert "/2" in written(1)[0]
    assert path.with_suffix(".1").read_text().count("\n") == 1


def test_nothing_is_lost_at_the_end(service, talker, path):
    talker.say(get("/1"))
    service.world.stopping = True
    talker.say(get("/2"))
    assert path.read_text().count("\n") == 2


def test_it_may_be_changed_while_it_runs(service, talker, path):
    other = path.with_name("other.log")
    talker.say(get("/1"))
    service.set("access_log", str(other))
    talker.say(get("/2"))
    service.set("access_log", "none")
    assert "/1" in path.read_text()
    assert "/2" in other.read_text()
    assert service.log is None


def test_a_file_that_cannot_be_opened_is_refused(service, path):
    with pytest.raises(CommandError, match="No such file or directory"):
        service.set("access_log", "/nonexistent/x.log")
    assert service.access_log == str(path)


def test_trouble_on_disk_is_logged_and_disturbs_nobody(talker, advance, monkeypatch, caplog):
    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    assert talker.say(get("/a.txt")).endswith(b"content")
    advance(FLUSH_SECONDS)
    talker.until(lambda: "cannot be written: No space left on device" in caplog.text)
