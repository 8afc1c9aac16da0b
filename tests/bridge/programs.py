"""Coroutines and programs for the tests of the bridge."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

HERE = Path(__file__).parent.parent.parent


async def nap(seconds, value=None):
    await asyncio.sleep(seconds)
    return value


async def never():
    await asyncio.get_running_loop().create_future()


async def cleans_up(seconds, log):
    """It waits for ever; when cancelled, it takes so long to clean up."""
    try:
        await asyncio.sleep(1_000_000)
    finally:
        log.append("cancelled")
        await asyncio.sleep(seconds)
        log.append("clean")


async def stubborn():
    """It refuses to end."""
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(1_000_000)


async def begin(coroutine):
    return asyncio.ensure_future(coroutine)


def program(source, *, ends_with=0, during=None, seconds=120):
    """Run it, with warnings as errors and asyncio's debug mode; answer what it has printed, as one text.

    `during(process, line)` is called with each line that it prints meanwhile. That a loop was held up, as either side
    tells, is left out: a machine that is busy with other things may do that.
    """
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-X", "dev", "-u", "-c", textwrap.dedent(source)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONPATH": str(HERE)},
    )
    end = threading.Timer(seconds, process.kill)
    end.start()
    try:
        lines = []
        for line in process.stdout:
            if "held up the loop" in line or line.startswith("Executing <"):
                continue
            lines.append(line)
            if during is not None:
                during(process, line.strip())
        process.wait()
    finally:
        end.cancel()
        process.stdout.close()
    text = "".join(lines)
    assert process.returncode == ends_with, text
    return text
