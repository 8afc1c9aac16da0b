"""The observer of a connection's end: it reads the state of a socket off its slots, time and again, and holds what it
finds against the table of `dangagreen.sockets.states`.

Rules: a state is legal at each look; a transition has one of its causes, which is something that has happened since the
look before, or a call that is under way. What does not belong here: what happens to the socket.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import product
from types import CodeType
from typing import Any

from dangagreen.errors import CUT_OFF
from dangagreen.loop.handlers import UNREGISTERED
from dangagreen.loop.pollers import WRITE
from dangagreen.sockets import sock, states


class Seen:
    """What was met, how often: combinations, and transitions with their causes."""

    def __init__(self) -> None:
        self.combinations: Counter[tuple[str, ...]] = Counter()
        self.transitions: Counter[tuple[str, str, str, str]] = Counter()  # machine, from, to, cause

    def missing(self) -> list[tuple[str, ...]]:
        """What the table has, and nobody has met."""
        expected: list[tuple[str, ...]] = [one for row in states.LEGAL for one in product(*row)]
        expected += [
            (machine, *ends, cause)
            for machine, rows in states.TRANSITIONS.items()
            for ends, causes in rows.items()
            for cause in causes
        ]
        return [one for one in expected if not self.combinations[one] and not self.transitions[one]]  # type: ignore[index]


class Observer:
    """Reads the state of one socket off its slots, time and again, and compares what it finds with the table."""

    def __init__(self, seen: Seen) -> None:
        self.seen = seen
        self.sock: Any = None
        self.before: dict[str, str] = {}
        self.causes: list[str] = []  # what has happened since it last looked
        self.within: list[str] = []  # the calls that are under way, which never wait
        self.wrong: list[str] = []

    def look(self, place: str, at_rest: bool = False) -> None:
        if self.sock is None:
            return
        now, faults = states_of(self.sock, at_rest)
        combination = tuple(now.values())
        self.seen.combinations[combination] += 1
        if not is_legal(*combination):
            faults.append(f"{combination} is not legal")
        for machine, after in now.items():
            before = self.before.get(machine, after)
            if before != after:
                causes = states.TRANSITIONS[machine].get((before, after))
                met = [cause for cause in {*self.causes, *self.within} if cause in (causes or ())]
                for cause in met:
                    self.seen.transitions[machine, before, after, cause] += 1
                if causes is None:
                    faults.append(f"{machine}: {before} -> {after} is not in the table")
                elif not met and self.before:
                    faults.append(f"{machine}: {before} -> {after} is not caused by {causes}")
        self.wrong += [f"{place}, after {self.causes} in {self.within}: {fault}" for fault in faults]
        self.before = now
        self.causes = []

    @contextlib.contextmanager
    def during(self, cause: str) -> Iterator[None]:
        """What happens in the block is caused by this, too."""
        self.within.append(cause)
        try:
            yield
        finally:
            self.within.pop()


def states_of(sock: Any, at_rest: bool = False) -> tuple[dict[str, str], list[str]]:
    """The state of each machine, and what is wrong with the slots themselves."""
    found, faults = {}, []
    for machine in states.MACHINES:
        here = true_of(machine, sock)
        found[machine] = here[0] if here else "none"
        if len(here) != 1:
            faults.append(f"{machine}: {here or 'no state'} at once")
    for rules in ("rules", "at rest") if at_rest else ("rules",):
        here = true_of(rules, sock)
        faults += [f"not so: {rule}" for rule in CODE[rules][0] if rule not in here]
    return found, faults


def true_of(kind: str, sock: Any) -> list[str]:
    """The names of those expressions that are true of the socket now."""
    names, code = CODE[kind]
    return [name for name, holds in zip(names, eval(code, NAMES, {"s": sock}), strict=True) if holds]


def code_of(names: Iterable[str], expressions: Iterable[str]) -> tuple[list[str], CodeType]:
    return list(names), compile("".join(f"({one}), " for one in expressions), "states", "eval")


def is_legal(life: str, read: str, write: str) -> bool:
    return any(life in row.life and read in row.read and write in row.write for row in states.LEGAL)


NAMES = {**vars(states), "CUT_OFF": CUT_OFF, "_Stolen": sock._Stolen, "UNREGISTERED": UNREGISTERED, "WRITE": WRITE}
CODE = {
    **{machine: code_of(rows, (state.where for state in rows.values())) for machine, rows in states.MACHINES.items()},
    "rules": code_of(states.RULES, states.RULES),
    "at rest": code_of(states.AT_REST, states.AT_REST),
}
