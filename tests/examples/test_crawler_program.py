"""The crawler as a program: its options, its progress, and Ctrl-C."""

from __future__ import annotations

import signal
import socket
import subprocess
import threading

import pytest

from programs import SECONDS
from sites import CRAWLER, crawl, liar


def test_the_time_for_all() -> None:
    with liar(lambda sock: sock.recv(1)) as url:
        printed = crawl(url, "--seconds", "0.3")
    assert printed.splitlines() == ["pages: 0, bytes: 0", "not fetched: 1"]


def test_ctrl_c_shows_what_there_is() -> None:
    came = threading.Event()

    def wait(sock: socket.socket) -> None:
        came.set()
        sock.recv(1)

    with liar(wait) as url:
        process = subprocess.Popen([*CRAWLER, url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            assert came.wait(SECONDS)
            process.send_signal(signal.SIGINT)
            printed, errors = process.communicate(timeout=SECONDS)
        finally:
            process.kill()
            process.communicate()
    assert (printed, process.returncode) == ("pages: 0, bytes: 0\nnot fetched: 1\n", 130)
    assert "Traceback" not in errors


def test_progress_is_shown_meanwhile() -> None:
    with liar(lambda sock: sock.recv(1)) as url:
        done = subprocess.run([*CRAWLER, url, "--seconds", "0.7"], capture_output=True, text=True, timeout=SECONDS)
    assert 1 <= done.stderr.count("0 of 1 pages, 1 under way, 0 bytes\033[K") <= 3


@pytest.mark.parametrize(
    "url", ["https://127.0.0.1/", "ftp://x/", "127.0.0.1", "http://", "http://a b/", "http://[", "http://h:x/"]
)
def test_addresses_that_it_does_not_know(url: str) -> None:
    done = subprocess.run([*CRAWLER, url], capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 2
    assert "is not an http:// address" in done.stderr


@pytest.mark.parametrize(
    ("option", "number", "least"),
    [
        ("limit", "0", "1"),
        ("pages", "-1", "1"),
        ("bytes", "0", "1"),
        ("depth", "-1", "0"),
        ("seconds", "nan", "0.01"),
        ("page-seconds", "-2.5", "0.01"),
    ],
)
def test_numbers_that_make_no_sense(option: str, number: str, least: str) -> None:
    done = subprocess.run([*CRAWLER, f"--{option}", number, "http://127.0.0.1/"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith(f"argument --{option}: {number} is not {least} or more\n")
