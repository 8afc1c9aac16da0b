"""Disk work: by a thread, while the loop goes on, or in place, as `SERVER aio_mode` says.

A function that is given here touches the disk, and nothing of the program. Meanwhile the exchange says what the client
waits for. What does not belong here: what is done on the disk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from dangagreen import ThreadLimiter, in_thread, spawn
from perlbal.clients import Client, Working
from perlbal.services import World

Outcome = TypeVar("Outcome")


def threads_of(world: World) -> ThreadLimiter:
    """So many threads may work at once as `SERVER aio_threads` says; many would only wait for each other."""
    if world.disk_threads is None or world.disk_threads.limit != world.aio_threads:
        world.disk_threads = ThreadLimiter(world.aio_threads)
    return world.disk_threads


def on_disk(world: World, function: Callable[..., Outcome], *args: object) -> Outcome:
    """In a task: call a function, and park until it has returned. Raises what it raises."""
    return function(*args) if world.aio_mode == "none" else in_thread(function, *args, limiter=threads_of(world))


def after_disk(
    client: Client,
    work: Callable[[], Outcome],
    then: Callable[[Outcome], object],
    dropped: Callable[[Outcome], object] | None = None,
) -> None:
    """In callback style: call `work`, then `then` with what it has returned; or `dropped`, if the client has left
    meanwhile. An OSError is answered by a page."""
    if client.service.world.aio_mode == "none":
        return _conclude(client, attempt(work), then)
    client.exchange = exchange = Working()
    spawn(_work, client, exchange, work, then, dropped)
    return None


def _work(
    client: Client,
    exchange: Working,
    work: Callable[[], Outcome],
    then: Callable[[Outcome], object],
    dropped: Callable[[Outcome], object] | None,
) -> None:
    outcome = in_thread(attempt, work, limiter=threads_of(client.service.world))
    if client.exchange is exchange:
        client.exchange = None
        try:
            _conclude(client, outcome, then)
        except Exception as error:
            client.close(error)
            raise
    elif dropped is not None and not isinstance(outcome, OSError):
        dropped(outcome)


def attempt(work: Callable[[], Outcome]) -> Outcome | OSError:
    try:
        return work()
    except OSError as error:
        return error


def _conclude(client: Client, outcome: Outcome | OSError, then: Callable[[Outcome], object]) -> None:
    if not isinstance(outcome, OSError):
        then(outcome)
    elif isinstance(outcome, PermissionError):
        client.error(403)
    else:
        client.error(500, outcome.strerror or "")
