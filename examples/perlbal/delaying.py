"""A request that waits for a while before anything is done for it. Callback style: a timer and a small object.

What does not belong here: who has requests wait, and for how long.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from dangagreen import Timer
from perlbal.clients import Client, Working


class Delay(Working):
    """What is being done for the request meanwhile: nothing."""

    state = "delayed"
    timer: Timer | None = None

    def __init__(self, left: Callable[[], object] | None) -> None:
        self.left = left

    def gone(self, client: Client) -> None:
        if self.timer is not None:
            self.timer.cancel()
        if self.left is not None:
            self.left()


def delay(
    client: Client, seconds: float, go_on: Callable[[], object], left: Callable[[], object] | None = None
) -> None:
    """Call `go_on` after so many seconds, or `left` if the client leaves before."""
    client.exchange = exchange = Delay(left)
    exchange.timer = client.loop.add_timer(seconds, partial(_go_on, client, go_on))


def _go_on(client: Client, go_on: Callable[[], object]) -> None:
    client.exchange = None
    if client.paused:
        client.resume()
    go_on()
