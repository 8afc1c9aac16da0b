"""The world of one proxy: its services and pools, its settings, and what services are made of.

There is no state outside a `World`, so that a process, or a test, can have several. A `Service` is a name, a listener
and parameters; what it does with requests is in its `Role`. The three know each other, and so stand in one module. What
does not belong here: what any role does, and the commands by which all of this is changed.
"""

from __future__ import annotations

import logging
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from socket import socket
from typing import Any, cast

from dangagreen import Address, Listener, Task, ThreadLimiter, Timer, sleep, spawn
from perlbal.heads import Head, RequestHead
from perlbal.hooks import Command, Hooked, Plugin
from perlbal.kinds import Parameter, parse_listen
from perlbal.language import CommandError
from perlbal.meters import Meter
from perlbal.pages import MIME
from perlbal.parameters import ANY, POOL_TABLE, SERVICE_TABLE, ServiceParameters
from perlbal.pools import Nodes, Pool

KEPT = ("role", "listen", "plugins", "pool")  # are not set to a default when the role is
PRIORITIES = {"debug": 10, "info": 20, "warning": 30, "err": 40, "crit": 50}


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

    def check_listening(self) -> None:
        """Raise the OSError that `listen` would raise at any address."""

    def opened(self) -> None:
        """The service was enabled."""

    def closed(self) -> None:
        """The service was disabled, got another role, or the program ends: let go of what is idle."""

    def changed(self, key: str) -> None:
        """A parameter of the service was set."""

    def describe(self) -> list[str]:
        """The lines of SHOW SERVICE after that with the role."""
        return []

    def queue_lengths(self) -> dict[str, tuple[int, int]]:
        """The queues of waiting clients by name: seconds that the first has waited, and how many there are."""
        return {}

    def pending_connects(self) -> dict[str, int]:
        """Nodes to which a connection is being made, and the seconds since it was begun."""
        return {}


class Service(ServiceParameters, Hooked):
    """One service. Each parameter of the table is an attribute; those of plugins are in `extra`."""

    def __init__(self, world: World, name: str) -> None:
        Hooked.__init__(self)
        self.world, self.name = world, name
        self.enabled = False
        self.listener: Listener | None = None
        self.meter = Meter()
        self.log: Any = None  # the access log, if there is one
        self.extra: dict[str, Any] = {}
        self.registered: dict[str, Plugin[Any]] = {}
        self.removed_headers: list[str] = []
        self.inserted_headers: list[tuple[str, str]] = []
        self.settings: dict[str, str] = {}  # what was SET, in order
        self.lines: list[str] = []  # commands about it that are no SET, in order
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
            self._set_other(key, text)
        elif row.role not in (ANY, self.role_name):
            raise CommandError(f"The '{key}' option can only be set on a '{row.role}' service")
        elif key == "plugins":
            self._set_plugins(row.parse(self, text))
        elif key == "role":
            self._set_role(row.parse(self, text))
        else:
            self._put(row, row.parse(self, text))
        self.settings.pop(key, None)
        self.settings[key] = text

    def _set_other(self, key: str, text: str) -> None:
        first, dot, rest = key.partition(".")
        if key in POOL_TABLE:
            (self.pool or self._own_pool(key)).set(key, text)
        elif first == "extra" and rest:
            self.extra[rest] = text
        elif dot and (setter := self.setters.get(key)) is not None:
            setter(text)
        else:
            raise CommandError(f"Unknown service parameter '{key}'")

    def _own_pool(self, key: str) -> Pool:
        """The pool of a service that was given none, as very old configurations have it."""
        if self.world.pools_by_hand:
            raise CommandError(
                f"Attempt to vivify pool {self.name}_pool but one or more pools have already been created manually.  "
                f"Please set {key} on a previously created pool."
            )
        pool = self.world.create_pool(f"{self.name}_pool", by_hand=False)
        self.set("pool", pool.name)
        return pool

    def _put(self, row: Parameter[Any], value: Any) -> None:
        """Make a value that of a parameter, with what follows from that."""
        if row.name in self.world.tunables:
            self.extra[row.name] = value
            return
        before = getattr(self, row.name)
        if row.name == "listen" and self.enabled and value != before:
            self._reopen(value)
        if row.name == "persist_client_timeout" and value is not None:
            self.idle_timeout = self.persist_client_idle_timeout = value
        if row.name == "pool":
            for pool, step in ((before, -1), (value, 1)):
                if pool is not None:
                    pool.services += step
        setattr(self, row.name, value)
        if self.role is not None and not self.world.dry:
            self.role.changed(row.name)

    def _set_role(self, role: Role) -> None:
        """Become something else, with the defaults of that role, or what DEFAULT commands have made them."""
        values = [(row, self._default(row)) for row in self._rows_of(role.name) if row.name not in KEPT]
        names = list(self.registered)
        self._set_plugins([])
        if self.role is not None:
            self.role.closed()
        if self.pool is not None and SERVICE_TABLE["pool"].role != role.name:
            self._put(SERVICE_TABLE["pool"], None)
        self.role = role
        for row, value in values:
            self._put(row, value)
        self.reopen()
        if self.enabled and not self.world.dry:
            role.opened()
        self._set_plugins(names)

    def rows(self) -> list[Parameter[Any]]:
        """The parameters that this service has, those of plugins last."""
        return self._rows_of(self.role_name)

    def _rows_of(self, role: str) -> list[Parameter[Any]]:
        rows = (*SERVICE_TABLE.values(), *self.world.tunables.values())
        return [row for row in rows if row.role in (ANY, role)]

    def _default(self, row: Parameter[Any]) -> Any:
        text = self.world.defaults.get(row.name, row.default)
        return None if text is None else row.parse(self, text)

    def tuned(self, key: str) -> Any:
        """The value of a parameter that a plugin has added."""
        row = self.world.tunables[key]
        return self.extra[key] if key in self.extra else row.initial(self)

    def reset(self, key: str) -> None:
        """Give a parameter its default again."""
        row = self.row(key)
        self.settings.pop(key, None)
        if row is None:
            self.extra.pop(key.removeprefix("extra."), None)
        else:
            self._put(row, self._default(row))

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
                found.register(self)
                self.registered[found.name] = found
                self.plugins = list(self.registered)
        if missing:
            raise CommandError("\n".join(missing))

    def unregister(self, plugin: Plugin[Any]) -> None:
        """Take a plugin away, with all of its hooks and setters."""
        if self.registered.pop(plugin.name, None) is not None:
            plugin.unregister(self)
            self.forget(plugin.name)
            self.plugins = list(self.registered)

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
        if self.listen is not None:
            self.listener = self._open(self.listen)
        self.enabled = True
        if self.role is not None and not self.world.dry:
            self.role.opened()

    def _open(self, text: str) -> Listener | None:
        if self.role is None:
            raise CommandError(f"service {self.name} has no role")
        listener: Listener | None = None
        try:
            if self.world.dry:
                self.role.check_listening()
            else:
                listener = self.role.listen(self.world.socket_for(parse_listen(text)))
        except OSError as error:
            raise self.cannot_listen(text, error) from None
        return listener

    def cannot_listen(self, text: str, error: OSError) -> CommandError:
        """What is told where an address cannot be listened on."""
        reason = os.strerror(error.errno) if error.errno else str(error)
        return CommandError(f"Can't start service '{self.name}' on {text}: {reason}")

    def _reopen(self, text: str | None) -> None:
        """Listen elsewhere. The new address is opened first, so that a failure leaves everything as it was."""
        listener = None if text is None else self._open(text)
        if self.listener is not None:
            self.world.end_listener(self.listener)
        self.listener = listener

    def reopen(self) -> None:
        """Listen anew by the same socket, as role and parameters say now: nobody is refused. Raises CommandError."""
        if self.listener is not None and self.listen is not None:
            self.world.end_listener(self.listener)
            self.listener = self._open(self.listen)

    def disable(self) -> None:
        """Stop listening. Connections that were accepted end after their present request. Raises CommandError."""
        if not self.enabled:
            raise CommandError(f"service {self.name} is already disabled")
        self.enabled = False
        if self.listener is not None:
            self.world.end_listener(self.listener)
            self.listener = None
        if self.role is not None:
            self.role.closed()


class World:
    """Everything there is: services and pools by name, and what all of them share."""

    def __init__(self) -> None:
        self.services: dict[str, Service] = {}
        self.pools: dict[str, Pool] = {}
        self.nodes = Nodes()
        self.url_connections: Any = None  # of `url_connections`, once there are some
        self.roles: dict[str, Callable[[Service], Role]] = {}
        self.plugins: dict[str, Plugin[Any]] = {}
        self.commands: dict[str, Command] = {}  # those of plugins
        self.tunables: dict[str, Parameter[Any]] = {}  # parameters that plugins have added
        self.defaults: dict[str, str] = {}
        self.mime = dict(MIME)
        self.inherited: dict[Address, socket] = {}  # listening sockets that were passed to the process
        self.pages: dict[str, Callable[[], tuple[str, str]]] = {}  # of the management port: path to type and text
        self.pools_by_hand = False
        self.drains: dict[Listener, Task[Any]] = {}  # listeners that were given up, and the tasks that end them
        self.reload: Callable[[], Iterable[str]] | None = None  # RELOAD CONFIG
        self.stop: Callable[[float | None], object] = lambda grace: None  # SHUTDOWN; 0 is at once
        self.dry = False  # a configuration is only checked: nothing listens, nothing of the process is changed
        self.started = time.time()
        self.requests = 0
        self.node_meters: defaultdict[str, Meter] = defaultdict(Meter)  # what nodes have answered, by their names
        self.sweeping: Timer | None = None  # by which the clocks of the clients are looked at
        self.last_proc = (0.0, 0.0, 0)  # processor times, and requests, at the last `proc`
        self.stopping = False  # a graceful shutdown has begun: no connection stays after its request
        self.aio_mode = "ioaio"
        self.aio_threads = 3
        self.disk_threads: ThreadLimiter | None = None  # `disk` makes it
        self.max_reproxy_connections = 0
        self.max_reproxy_connections_of: dict[str, int] = {}
        self.pidfile: str | None = None
        self.running = False  # the configuration was loaded, and the loop runs

    def add_tunable(self, name: str, row: Parameter[Any]) -> None:
        """Add a parameter of a plugin. One that exists stays."""
        row.name = name
        if name not in SERVICE_TABLE:
            self.tunables.setdefault(name, row)

    def create_service(self, name: str) -> Service:
        self._check_name(name)
        service = self.services[name] = Service(self, name)
        return service

    def create_pool(self, name: str, by_hand: bool = True) -> Pool:
        self._check_name(name)
        self.pools_by_hand |= by_hand
        pool = self.pools[name] = Pool(name, self.nodes)
        return pool

    def end_listener(self, listener: Listener) -> None:
        """Accept nobody else; connections end after their present request. Parks until the file of a Unix socket, which
        another listener may be about to make, is gone."""
        self.drains = {one: drain for one, drain in self.drains.items() if not drain.done}
        drain = self.drains[listener] = spawn(listener.drain, None)
        while isinstance(listener.address, str) and not (listener.closed or drain.done):
            sleep(0)  # who is in its queue is accepted first

    def socket_for(self, address: Address) -> Address | socket:
        """What a service is to listen on at an address: a socket that was passed to the process, or one that another
        listener has still, or else the address."""
        if address in self.inherited:
            return self.inherited.pop(address)
        for listener in self.drains:
            if listener.address == address and not listener.closed and not isinstance(address, str):
                return cast(socket, listener.sock.dup())
        return address

    def log(self, priority: str, text: str) -> None:
        """A line for the log; `program` says where that is. Priorities are those of syslog."""
        logging.getLogger("perlbal").log(PRIORITIES[priority], "%s", text)

    def _check_name(self, name: str) -> None:
        for kind, names in (("service", self.services), ("pool", self.pools)):
            if name in names:
                raise CommandError(f"{kind} '{name}' already exists")
