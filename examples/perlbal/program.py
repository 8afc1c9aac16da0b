"""The program: its command line, its start and its end."""

from __future__ import annotations

import getopt
import logging
import logging.handlers
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from socket import socket

import perlbal.console
import perlbal.dumping  # they register their commands
from daemon import daemonize
from dangagreen import Address, Event, listen_fds, run, signals, spawn
from output import complain, tell
from perlbal.commands import Context, execute
from perlbal.ending import drain_all
from perlbal.language import CommandError
from perlbal.loading import load_file
from perlbal.management import Management
from perlbal.metrics import exposition
from perlbal.proxy_role import ProxyRole
from perlbal.reloading import reload
from perlbal.selector import Selector
from perlbal.services import World
from perlbal.web_role import WebRole

DEFAULT_FILE = "/etc/perlbal/perlbal.conf"
USAGE = f"""\
Usage: perlbal [OPTS]
  --help           This usage info
  --version        Print perlbal release version
  --config=[file]  Specify Perlbal config file
                   (default: {DEFAULT_FILE})
  --daemon         Daemonize
  --check          Check the config file, tell all of its errors, and start nothing
"""
GRACE = 30.0  # seconds that running requests have after SIGTERM
REPORT = ("states", "queues")


def make_world() -> World:
    """A world with all the roles, and nothing in it."""
    world = World()
    world.pages["/metrics"] = partial(exposition, world)
    world.roles |= {role.name: role for role in (Management, ProxyRole, Selector, WebRole)}
    return world


def main() -> int:
    try:
        pairs, rest = getopt.getopt(abbreviated(sys.argv[1:]), "", ["config=", "daemon", "help", "version", "check"])
    except getopt.GetoptError as error:
        complain(f"{error}\n{USAGE}", end="")
        return 1
    options = dict(pairs)
    path = options.get("--config", DEFAULT_FILE if os.path.exists(DEFAULT_FILE) else "")
    if "--help" in options or rest:
        complain(USAGE, end="")
        return bool(rest)
    if "--version" in options:
        tell(f"Perlbal version {perlbal.console.VERSION}")
        return 0
    if "--check" in options:
        return check(path)
    daemon = daemonize(umask=0) if "--daemon" in options else None
    return run(serve, path, daemon)


def abbreviated(words: list[str]) -> list[str]:
    """The words of a command line as Perl's Getopt::Long takes them: one dash is as good as two."""
    double = (f"-{word}" if word[:1] == "-" and word[1:2].isalpha() else word for word in words)
    return ["--config" + word[3:] if word.partition("=")[0] == "--c" else word for word in double]


def check(path: str) -> int:
    """Load a file into a world in which nothing listens, and tell all of its errors."""
    world = make_world()
    world.dry = True
    return 0 if load(world, path, all_errors=True) else 1


def load(world: World, path: str, all_errors: bool = False) -> bool:
    """Load a file, and tell its errors. Whether there were none."""
    try:
        return load_file(world, path, tell, all_errors=all_errors)
    except CommandError as error:
        complain(str(error))
        return False


def serve(path: str, daemon: Callable[[], None] | None) -> int:
    """Parks until the program is to end. Returns its exit status."""
    world, ended = make_world(), Event()
    world.stop = lambda grace: spawn(end, world, ended, grace)
    absolute = os.path.abspath(path)  # a daemon is elsewhere later
    world.reload = lambda: reload(world, make_world(), absolute)
    with signals(signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP) as came:  # those of who sees it listen
        if not start(world, path):
            return 1
        with pidfile(world):
            if daemon is None:
                tell("Running.")
            else:
                daemon()
            log_to(syslog=daemon is not None)
            world.running = True
            world.log("info", "beginning run")
            listening = spawn(obey, world, came)
            ended.wait()
            listening.cancel()
    world.log("info", "ending run")
    return 0


def start(world: World, path: str) -> bool:
    """Load the configuration, and listen. Whether there is something to do."""
    world.inherited = {place(sock): sock for socks in listen_fds().values() for sock in socks}
    if path and not load(world, path):
        complain("Error starting up.")
        return False
    for address, sock in world.inherited.items():
        complain(f"WARNING: no service listens on {address!r}, whose socket was passed to this process")
        sock.close()
    world.inherited.clear()
    if not any(service.listener for service in world.services.values()):
        complain("No services or management port configured.  Nothing to do.  Stopping.")
        return False
    return True


def place(sock: socket) -> Address:
    """Where a socket listens, as a service would say it."""
    name = sock.getsockname()
    return name[:2] if isinstance(name, tuple) else str(name)


def obey(world: World, came: signals) -> None:
    """Parks for ever: does what signals ask for. A second SIGTERM, and Ctrl-C, end the program at once."""
    terms = 0
    for signum in came:
        if signum == signal.SIGUSR1:
            report(world)
        elif signum == signal.SIGHUP:
            if world.reload is not None:
                execute(world, Context(), "reload config", lambda line: world.log("info", line))
        else:
            terms += 1
            world.stop(GRACE if signum == signal.SIGTERM and terms == 1 else 0.0)


def report(world: World) -> None:
    for text in (*(f"show service {name}" for name in sorted(world.services)), *REPORT):
        execute(world, Context(), text, lambda line: world.log("info", line))


def end(world: World, ended: Event, grace: float | None) -> None:
    """Parks until a graceful shutdown is over; 0 is at once."""
    if grace != 0.0:
        drain_all(world, grace)
    ended.set()


# -- the process


@contextmanager
def pidfile(world: World) -> Iterator[None]:
    """The file of `SERVER pidfile` is there meanwhile."""
    path = None if world.pidfile is None else os.path.abspath(world.pidfile)
    if path is not None:
        try:
            with open(path, "w") as file:
                file.write(f"{os.getpid()}\n")
        except OSError as error:
            world.log("info", f"couldn't create pidfile '{path}': {error.strerror}")
            path = None
    try:
        yield
    finally:
        if path is not None:
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass


def log_to(syslog: bool) -> None:
    """Log lines go to standard output, or to syslog."""
    handler: logging.Handler = logging.StreamHandler(sys.stdout)
    if syslog:
        handler = logging.handlers.SysLogHandler("/dev/log", logging.handlers.SysLogHandler.LOG_DAEMON)
        handler.ident = f"perlbal[{os.getpid()}]: "
    root = logging.getLogger()
    root.handlers = [handler]
    logging.getLogger("perlbal").setLevel(logging.INFO)
