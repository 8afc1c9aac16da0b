"""Plugins, and the hooks and setters by which they have a say in what a service does.

A hook answers something true where it has taken over. Both belong to a plugin, by whose name they are forgotten. What
does not belong here: which hooks there are, which is up to who runs them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from perlbal.kinds import Parameter

if TYPE_CHECKING:
    from perlbal.services import Service, World  # which are above this module

Hook = Callable[..., object]
Command = Callable[..., Iterable[str] | None]
State = TypeVar("State")


class Hooked:
    """What plugins have added."""

    def __init__(self) -> None:
        self.hooks: dict[str, list[tuple[str, Hook]]] = {}
        self.setters: dict[str, Callable[[str], object]] = {}

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

    def forget(self, plugin: str) -> None:
        """Drop the hooks and the setters of a plugin. What has none left is as if it had never had any."""
        kept = {name: [hook for hook in hooks if hook[0] != plugin] for name, hooks in self.hooks.items()}
        self.hooks = {name: hooks for name, hooks in kept.items() if hooks}
        prefix = f"{plugin.lower()}."
        self.setters = {key: setter for key, setter in self.setters.items() if not key.startswith(prefix)}


class Plugin(Generic[State]):
    """The base of plugins. A module of `plugins` has its class in `PLUGIN`."""

    tunables: ClassVar[Mapping[str, Parameter[Any]]] = {}

    def __init__(self) -> None:
        self.states: dict[Service, State] = {}  # what it keeps of each service

    @property
    def name(self) -> str:
        return type(self).__name__

    def commands(self) -> dict[str, Command]:
        """What it adds to the commands, by their words."""
        return {}

    def load(self, world: World) -> None:
        world.commands |= self.commands()
        for name, row in self.tunables.items():
            world.add_tunable(name, row)

    def unload(self, world: World) -> None:
        """UNLOAD. Services have lost it already."""
        for word in self.commands():
            del world.commands[word]
        for name in self.tunables:
            world.tunables.pop(name, None)

    def register(self, service: Service) -> None:
        """SET plugins: add hooks and setters to a service."""

    def unregister(self, service: Service) -> None:
        """Forget what it keeps of a service; hooks and setters go by themselves."""
        self.states.pop(service, None)

    def dump(self, service: Service) -> list[str]:
        """The lines of `dumpconfig`."""
        return []
