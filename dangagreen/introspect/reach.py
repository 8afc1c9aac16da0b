"""Whether any code but that of some parked tasks can reach what they wait for.

Rules: references are counted, as the garbage collector does: those that the tasks themselves hold, in their frames, in
their functions and arguments, and in what these refer to, are compared with all that there are. One that is not found
is held by other code, and then the answer is yes: so a no is certain, and a yes is not. Nothing is kept, and nothing of
the program's is called. What does not belong here: which tasks are looked at.
"""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Container, Iterable, Iterator
from functools import partial
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE, CO_GENERATOR, CO_OPTIMIZED
from itertools import repeat
from types import (
    AsyncGeneratorType,
    CodeType,
    CoroutineType,
    FrameType,
    FunctionType,
    GeneratorType,
    MethodType,
    ModuleType,
)
from typing import Any

from dangagreen.builds import is_compiled
from dangagreen.frames import is_ours
from dangagreen.green import parking
from dangagreen.green.groups import TaskGroup
from dangagreen.green.stacks import frames
from dangagreen.green.tasks import Task
from dangagreen.green.waiters import Waiter, WaitKind
from dangagreen.loop.loop import Loop, current_loop
from dangagreen.places import unwrapped
from dangagreen.sync.channels import Future
from dangagreen.sync.handoff import Handoff
from dangagreen.sync.wait_queue import WaitQueue

_OBJECTS = 2000  # that are looked at, at most
_LARGE = 1000  # entries of a dict that is not looked into
_OURS = 2  # references to an object while its references are counted: that of the list, and that of the call
# What a generator refers to is in its frame, which is among those of the task while it runs there.
_NOT_FOLLOWED = (Waiter, Loop, type, ModuleType, CodeType, FrameType, GeneratorType, CoroutineType, AsyncGeneratorType)
PARKED_FOR = WaitQueue, Handoff, Future  # all waits for these are made by `park_for`
_KNOWN = (3, 11), (3, 12), (3, 13), (3, 14)
# Since Python 3.14 what a function calls, and its arguments, may be references that are not counted, if they are in
# variables of the caller, which keep the objects: such an argument may be one reference or none.
_BORROWS = sys.version_info >= (3, 14)
# Others count otherwise, as those do without a global lock; and what C has borrowed is not known.
_ALIKE = sys.implementation.name == "cpython" and sys.version_info[:2] in _KNOWN and "t" not in sys.abiflags
COUNTS = _ALIKE and not (_BORROWS and is_compiled(parking))
_SUSPENDED = CO_GENERATOR | CO_COROUTINE | CO_ASYNC_GENERATOR  # these keep references of their own


def _held_in_c() -> int:
    """How many references to what a task waits for `park_for` holds, where it is compiled to C and has no frame."""
    if not is_compiled(parking):
        return 0
    subject: list[object] = []
    counts: list[int] = []
    waiter = Waiter(current_loop())
    waiter.set_hub(lambda: counts.append(sys.getrefcount(subject)))
    parking.park_for(waiter, WaitKind("nothing", lambda _subject, _waiter: None), subject, None)
    return counts[0] - 3  # that of the cell, of the waiter, and of the call that counts


def lost(tasks: Iterable[Waiter], observed: Container[Handoff[Any]] = ()) -> list[Waiter]:
    """Return the parked tasks that wait for an object of which it is certain that only the tasks given can reach it.

    Tasks that wait for another one, or for their own group, to end hold references as well. An object that has never
    had a name, as in `Event().wait()`, is waited for on purpose. `observed`: queues to each of which there is a weak
    reference that does not count.
    """
    stuck = dict.fromkeys(tasks if COUNTS else ())
    while stuck:
        references = _References(list(stuck), observed)
        left = [task for task in stuck if _is_stuck(task, stuck, references)]
        if len(left) == len(stuck):
            break
        stuck = dict.fromkeys(left)  # those that can be woken hold references as well
    waiting = [task for task in stuck if not isinstance(task.subject, (Task, TaskGroup))]
    return [task for task in waiting if not references.are_nameless(id(task.subject))]


def _is_stuck(task: Waiter, stuck: Container[Waiter], references: _References) -> bool:
    """Whether a task waits for one of these, or for what only these can reach."""
    subject = task.subject
    if isinstance(subject, Task):
        return subject in stuck
    if isinstance(subject, TaskGroup):
        return any(one in stuck for one in subject.tasks)
    return not references.are_held_elsewhere(id(subject))


class _References:
    """The objects that some tasks refer to, and how many references to each are found there."""

    def __init__(self, tasks: list[Waiter], observed: Container[Handoff[Any]]) -> None:
        in_c = _held_in_c()
        self._objects: list[Any] = []
        self._numbers: dict[int, int] = {}  # id of an object to its number
        self._found: list[int] = []  # by number: references that were found
        self._to: list[list[int]] = []  # by number: the numbers of what it refers to
        self._nameless: set[int] = set()  # ids of what is found in none of the program's variables, nor in its objects
        for task in tasks:
            for held in _held_by(task, in_c):
                self._add(held)
            self._nameless.add(id(task.subject))
        held = None
        self._find_names(tasks)
        self._follow()
        self._elsewhere = self._held_elsewhere(observed)

    def are_held_elsewhere(self, identity: int) -> bool:
        """Whether other code can reach the object of this id."""
        number = self._numbers.get(identity)
        return number is None or number in self._elsewhere

    def are_nameless(self, identity: int) -> bool:
        """Whether the object of this id is one of those that tasks wait for, and never had a name."""
        return identity in self._nameless

    def _find_names(self, tasks: list[Waiter]) -> None:
        """Note which of what tasks wait for is in a variable of the program's."""
        for task in tasks:
            for frame in frames(task):
                if not is_ours(frame):
                    self._nameless.difference_update(map(id, _locals(frame)))

    def _add(self, held: Any) -> int | None:
        """Note one reference to an object. Returns its number; None if it is of no interest."""
        number = self._numbers.get(id(held))
        if number is None:
            if not _is_followed(held) or len(self._objects) >= _OBJECTS:
                return None
            number = self._numbers[id(held)] = len(self._objects)
            self._objects.append(held)
            self._found.append(0)
            self._to.append([])
        self._found[number] += 1
        return number

    def _follow(self) -> None:
        """Note what the objects refer to, and so on."""
        for number, one in enumerate(self._objects):  # which grows meanwhile
            for held in gc.get_referents(one):
                if (other := self._add(held)) is not None:
                    self._to[number].append(other)
                    if type(one) is not MethodType:
                        self._nameless.discard(id(held))

    def _held_elsewhere(self, observed: Container[Handoff[Any]]) -> set[int]:
        """The numbers of the objects to which there are more references than were found, and of what they refer to."""
        objects, elsewhere = self._objects, set()
        for number in range(len(objects)):
            weak = weakref.getweakrefcount(objects[number])
            if weak == 1 and isinstance(objects[number], Handoff) and objects[number] in observed:
                weak = 0
            if weak or sys.getrefcount(objects[number]) - _OURS != self._found[number]:
                elsewhere.add(number)
        more = list(elsewhere)
        while more:
            for other in self._to[more.pop()]:
                if other not in elsewhere:
                    elsewhere.add(other)
                    more.append(other)
        objects.clear()
        return elsewhere


def _is_followed(held: Any) -> bool:
    if not gc.is_tracked(held) or issubclass(type(held), _NOT_FOLLOWED):
        return False
    return not (type(held) is dict and (len(held) > _LARGE or "__builtins__" in held))


def _held_by(task: Waiter, in_c: int) -> Iterator[Any]:
    """What a parked task refers to, once for each reference: by its subject, its function and its frames."""
    yield task.subject
    if isinstance(task.subject, PARKED_FOR):
        yield from repeat(task.subject, in_c)
    call = task.function()
    if call is None:
        return
    yield call
    if type(call) is partial and not _BORROWS:
        yield call  # the call that is under way refers to it as well
    function = unwrapped(call)
    stack = list(frames(task))
    for frame, caller in zip(stack, [*stack[1:], None], strict=True):
        code = frame.f_code
        yield from _counted(frame, caller)
        if type(function) is FunctionType and function.__code__ is code:
            if not (_BORROWS and caller is not None and any(one is function for one in _locals(caller))):
                yield function  # a frame refers to the function that it runs, and to the cells of that
            yield from function.__closure__ or ()
            function = None


def _counted(frame: FrameType, caller: FrameType | None) -> list[Any]:
    """The values of a frame's local variables, as `_locals`: those that are certainly references of their own."""
    code = frame.f_code
    if not _BORROWS or caller is None or code.co_flags & _SUSPENDED:
        return _locals(frame)
    theirs = set(map(id, _locals(caller)))
    arguments = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    borrowed = {name for name in arguments if id(frame.f_locals.get(name)) in theirs}
    return _locals(frame, borrowed)


def _locals(frame: FrameType, but: Iterable[str] = ()) -> list[Any]:
    """The values of a frame's local variables, without those in cells, which are another object's, and some others."""
    code = frame.f_code
    if not code.co_flags & CO_OPTIMIZED:
        return []
    left_out = {*code.co_cellvars, *code.co_freevars, *but}
    variables = frame.f_locals
    values = [value for name, value in variables.items() if name not in left_out]
    if type(variables) is dict:  # before Python 3.13 a copy, which the frame would keep
        variables.clear()
    return values
