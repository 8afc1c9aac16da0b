"""The world of one proxy: its services and pools, its settings, and what services are made of.

There is no state outside a `World`, so that a process, or a test, can have several. A `Service` is a name, a listener
and parameters; what it does with requests is in its `Role`. The three know each other, and so stand in one module. What
does not belong here: what any role does, and the commands by which all of this is changed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from socket import socket
from typing import Any

from dangagreen import Address, Listener
from perlbal.heads import Head, RequestHead
from perlbal.kinds import Parameter
from perlbal.language import CommandError
from perlbal.meters import Meter
from perlbal.parameters import ANY, SERVICE_TABLE, ServiceParameters
from perlbal.pools import Nodes, Pool

Hook = Callable[..., object]


def parse_listen(text: str) -> Address:
    """The address of a `listen` parameter, which was checked."""
    if text.startswith("unix:"):
        return text[5:]
    host, _, port = text.rpartition(":")
    return host.strip("[]") or "0.0.0.0", int(port)


class Role:
    """What a service does. Roles derive from it; the names of those there are, are in `World.roles`."""

    name = ""

    def __init__(self, service: Service) -> None:
        self.service = service

    def begin(self, client: Any, head: RequestHead) -> None:
        """A client's request head has come: answer it, or have it answered."""
        raise NotImplementedError(f"the role {self.name!r} takes no requests")

    def listen(self, address: Any) -> Listener:
        """Accept connections. `address` is what `serve` takes. Raises OSError."""
        raise NotImplementedError(f"the role {self.name!r} does not listen")

    def opened(self) -> None:
        """The service was enabled."""

    def closed(self) -> None:
        """The service was disabled, got another role, or the program ends: let go of what is idle."""

    def changed(self, key: str) -> None:
        """A parameter of the service was set."""

    def describe(self) -> list[str]:
        """The lines of SHOW SERVICE after that with the role."""
        return []


class Service(ServiceParameters):
    """One service. Each parameter of the table is an attribute; those of plugins are in `extra`."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.enabled = False
        self.listener: Listener | None = None
        self.meter = Meter()
        self.extra: dict[str, Any] = {}
        self.hooks: dict[str, list[tuple[str, Hook]]] = {}
        self.setters: dict[str, Callable[[str], object]] = {}
        self.registered: dict[str, Plugin] = {}
        self.removed_headers: list[str] = []
        self.inserted_headers: list[tuple[str, str]] = []
        self.set_by_hand: dict[str, str] = {}
        for row in SERVICE_TABLE.values():
            setattr(self, row.name, row.initial(self))

    @property
    def role_name(self) -> str:
        return "" if self.role is None else str(self.role.name)

    # -- parameters

    def row(self, key: str) -> Parameter[Any] | None:
        return SERVICE_TABLE.get(key) or self.world.tunables.get(key)

    def set(self, key: str, text: str) -> None:
        """Set a parameter as a command does. Raises CommandError, and then has changed nothing."""
        row = self.row(key)
        if row is None:
            return self._set_other(key, text)
        if row.role not in (ANY, self.role_name):
            raise CommandError(f"The '{key}' option can only be set on a '{row.role}' service")
        if key == "plugins":
            return self._set_plugins(row.parse(self, text))
        self._put(row, row.parse(self, text))
        if key == "role":
            self._set_defaults()
        return None

    def _set_other(self, key: str, text: str) -> None:
        first, dot, rest = key.partition(".")
        if first == "extra" and rest:
            self.extra[rest] = text
        elif dot and (setter := self.setters.get(key)) is not None:
            setter(text)
        else:
            raise CommandError(f"Unknown service parameter '{key}'")

    def _put(self, row: Parameter[Any], value: Any) -> None:
        """Make a value that of a parameter, with what follows from that."""
        if row.name in self.world.tunables:
            self.extra[row.name] = value
            return
        before = getattr(self, row.name)
        if row.name == "role" and before is not None:
            before.closed()
        if row.name == "listen" and self.enabled and value != before:
            self._reopen(value)
        if row.name == "persist_client_timeout":
            self.idle_timeout = self.persist_client_idle_timeout = value
        if row.name == "pool":
            for pool, step in ((before, -1), (value, 1)):
                if pool is not None:
                    pool.services += step
        setattr(self, row.name, value)
        if self.role is not None:
            self.role.changed(row.name)

    def _set_defaults(self) -> None:
        """What the role has for defaults, or a DEFAULT command has made them."""
        for row in (*SERVICE_TABLE.values(), *self.world.tunables.values()):
            if row.role in (ANY, self.role_name) and row.name not in ("role", "listen", "plugins"):
                text = self.world.defaults.get(row.name, row.default)
                if text is not None:
                    self._put(row, row.parse(self, text))

    def _set_plugins(self, names: Iterable[str]) -> None:
        """Register these plugins and no others. Raises CommandError for those that are not loaded, after the others."""
        for plugin in reversed(list(self.registered.values())):
            self.unregister(plugin)
        missing = []
        for name in names:
            found = self.world.plugins.get(name.lower())
            if found is None and name != "none":
                missing.append(f"Plugin {name.lower()} not loaded; not registered for {self.name}.")
            elif found is not None and found.name not in self.registered:
                self.registered[found.name] = found
                found.register(self)
        self.plugins = list(self.registered)
        if missing:
            raise CommandError("\n".join(missing))

    def unregister(self, plugin: Plugin) -> None:
        """Take a plugin away, with all of its hooks and setters."""
        if self.registered.pop(plugin.name, None) is not None:
            plugin.unregister(self)
            for hooks in self.hooks.values():
                hooks[:] = [hook for hook in hooks if hook[0] != plugin.name]
            prefix = f"{plugin.name.lower()}."
            self.setters = {key: setter for key, setter in self.setters.items() if not key.startswith(prefix)}
            self.plugins = list(self.registered)

    # -- hooks

    def register_hook(self, plugin: str, name: str, hook: Hook) -> None:
        self.hooks.setdefault(name, []).append((plugin, hook))

    def register_setter(self, plugin: str, key: str, setter: Callable[[str], object]) -> None:
        """Have `SET service.plugin.key = text` call this."""
        self.setters[f"{plugin}.{key}".lower()] = setter

    def run_hooks(self, name: str, *args: Any) -> bool:
        """Whether a plugin has taken over. The first that answers something true is the last that is asked."""
        hooks = self.hooks.get(name)
        return hooks is not None and any(hook(*args) for _, hook in tuple(hooks))

    def run_all_hooks(self, name: str, *args: Any) -> None:
        """Tell all of the plugins, whatever they answer."""
        for _, hook in tuple(self.hooks.get(name, ())):
            hook(*args)

    def edit_head(self, head: Head) -> None:
        """Apply what HEADER commands have asked for: removals, then insertions."""
        for name in self.removed_headers:
            head.remove(name.lower())
        for name, value in self.inserted_headers:
            head.set(name, value)

    # -- on and off

    def enable(self) -> None:
        """Listen, if there is an address. Raises CommandError."""
        if self.enabled:
            raise CommandError(f"service {self.name} is already enabled")
        if self.role is None:
            raise CommandError(f"service {self.name} has no role")
        if self.listen is not None:
            self.listener = self._open(self.listen)
        self.enabled = True
        self.role.opened()

    def _open(self, text: str) -> Listener:
        address = parse_listen(text)
        try:
            listener: Listener = self.role.listen(self.world.inherited.pop(address, address))
        except OSError as error:
            reason = error.strerror or str(error)
            raise CommandError(f"Can't start service '{self.name}' on {text}: {reason}") from None
        return listener

    def _reopen(self, text: str) -> None:
        """Listen elsewhere. The new address is opened first, so that a failure leaves everything as it was."""
        listener = self._open(text)
        if self.listener is not None:
            self.listener.close("listen was changed")
        self.listener = listener

    def disable(self) -> None:
        """Stop listening. Connections that were accepted end after their present request. Raises CommandError."""
        if not self.enabled:
            raise CommandError(f"service {self.name} is already disabled")
        self.enabled = False
        if self.listener is not None:
            self.listener.close("the service was disabled")
            self.listener = None
        self.role.closed()


class Plugin:
    """The base of plugins. `name` is what they are called; a module of `plugins` has one in its attribute `plugin`."""

    name = ""

    def load(self, world: World) -> None:
        """LOAD: add commands, tunables and roles to the world."""

    def unload(self, world: World) -> None:
        """UNLOAD. Services have lost it already."""

    def register(self, service: Service) -> None:
        """SET plugins: add hooks and setters to a service."""

    def unregister(self, service: Service) -> None:
        """What a service has of it, beside hooks and setters, is to be forgotten."""

    def dump(self, service: Service) -> list[str]:
        """The lines of `dumpconfig`."""
        return []


class World:
    """Everything there is: services and pools by name, and what all of them share."""

    def __init__(self) -> None:
        self.services: dict[str, Service] = {}
        self.pools: dict[str, Pool] = {}
        self.nodes = Nodes()
        self.roles: dict[str, Callable[[Service], Role]] = {}
        self.plugins: dict[str, Plugin] = {}
        self.commands: dict[str, Callable[..., object]] = {}  # words that plugins have added
        self.tunables: dict[str, Parameter[Any]] = {}  # parameters that plugins have added
        self.defaults: dict[str, str] = {}
        self.mime: dict[str, str] = {}
        self.inherited: dict[Address, socket] = {}  # listening sockets that were passed to the process
        self.started = time.time()
        self.requests = 0
        self.sweeping = False  # whether the clocks of the clients are looked at
        self.stopping = False  # a graceful shutdown has begun: no connection stays after its request
        self.aio_mode = "ioaio"
        self.max_reproxy_connections = 0
        self.max_reproxy_connections_of: dict[str, int] = {}
        self.pidfile: str | None = None
        self.running = False  # the configuration was loaded, and the loop runs

    def make_role(self, service: Service, name: str) -> Role:
        """The `role` parameter. Raises CommandError."""
        if name not in self.roles:
            raise CommandError(f"Role not valid for service {service.name}")
        return self.roles[name](service)

    def find_pool(self, name: str) -> Pool:
        if name not in self.pools:
            raise CommandError(f"Pool '{name}' not found")
        return self.pools[name]

    def find_service(self, name: str) -> Service:
        if name not in self.services:
            raise CommandError(f"Service '{name}' not found")
        return self.services[name]

    def create_service(self, name: str) -> Service:
        self._check_name(name)
        service = self.services[name] = Service(self, name)
        return service

    def create_pool(self, name: str) -> Pool:
        self._check_name(name)
        pool = self.pools[name] = Pool(name, self.nodes)
        return pool

    def _check_name(self, name: str) -> None:
        for kind, names in (("service", self.services), ("pool", self.pools)):
            if name in names:
                raise CommandError(f"{kind} '{name}' already exists")
