"""asyncio's own subprocesses, from tasks."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE

import pytest

import dangagreen as d
from dangagreen.bridge import await_
from tests.bridge.libraries.company import result, results

pytestmark = pytest.mark.slow


async def start(*command, **kwargs):
    return await asyncio.create_subprocess_exec(*command, **kwargs)


def test_tasks_run_programs(in_company):
    def run(n):
        program = await_(
            start("sh", "-c", f"cat; echo out {n}; echo err {n} >&2; exit {n}", stdin=PIPE, stdout=PIPE, stderr=PIPE)
        )
        output = await_(program.communicate(b"in "))
        return program.returncode, *output

    def body(_company):
        return results([d.spawn(run, n) for n in range(4)])

    assert in_company(body) == [(n, b"in out %d\n" % n, b"err %d\n" % n) for n in range(4)]


def test_a_program_is_waited_for_alone(in_company):
    def body(company):
        program = await_(start("cat", stdin=PIPE, stdout=PIPE))
        line, end = company.waits(program.stdout.readline()), company.waits(program.wait())
        program.stdin.write(b"late\n")
        assert result(line) == b"late\n"
        company.go_on()
        assert not end.done
        program.stdin.close()
        return result(end)

    assert in_company(body) == 0


def test_a_dialogue_of_which_a_step_is_cut_off_goes_on(in_company):
    def body(company):
        program = await_(start("cat", stdin=PIPE, stdout=PIPE))
        for n in range(5):
            company.cut_off(program.stdout.readline())
            program.stdin.write(b"%d\n" % n)
            assert await_(program.stdout.readline()) == b"%d\n" % n
        program.stdin.close()
        return await_(program.wait())

    assert in_company(body) == 0


def test_a_program_that_is_cut_off_can_be_killed_and_is_reaped(in_company):
    async def run(pids):
        program = await start("sleep", "3600")
        pids.append(program.pid)
        try:
            await program.wait()
        finally:
            program.kill()
            pids.append(await program.wait())

    def body(company):
        pids = []
        company.cut_off(run(pids), lambda: pids)
        with pytest.raises(ProcessLookupError):
            os.kill(pids[0], 0)
        return pids[1]

    assert in_company(body) == -signal.SIGKILL


def test_much_output_is_read_while_the_others_go_on(in_company):
    """The program writes when it is asked to, so that the others have gone on between any two pieces."""
    # Not by sys.stdout: where it is unbuffered, it loses the rest of what a write(2) that was stopped has not written.
    source = (
        "import os, sys\nfor line in sys.stdin:\n left = b'x' * 300_000\n while left: left = left[os.write(1, left) :]"
    )

    def body(company):
        program = await_(start(sys.executable, "-c", source, stdin=PIPE, stdout=PIPE))
        for _ in range(5):
            piece = company.waits(program.stdout.readexactly(300_000))
            program.stdin.write(b"\n")
            assert result(piece) == b"x" * 300_000
        program.stdin.close()
        return await_(program.wait())

    assert in_company(body) == 0
