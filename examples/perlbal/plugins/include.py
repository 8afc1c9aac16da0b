"""Include: a configuration made of several files."""

from __future__ import annotations

import glob
import re

from perlbal.commands import Call
from perlbal.hooks import Command, Plugin
from perlbal.language import CommandError
from perlbal.loading import load_file


class Include(Plugin[None]):
    def commands(self) -> dict[str, Command]:
        return {"include": self.include}

    def include(self, call: Call) -> list[str] | None:
        (patterns,) = call.match(r"include ?= ?(.+)", "usage: INCLUDE = <config files>")
        answers: list[str] = []
        for path in [path for pattern in str(patterns).split(" ") for path in _files(pattern)]:
            if not load_file(call.world, path, answers.append, all_errors=call.world.dry):
                raise CommandError("\n".join(answers))
        return answers or None


def _files(pattern: str) -> list[str]:
    """What a pattern stands for; one without a wildcard for itself, whether it is there or not."""
    return sorted(glob.glob(pattern)) if re.search(r"[*?\[]", pattern) else [pattern]


PLUGIN = Include
