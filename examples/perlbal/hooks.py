"""Hooks and setters: where plugins have a say in what a service does.

A hook answers something true where it has taken over. Both belong to a plugin, by whose name they are forgotten. What
does not belong here: which hooks there are, which is up to who runs them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Hook = Callable[..., object]


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
