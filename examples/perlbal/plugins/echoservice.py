"""EchoService: a role of its own, which sends back each line; `echo_delay` seconds later. Sequential style."""

from __future__ import annotations

from typing import Any, ClassVar

from dangagreen import Listener, Socket, serve, sleep
from perlbal.hooks import Plugin
from perlbal.kinds import integer
from perlbal.services import Role, World


class Echo(Role):
    name = "echo"

    def listen(self, address: Any) -> Listener:
        return serve(address, self.converse)

    def converse(self, sock: Socket) -> None:
        """Parks until the client has left."""
        for line in sock:
            if seconds := self.service.tuned("echo_delay"):
                sleep(seconds)
            sock.write_all(line)


class EchoService(Plugin[None]):
    tunables: ClassVar = {"echo_delay": integer("echo", "0", "Seconds before a line is sent back.")}

    def load(self, world: World) -> None:
        super().load(world)
        world.roles["echo"] = Echo

    def unload(self, world: World) -> None:
        super().unload(world)
        world.roles.pop("echo", None)


PLUGIN = EchoService
