"""dumpconfig: the commands that would make what there is.

What does not belong here: what plugins have set, which they tell themselves.
"""

from __future__ import annotations

from collections.abc import Iterator

from perlbal.commands import Answer, Call, command
from perlbal.parameters import ANY, POOL_TABLE, SERVICE_TABLE
from perlbal.services import Service, World

FIRST = ("role", "listen", "pool")


@command("dumpconfig")
def dumpconfig(call: Call) -> Answer:
    return [*dump(call.world), "OK"]


def dump(world: World) -> Iterator[str]:
    """The lines, without the last one."""
    for pool in world.pools.values():
        yield f"CREATE POOL {pool.name}"
        if pool.nodefile:
            yield f"  SET nodefile = {pool.nodefile}"
        else:
            yield from (f"  POOL ADD {pool.name} {node.name}" for node in pool.uses)
        for row in POOL_TABLE.values():
            value = getattr(pool, row.name)
            if row.name != "nodefile" and value != row.initial(pool):
                yield f"  SET {row.name} = {row.show(value)}"
        yield ""
    for service in world.services.values():
        yield f"CREATE SERVICE {service.name}"
        yield from (f"  {line}" for line in _service(service))
        yield f"{'ENABLE' if service.enabled else 'DISABLE'} {service.name}"
        yield ""


def _service(service: Service) -> Iterator[str]:
    for name in (*FIRST, *sorted(set(SERVICE_TABLE) - set(FIRST))):
        row = SERVICE_TABLE[name]
        value = getattr(service, name)
        if row.dumped and row.role in (ANY, service.role_name) and value is not None and value != row.initial(service):
            yield f"SET {name} = {row.show(value)}"
    for name, row in sorted(service.world.tunables.items()):
        value = service.extra.get(name)
        if row.role in (ANY, service.role_name) and value is not None and value != row.initial(service):
            yield f"SET {name} = {row.show(value)}"
    for plugin in service.registered.values():
        yield from plugin.dump(service)
