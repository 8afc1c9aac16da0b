"""Commands that list what there is and what is going on, by the lines that scripts read.

What does not belong here: how answers are sent, and commands that change something (commands).
"""

from __future__ import annotations

import os
import resource
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from dangagreen import Listener, Socket, current_loop
from perlbal.clients import Client
from perlbal.commands import COMMANDS, Answer, Call, command, ended
from perlbal.language import CommandError
from perlbal.services import Service, World

CLIENTS = {"reverse_proxy": "Perlbal::ClientProxy", "web_server": "Perlbal::ClientHTTP"}
VERSION = "1.80"  # of the original, whose scripts and clients ours serves


def _sorted(names: dict[str, Any]) -> Iterator[Any]:
    return (names[name] for name in sorted(names))


# -- services and pools


@command("show", pattern=r"show (service|pool)(?: (\w+))?")
def show(call: Call, kind: str, name: str | None) -> Answer:
    world = call.world
    if kind == "service":
        if name is None:
            return ended(
                f"{one.name} {one.listen or 'not_listening'} {'ENABLED' if one.enabled else 'DISABLED'}"
                for one in _sorted(world.services)
            )
        if name not in world.services:
            raise CommandError("Unknown service")
        return ended(_describe(world.services[name]))
    if name is None:
        return ended(
            line
            for pool in _sorted(world.pools)
            for line in (f"{pool.name} nodes {len(pool.uses)}", f"{pool.name} services {pool.services}")
        )
    if name not in world.pools:
        raise CommandError(f"pool '{name}' does not exist")
    return ended(f"{node.name} {uses}" for node, uses in world.pools[name].uses.items())


def _describe(service: Service) -> list[str]:
    lines = [
        f"SERVICE {service.name}",
        f"     listening: {service.listen or '--'}",
        f"          role: {service.role_name}",
    ]
    return lines + (service.role.describe() if service.role is not None else [])


@command("plugins")
def plugins(call: Call) -> Answer:
    return ended(" ".join([one.name, *one.registered]) for one in _sorted(call.world.services) if one.registered)


@command("queues")
def queues(call: Call) -> Answer:
    lines = []
    for service in _sorted(call.world.services):
        if service.role is not None:
            for name, (age, count) in service.role.queue_lengths().items():
                lines += [f"{service.name}-{name}.age {age}", f"{service.name}-{name}.count {count}"]
    return ended(lines)


@command("pending")
def pending(call: Call) -> Answer:
    return ended(
        f"{service.name} {name} {age}"
        for service in _sorted(call.world.services)
        if service.role is not None
        for name, age in sorted(service.role.pending_connects().items())
    )


# -- connections


def _sockets() -> dict[int, Any]:
    """Everything with a descriptor, by that."""
    return dict(sorted(Socket.descriptor_map().items()))


def _class_of(sock: Any) -> str:
    """What the original calls an object; empty for what is none of its kinds."""
    if isinstance(sock, Client):
        return CLIENTS.get(sock.target.role_name, "Perlbal::ClientHTTPBase")
    return str(getattr(sock, "danga_class", ""))


def _service_of(sock: Any) -> Any:
    return sock.target if isinstance(sock, Client) else getattr(sock, "service", None)


@command("states", pattern=r"states(?:\s+(.+))?")
def states(call: Call, name: str | None) -> Answer:
    service = None if name is None else call.world.services.get(name)
    if name is not None and service is None:
        raise CommandError("Service not found.")
    found = Counter(
        f"{_class_of(sock)} {sock.state}"
        for sock in _sockets().values()
        if hasattr(sock, "state") and _class_of(sock) and (service is None or _service_of(sock) is service)
    )
    return ended(f"{name} {found[name]}" for name in sorted(found))


@command("backends")
def backends(call: Call) -> Answer:
    found = Counter(sock.node.name for sock in _sockets().values() if hasattr(sock, "node") and hasattr(sock, "state"))
    return ended(f"{name} {found[name]}" for name in sorted(found))


@command("socks", pattern=r"socks(?: (\w+))?")
def socks(call: Call, mode: str | None) -> Answer:
    names = _names_of_listeners(call.world)
    found = {fd: sock for fd, sock in _sockets().items() if fd in names or _class_of(sock)}
    if mode == "summary":
        return ended(_summary(found, names))
    lines = []
    if mode in (None, "all"):
        now = current_loop().time()
        lines.append("   fd    age")
        for fd, sock in found.items():
            age = int(now - getattr(sock, "created", now))
            lines.append(f"{fd:5} {age:5}s {names[fd] if fd in names else _described(sock)}")
    return ended(lines)


def _described(sock: Any) -> str:
    if isinstance(sock, Client):
        return f"{_class_of(sock)}(R): open to {sock.peer_addr_string() or 'a Unix socket'}"
    return str(sock.as_string())


def _names_of_listeners(world: World) -> dict[int, str]:
    """How `socks` calls the listeners, by descriptor."""
    found = {}
    for service in world.services.values():
        if isinstance(service.listener, Listener) and not service.listener.closed:
            name = f"listening on {service.listen} for service '{service.name}'"
            found[service.listener.fd] = f"Perlbal::TCPListener(R): open: {name}"
    return found


def _summary(found: dict[int, Any], names: dict[int, str]) -> list[str]:
    count = Counter("Perlbal::TCPListener" if fd in names else _class_of(sock) for fd, sock in found.items())
    unsent = sum(getattr(sock, "unsent", 0) for sock in found.values())
    files = sum(bool(getattr(sock, "open_file", False)) for sock in found.values())
    return [
        *(f"{count[name]:5} {name}" for name in sorted(count)),
        f"Aggregate write buffer: {unsent / 1024:.1f}k",
        f"            Open files: {files}",
    ]


# -- nodes


@command("nodes", "node", pattern=r"nodes?(?: (\S+))?")
def nodes(call: Call, name: str | None) -> Answer:
    if name is not None and ":" not in name.rpartition("]")[2]:
        name += ":80"
    return ended(
        f"{node.name} {line}"
        for node in call.world.nodes.values()
        if name is None or node.name == name
        for line in _node(node)
    )


def _node(node: Any) -> Iterator[str]:
    counts = {
        "attempts": node.attempts,
        "connects": node.connects,
        "lastattempt": node.last_attempt,
        "lastconnect": node.last_connect,
        "lastresponse": node.last_response,
        "requests": node.requests,
        "verifies": node.verifies,
    }
    yield from (f"{key} {int(value)}" for key, value in counts.items() if value)
    yield from (f"responsecodes {code} {count}" for code, count in sorted(Counter(node.codes).items()))


@command("noverify")
def noverify(call: Call) -> Answer:
    now = current_loop().time()
    found = sorted((node.name, node.unverified_until - now) for node in call.world.nodes.values())
    return ended(f"{name} {int(left)}" for name, left in found if left > 0)


@command("reproxy_state")
def reproxy_state(call: Call) -> Answer:
    world = call.world
    lines: list[str] = [] if world.url_connections is None else world.url_connections.describe()
    lines.append(f"SERVER max_reproxy_connections = {world.max_reproxy_connections}")
    of = world.max_reproxy_connections_of
    lines += [f"SERVER max_reproxy_connections({name}) = {of[name]}" for name in sorted(of)]
    return ended(lines)


# -- the process


@command("proc")
def proc(call: Call) -> Answer:
    world = call.world
    usage = resource.getrusage(resource.RUSAGE_SELF)
    before, world.last_proc = world.last_proc, (usage.ru_utime, usage.ru_stime, world.requests)
    return ended(
        [
            f"time: {int(time.time())}",
            f"pid: {os.getpid()}",
            f"utime: {usage.ru_utime:.6f} (+{usage.ru_utime - before[0]:.6f})",
            f"stime: {usage.ru_stime:.6f} (+{usage.ru_stime - before[1]:.6f})",
            f"reqs: {world.requests} (+{world.requests - before[2]})",
        ]
    )


@command("uptime", "version")
def uptime(call: Call) -> Answer:
    started = int(call.world.started)
    return ended([f"starttime {started}", f"uptime {int(time.time()) - started}", f"version {VERSION}"])


@command("fd")
def descriptors(call: Call) -> Answer:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    folder = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"
    return ended([f"max {most}", f"cur {len(os.listdir(folder))}"])


@command("mime", pattern=r"mime(?:\s+(\w+)(?:\s+(\w+))?(?:\s+(\S+))?)?")
def mime(call: Call, verb: str | None, extension: str | None, kind: str | None) -> Answer:
    table = call.world.mime
    if verb in (None, "list"):
        return ended(f"{name} {table[name]}" for name in sorted(table))
    if verb == "set":
        if not extension or not kind:
            raise CommandError("Usage: set <ext> <mime>")
        table[extension] = kind
        return [f"{extension} set to {kind}."]
    if verb == "remove":
        if extension not in table:
            raise CommandError(f"{extension or ''} not a defined extension.")
        del table[extension]
        return [f"{extension} removed."]
    raise CommandError("Usage: list, remove <ext>, set <ext> <mime>")


@command("help")
def help_(call: Call) -> Answer:
    return ended(sorted([*COMMANDS, *call.world.commands]))


@command("xs", pattern=r"xs(?:\s+(\w+)\s+(\w+))?")
def xs(call: Call, verb: str | None, module: str | None) -> Answer:
    """The original's faster parser, which configurations switch on. There is none to be switched here."""
    if verb is None:
        return ended(["XS module status:", "", "   No modules available.", ""])
    if module != "headers":
        raise CommandError("Known XS modules: headers.")
    if verb not in ("enable", "disable"):
        raise CommandError("Usage: xs [ <enable|disable> <module> ]")
    return None if verb == "enable" else ["Module disabled."]


@command("prof", pattern=r"prof\w*\s+(on|off|data)")
def prof(call: Call, verb: str) -> Answer:
    if verb == "data":
        data = Socket.profiling_data()
        return ended(
            f"{key} {utime:.5f} {stime:.5f} {calls} {utime / calls:.7f} {stime / calls:.7f}"
            for key, (utime, stime, calls) in sorted(data.items())
        )
    if verb == "on":
        Socket.enable_profiling()
    else:
        Socket.disable_profiling()
    return None


@command("obj")
def objects(call: Call) -> Answer:
    found = Counter(type(sock).__name__ for sock in _sockets().values())
    return ended(f"{name} = {found[name]}" for name in sorted(found))


@command("shutdown", pattern=r"shutdown(\s?graceful)?\s?(\d{1,9})?")
def shutdown(call: Call, graceful: str | None, seconds: str | None) -> Answer:
    call.world.stop(0.0 if not graceful else float(seconds) if seconds else None)
    return None if graceful else []
