"""Commands: how they are found and answered, and those of which configurations are made.

A command is a function with a pattern for its line; it is called with a `Call` and what the groups of the pattern have
found, and answers lines, or None for `OK`. What goes wrong is a CommandError. All of them may park. What does not
belong here: commands that only list (console), and those of plugins, which are in `World.commands`.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import resource
import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, cast

from perlbal.hooks import Plugin
from perlbal.language import CommandError, Line, match, parse_line, without_arguments
from perlbal.services import Service, World

Answer = Iterable[str] | None
Handler = Callable[..., Answer]
Out = Callable[[str], object]

COMMANDS: dict[str, Handler] = {}
END, LF = ".", "\n"


@dataclass
class Context:
    """What a file, or a connection, remembers from one command to the next."""

    name: str = ""  # the service or pool that was last created or used
    verbose: bool = False


@dataclass
class Call:
    """One command that is being executed."""

    world: World
    context: Context
    line: Line
    touched: list[Service] = field(default_factory=list)  # whose configuration this line is a part of

    def named(self, name: str | None, problem: str = "omitted service name not implied from context") -> str:
        """The name that was given, or that of the context. Raises CommandError."""
        if not (name or self.context.name):
            raise CommandError(problem)
        return name or self.context.name

    def service(self, name: str | None, problem: str, role: str = "") -> Service:
        """The service that the line is about, which remembers the line. Raises CommandError with the problem."""
        found = self.world.services.get(self.named(name))
        if found is None or (role and found.role_name != role):
            raise CommandError(problem.format(name or self.context.name))
        self.touched.append(found)
        return found

    def service_in_use(self) -> Service:
        """The service of the context, for commands that name none; it remembers the line. Raises CommandError."""
        name = self.named(None, "No service name in context from CREATE SERVICE <name> or USE <service_name>")
        return self.service(name, "Non-existent service '{}'")

    def match(self, pattern: str, usage: str = "") -> tuple[str | None, ...]:
        """The groups of a pattern in the line, for commands of plugins. Raises CommandError with the usage."""
        return match(self.line, re.compile(pattern, re.ASCII), usage)


def command(*words: str, pattern: str = "", usage: str = "") -> Callable[[Handler], Handler]:
    """Make a function the command of these words; without a pattern, one that takes no arguments."""
    compiled = re.compile(pattern, re.ASCII)

    def decorate(handler: Handler) -> Handler:
        def checked(call: Call) -> Answer:
            if not pattern:
                without_arguments(call.line)
                return handler(call)
            return handler(call, *match(call.line, compiled, usage))

        COMMANDS.update(dict.fromkeys(words, checked))
        return handler

    return decorate


def execute(world: World, context: Context, text: str, out: Out) -> bool:
    """Execute a line, with its answer to `out`, a line at a time. Whether it has succeeded."""
    try:
        line = parse_line(text)
        if line is None:
            return True
        call = Call(world, context, line)
        handler = COMMANDS.get(line.word) or world.commands.get(line.word)
        if handler is None:
            raise CommandError(f"unknown command: {line.word}")
        answer = handler(call)
        for answered in [] if answer is None else answer:
            out(answered)
    except CommandError as error:
        for part in f"ERROR: {error}".split("\n"):
            out(part)
        return False
    except Exception as error:
        world.log("crit", traceback.format_exc())
        out(f"ERROR: {str(error).partition(LF)[0] or type(error).__name__}")
        return False
    for service in call.touched:
        service.lines.append(line.original)
    if answer is None and context.verbose:
        out("OK")
    return True


def ended(lines: Iterable[str]) -> list[str]:
    """A listing, with the line that ends it."""
    return [*lines, END]


# -- services and pools


@command("create", pattern=r"create (service|pool) (\w+)", usage="usage: CREATE {service|pool} <name>")
def create(call: Call, kind: str, name: str) -> None:
    (call.world.create_service if kind == "service" else call.world.create_pool)(name)
    call.context.name = name


@command("use", pattern=r"use (\w+)", usage="usage: USE <service_or_pool_name>")
def use(call: Call, name: str) -> None:
    if name not in call.world.services and name not in call.world.pools:
        raise CommandError(f"Non-existent pool or service '{name}'")
    call.context.name = name


@command("set", pattern=r"set (?:(\w+)[. ])?([\w.]+) ?= ?(.+)", usage="usage: SET [<service>] <param> = <value>")
def set_parameter(call: Call, name: str | None, key: str, value: str) -> None:
    name = call.named(name, "omitted service/pool name not implied from context")
    if name in call.world.services:
        call.world.services[name].set(key, value)
    elif name in call.world.pools:
        call.world.pools[name].set(key, value)
    else:
        raise CommandError(f"service/pool '{name}' does not exist")


@command("enable", "disable", pattern=r"(enable|disable) (\w+)", usage="Usage: {ENABLE|DISABLE} <service>")
def enable(call: Call, verb: str, name: str) -> None:
    service = call.world.services.get(name)
    if service is None:
        raise CommandError(f"service '{name}' does not exist")
    if verb == "enable":
        service.enable()
    elif service.enabled and service.role_name == "management":
        raise CommandError("can't disable management service")
    else:
        service.disable()


@command("pool", pattern=r"pool (\w+) (\w+) (\S+)")
def pool(call: Call, first: str, second: str, node: str) -> None:
    name, verb = (first, second) if second in ("add", "remove") else (second, first)
    if verb not in ("add", "remove"):
        raise CommandError("Invalid command:  must be 'add' or 'remove'")
    found = call.world.pools.get(name)
    if found is None:
        raise CommandError(f"Pool '{name}' not found")
    if node.startswith("unix:"):
        node = "unix:" + call.line.original.split(" ")[3][5:]  # in the letter case that it has
    try:
        (found.add if verb == "add" else found.remove)(node)
    except ValueError:
        raise CommandError("Invalid syntax to 'pool' command") from None


@command(
    "header",
    pattern=r"header\s+(\w+)\s+(insert|remove)\s+(.+?)(?:\s*:\s*(.+))?",
    usage="Usage: HEADER <service> {INSERT|REMOVE} <header>[: <value>]",
)
def header(call: Call, name: str, verb: str, key: str, value: str | None) -> None:
    service = call.service(name, "service '{}' does not exist")
    if verb == "remove":
        service.removed_headers.append(key)
    elif value:
        service.inserted_headers.append((key, value))
    else:
        raise CommandError("no value provided")


@command("default", pattern=r"default (\w+) ?= ?(.+)", usage="usage: DEFAULT <param> = <value>")
def default(call: Call, key: str, value: str) -> None:
    call.world.defaults[key] = value


# -- plugins


def find_plugin(name: str, again: bool = False) -> Plugin[Any]:
    """A new plugin, by its name in lower case; `again` reads its module anew. Raises CommandError."""
    module_name = f"perlbal.plugins.{name}"
    if importlib.util.find_spec(module_name) is None:
        raise CommandError(f"Can't find plugin '{name}'")
    try:
        module = importlib.reload(sys.modules[module_name]) if again else importlib.import_module(module_name)
        return cast(Plugin[Any], module.PLUGIN())
    except Exception as error:
        raise CommandError(f"Plugin '{name}' does not load: {error}") from error


@command("load", pattern=r"load (\w+)")
def load(call: Call, name: str) -> None:
    world = call.world
    if name not in world.plugins:
        plugin = find_plugin(name)
        plugin.load(world)
        world.plugins[name] = plugin


@command("unload", pattern=r"unload (\w+)")
def unload(call: Call, name: str) -> None:
    plugin = call.world.plugins.pop(name, None)
    if plugin is None:
        raise CommandError(f"Unknown/unloaded plugin '{name}'")
    for service in call.world.services.values():
        service.unregister(plugin)
    plugin.unload(call.world)


@command("reload", pattern=r"reload (\w+)")
def reload(call: Call, name: str) -> Answer:
    """A plugin is read again from its module; services keep it."""
    world = call.world
    if name == "config" and world.reload is not None:
        return world.reload()
    if name not in world.plugins:
        raise CommandError(f"Unknown/unloaded plugin '{name}'")
    users = [service for service in world.services.values() if world.plugins[name].name in service.registered]
    names = {service: list(service.registered) for service in users}
    unload(call, name)
    plugin = world.plugins[name] = find_plugin(name, again=True)
    plugin.load(world)
    for service in users:
        service.set("plugins", ", ".join(names[service]))
    return None


# -- the process


@command("verbose", pattern=r"verbose (on|off)", usage="usage: VERBOSE {on|off}")
def verbose(call: Call, word: str) -> None:
    call.context.verbose = word == "on"


@command("server", pattern=r"server (\S+) ?= ?(.+)")
def server(call: Call, key: str, value: str) -> None:
    world = call.world
    if of := re.fullmatch(r"max_reproxy_connections\((.+)\)", key):
        world.max_reproxy_connections_of[of[1]] = _number(value)
        return
    match key:
        case "max_reproxy_connections":
            world.max_reproxy_connections = _number(value)
        case "max_connections":
            _limit_descriptors(world, _number(value))
        case "nice_level":
            _renice(world, _number(value))
        case "aio_mode" if value in ("none", "ioaio"):
            world.aio_mode = value
        case "aio_mode":
            raise CommandError("Linux::AIO no longer supported" if value == "linux" else "Unknown AIO mode")
        case "aio_threads":
            world.aio_threads = max(1, _number(value))
        case "pidfile" if world.running:
            raise CommandError("pidfile must be configured at startup, before Perlbal::run is called")
        case "pidfile":
            world.pidfile = value
        case "track_obj" | "crash_backtrace":  # of the Perl process
            if value not in ("0", "1"):
                raise CommandError("Expected 1 or 0")
        case _:
            raise CommandError(f"unknown server option '{key}'")


def _number(value: str) -> int:
    if not re.fullmatch(r"-?\d{1,18}", value, re.ASCII):
        raise CommandError("Expected numeric parameter")
    return int(value)


def _limit_descriptors(world: World, number: int) -> None:
    if not world.dry:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (number, number))
        except (OSError, ValueError):
            root = os.geteuid() == 0
            problem = "Unable to set limit." if root else "Need to be root to increase max connections."
            raise CommandError(problem) from None


def _renice(world: World, number: int) -> None:
    if not world.dry:
        try:
            os.nice(number)
        except OSError as error:
            raise CommandError(f"Unable to renice: {error.strerror}") from None
