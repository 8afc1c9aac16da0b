"""Include: a configuration made of several files."""

from __future__ import annotations

import glob
import re

from perlbal.commands import Call
from perlbal.language import CommandError
from perlbal.loading import load_file
from perlbal.services import Plugin, World


class Include(Plugin):
    name = "Include"

    def load(self, world: World) -> None:
        world.commands["include"] = self.include

    def unload(self, world: World) -> None:
        del world.commands["include"]

    def include(self, call: Call) -> list[str] | None:
        (patterns,) = call.match(r"include ?= ?(.+)", "usage: INCLUDE = <config files>")
        answers: list[str] = []
        for path in [path for pattern in str(patterns).split(" ") for path in _files(pattern)]:
            try:
                good = load_file(call.world, path, answers.append, all_errors=call.world.dry)
            except OSError as error:
                raise CommandError(f"Error opening config file ({path}): {error.strerror}") from None
            if not good:
                raise CommandError("\n".join(answers))
        return answers or None


def _files(pattern: str) -> list[str]:
    """What a pattern stands for; one without a wildcard for itself, whether it is there or not."""
    return sorted(glob.glob(pattern)) if re.search(r"[*?\[]", pattern) else [pattern]


PLUGIN = Include
