"""What the examples print, where nobody may be left to read it: `python examples/echo.py | head -1`.

A pipe whose reader has gone, or a terminal that has hung up, is no failure of a server, nor of its callbacks, which
print as well. A standard output that was closed from the start (`>&-`) is None, and not replaced by another stream.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import TextIO

GONE = {errno.EPIPE, errno.EIO}  # a pipe without a reader, a terminal that has hung up


def tell(text: str, end: str = "\n") -> None:
    """Print on standard output, at once. Raises OSError for what is a failure, such as a full disk."""
    _put(sys.stdout, text + end)


def complain(text: str, end: str = "\n") -> None:
    """Print on standard error, at once. Raises OSError as `tell` does."""
    _put(sys.stderr, text + end)


def _put(stream: TextIO | None, text: str) -> None:
    if stream is None:
        return
    try:
        stream.write(text)
        stream.flush()
    except OSError as error:
        if error.errno not in GONE:
            raise
        nowhere = os.open(os.devnull, os.O_WRONLY)  # for what is in the buffer still, which is flushed at exit
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
