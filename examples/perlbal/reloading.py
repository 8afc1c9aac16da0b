"""Live reconfiguration: the file is read anew, and the difference to what there is, is applied. Sequential style.

Rules: the file is loaded into a world of its own first, in which nothing listens; an error in it, or an address that
cannot be listened on, changes nothing. What is the same is not touched: its connections, queues and counters go on. A
service that is gone, or listens elsewhere, ends its connections after their present request, and an address that goes
from one service to another refuses nobody. What does not belong here: the commands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from socket import AF_INET, AF_INET6, create_server, socket
from typing import Any, cast

from dangagreen import Address, serve
from perlbal.clients import HttpRole
from perlbal.commands import Context, execute, find_plugin
from perlbal.kinds import parse_listen
from perlbal.language import CommandError
from perlbal.loading import load_file
from perlbal.parameters import POOL_TABLE
from perlbal.services import Service, World

OF_ALL = ("aio_mode", "aio_threads", "max_reproxy_connections", "max_reproxy_connections_of", "defaults", "mime")


def reload(world: World, empty: World, path: str) -> list[str]:
    """Make the world what the file says. Returns lines that tell what has changed. Raises CommandError.

    `empty` is a world as `world` was before the file was loaded.
    """
    wanted = empty
    wanted.dry = True
    problems: list[str] = []
    if not load_file(wanted, path, problems.append, all_errors=True):
        raise CommandError("\n".join(problems))
    return Difference(world, wanted).apply()


class Difference:
    """Between a world and the one that is wanted."""

    def __init__(self, world: World, wanted: World) -> None:
        self.world, self.wanted = world, wanted
        self.told: list[str] = []

    def apply(self) -> list[str]:
        opened = self._open_sockets()
        self.world.inherited |= opened
        try:
            self._apply_to_world()
            for name in self.wanted.pools:
                self._apply_to_pool(name)
            gone = [name for name in self.world.services if name not in self.wanted.services]
            for name in gone:
                self._remove(name)
            for name in self.wanted.services:
                if name not in self.world.services:
                    self.world.create_service(name)
                    self.told.append(f"service {name}: added")
                self._apply_to_service(self.world.services[name], self.wanted.services[name])
            self._drop_what_is_not_used()
        finally:
            for address in opened:
                if (sock := self.world.inherited.pop(address, None)) is not None:
                    sock.close()
        return [*(self.told or ["nothing has changed"]), "."]

    # -- addresses

    def _open_sockets(self) -> dict[Address, socket]:
        """The sockets of addresses that a service does not listen on yet. Raises CommandError, and has opened none."""
        listening = {service.listen: service for service in self.world.services.values() if service.listener}
        opened: dict[Address, socket] = {}
        for service in self.wanted.services.values():
            text = service.listen
            if not service.enabled or text is None:
                continue
            holder = listening.get(text)
            if holder is not None and holder.name == service.name:
                continue
            try:
                if text.startswith("unix:"):  # whose file goes with its listener: this one is to show that it can be
                    if holder is not None and holder.name not in self.wanted.services:
                        continue
                    serve(parse_listen(text), lambda sock: None).close()
                elif holder is not None and holder.listener is not None:
                    opened[parse_listen(text)] = holder.listener.sock.dup()
                else:
                    found = self.world.socket_for(parse_listen(text))
                    opened[parse_listen(text)] = found if isinstance(found, socket) else _bound(found)
            except OSError as error:
                for sock in opened.values():
                    sock.close()
                raise service.cannot_listen(text, error) from None
        return opened

    # -- what all share

    def _apply_to_world(self) -> None:
        world, wanted = self.world, self.wanted
        for key in OF_ALL:
            if getattr(world, key) != getattr(wanted, key):
                setattr(world, key, getattr(wanted, key))
                self.told.append(f"{key}: changed")
        for name in wanted.plugins:
            if name not in world.plugins:
                plugin = find_plugin(name)
                plugin.load(world)
                world.plugins[name] = plugin
                self.told.append(f"plugin {name}: loaded")

    def _apply_to_pool(self, name: str) -> None:
        world, wanted = self.world, self.wanted.pools[name]
        if name not in world.pools:
            world.create_pool(name)
            self.told.append(f"pool {name}: added")
        pool = world.pools[name]
        for key, row in POOL_TABLE.items():
            value = getattr(wanted, key)
            if getattr(pool, key) != value:
                text = "none" if value is None else row.show(value)
                if value is None and key != "nodefile":
                    setattr(pool, key, None)
                else:
                    pool.set(key, text)
                self.told.append(f"pool {name}: {key} = {text}")
        if wanted.nodefile is None:
            before, after = ([node.name for node in one.uses] for one in (pool, wanted))
            for node in after:
                if node not in before:
                    pool.add(node)
                    self.told.append(f"pool {name}: add {node}")
            for node in before:
                if node not in after:
                    pool.remove(node)
                    self.told.append(f"pool {name}: remove {node}")

    def _remove(self, name: str) -> None:
        service = self.world.services[name]
        if service.enabled:
            service.disable()
        if service.pool is not None:
            service.pool.services -= 1
        del self.world.services[name]
        self.told.append(f"service {name}: removed")

    def _drop_what_is_not_used(self) -> None:
        world, wanted = self.world, self.wanted
        for name in [name for name in world.pools if name not in wanted.pools]:
            del world.pools[name]
            self.told.append(f"pool {name}: removed")
        for name in [name for name in world.plugins if name not in wanted.plugins]:
            execute(world, Context(), f"unload {name}", self.told.append)
            self.told.append(f"plugin {name}: unloaded")

    # -- services

    def _apply_to_service(self, service: Service, wanted: Service) -> None:
        tell: Callable[[str], None] = lambda text: self.told.append(f"service {service.name}: {text}")  # noqa: E731
        if service.role_name != wanted.role_name:
            service.set("role", wanted.role_name)
            tell(f"role = {wanted.role_name}")
        plugins = _said_of_plugins(service) != _said_of_plugins(wanted)
        if plugins:
            service.set("plugins", "none")
        differences = dict(_differences(service, wanted))
        for key, text in differences.items():
            if text is None:
                service.reset(key)
            else:
                service.set(key, text)
            tell(f"{key} = {'the default' if text is None else text}")
        if plugins:
            self._say_of_plugins(service, wanted)
            tell("plugins and their settings")
        if service.enabled != wanted.enabled:
            tell("enabled" if wanted.enabled else "disabled")
            if wanted.enabled:
                service.enable()
            else:
                service.disable()
        elif any(key == "enable_ssl" or key.startswith("ssl_") for key in differences):
            service.reopen()
        elif isinstance(service.role, HttpRole):
            try:
                service.role.reread_certificates()
            except OSError as error:  # those that it has stay
                tell(f"the certificate was not read again: {error}")

    def _say_of_plugins(self, service: Service, wanted: Service) -> None:
        """Set plugins, and what commands and settings of theirs have said, as it is wanted. Headers, too."""
        service.removed_headers, service.inserted_headers = [], []
        service.lines = []
        for key, text in wanted.settings.items():
            if key == "plugins" or ("." in key and not key.startswith("extra.")):
                service.set(key, text)
        for line in wanted.lines:
            answers: list[str] = []
            if not execute(self.world, Context(service.name), line, answers.append):
                raise CommandError("\n".join(answers))


def _said_of_plugins(service: Service) -> tuple[Any, ...]:
    settings = {key: text for key, text in service.settings.items() if "." in key and not key.startswith("extra.")}
    return service.plugins, settings, service.lines


def _differences(service: Service, wanted: Service) -> Iterator[tuple[str, str | None]]:
    """The parameters that are to have another value, and how that is set; None: by taking the default."""
    for row in wanted.rows():
        if row.name not in ("role", "plugins") and _shown(service, row) != _shown(wanted, row):
            yield row.name, wanted.settings.get(row.name)
    for key in {**service.settings, **wanted.settings}:
        if key.startswith("extra.") and service.settings.get(key) != wanted.settings.get(key):
            yield key, wanted.settings.get(key)


def _shown(service: Service, row: Any) -> str | None:
    value = service.extra.get(row.name) if row.name in service.world.tunables else getattr(service, row.name)
    return None if value is None else str(row.show(value))


def _bound(address: Address) -> socket:
    """A listening socket. Raises OSError."""
    host = address[0] if isinstance(address, tuple) else ""
    return create_server(cast(Any, address), family=AF_INET6 if ":" in host else AF_INET, backlog=1024)
