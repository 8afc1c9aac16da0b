"""The graceful shutdown of everything. Sequential style.

What does not belong here: signals and the exit of the process (program), and how one connection is ended.
"""

from __future__ import annotations

from dangagreen import TaskGroup
from perlbal.services import World


def drain_all(world: World, grace: float | None) -> None:
    """Parks until no client is left, or `grace` seconds have gone. Management connections stay to the process's end."""
    world.stopping = True
    for service in world.services.values():
        listener, service.listener = service.listener, None
        if listener is not None and service.role_name == "management":
            listener.close("the program ends")
        elif listener is not None:
            world.end_listener(listener)
        service.enabled = False
        if service.role is not None:
            service.role.closed()
    with TaskGroup() as group:
        for listener in world.drains:  # those of services that were disabled before, too
            group.spawn(listener.drain, grace)
