"""Loading a configuration from a file, whose errors are told with the line that they are in.

What does not belong here: what the commands do, and what becomes of a running world when its file has changed
(reloading).
"""

from __future__ import annotations

from functools import partial

from perlbal.commands import Context, Out, execute
from perlbal.language import CommandError
from perlbal.services import World


def load_file(world: World, path: str, out: Out, *, context: Context | None = None, all_errors: bool = False) -> bool:
    """Execute the commands of a file. Whether all of them have succeeded; `all_errors` goes on after the first failure.

    What commands answer goes to `out`, errors as `FILE:LINE: ERROR: …`. Raises CommandError if it cannot be read.
    """
    try:
        with open(path, encoding="latin-1") as file:
            lines = file.read().split("\n")
    except OSError as error:
        raise CommandError(f"Error opening config file ({path}): {error.strerror}") from None
    context = context or Context()
    good = True
    for number, line in enumerate(lines, 1):
        if not execute(world, context, line, partial(_told, out, f"{path}:{number}: ")):
            good = False
            if not all_errors:
                break
    return good


def _told(out: Out, place: str, answer: str) -> None:
    out(place + answer if answer.startswith("ERROR: ") else answer)
