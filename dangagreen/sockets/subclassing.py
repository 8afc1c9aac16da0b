"""Checks of subclasses of Socket, made once, when the class is made.

Rules: a name that Socket itself uses raises TypeError, since hiding it would break objects in silence; a name that
looks like a misspelt hook or setting gives a warning. What does not belong here: objects.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from types import FunctionType, MemberDescriptorType
from typing import Any

from dangagreen import checks
from dangagreen.sockets.settings import NOTED, Setting, adopt_settings, notes

_LETTERS = 2  # a name that differs from a hook or setting by so many letters is taken for a misspelling


class CheckedSubclasses:
    """A base of the public class: every subclass of that class is checked when it is made.

    It stands last among its bases, so that the classes before it, of which the public one is put together, are not.
    """

    __slots__ = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        public = next(owner for owner in cls.__mro__ if CheckedSubclasses in owner.__bases__)
        if public is not cls:
            check_subclass(cls, public)


def check_subclass(cls: type, base: type) -> None:
    """Raise TypeError, or ValueError for a setting, if a class is no valid subclass of `base`; warn of odd names."""
    for owner in cls.__mro__:
        if owner is cls or not (issubclass(owner, base) or owner in base.__mro__):  # once for each class
            for name, value in vars(owner).items():
                _check_name(cls, base, name, value)
                _tell_of_misspelt(cls, base, name)
    check_identity(cls)
    adopt_settings(cls, fixed=False)
    owner = next(owner for owner in cls.__mro__ if "__init__" in vars(owner))
    init = vars(owner)["__init__"]
    if isinstance(init, FunctionType) and "__init__" not in init.__code__.co_names:
        if owner is cls:
            cls.__init__ = _checked_init(cls, init)  # type: ignore[misc]
        elif not issubclass(owner, base) and owner not in base.__mro__:  # of a class that is mixed in
            cls.__init__ = _checked_init_of_another(cls, owner)  # type: ignore[misc]


def check_identity(cls: type) -> None:
    """Raise TypeError for a class with an `__eq__` or `__hash__`: dicts and sets would mix up equal connections."""
    if any(getattr(cls, name) is not getattr(object, name) for name in ("__eq__", "__hash__")):
        raise TypeError(
            f"{cls.__name__} has an __eq__ or a __hash__ of its own, and connections are told apart by their identity:"
            " leave them out, as @dataclass(eq=False) does"
        )


def _check_name(cls: type, base: type, name: str, value: object) -> None:
    ours = _find(base, name)
    if ours is None or (name.startswith("__") and name.endswith("__")):
        return
    owner, its = ours
    if name in NOTED and notes(cls)[name] == value:  # of a class that was made anew of this one, as decorators do it
        return
    slot = isinstance(value, MemberDescriptorType) and not name.startswith(("event_", "on_"))
    is_slot = name in vars(owner).get("__slots__", ())
    is_method = hasattr(its, "__code__")  # a function, compiled or not; a property is told by `__set__`
    is_property = hasattr(its, "__set__") and not is_slot and not isinstance(its, Setting)
    if name.startswith("_") or is_slot or (slot and (is_method or (is_property and name != "idle"))):
        raise TypeError(
            f"{cls.__name__} has a {name!r} of its own, which would take the place of {owner.__name__}.{name}, that"
            f" {base.__name__} needs: give it another name"
        )
    if is_property:
        if isinstance(value, FunctionType) or not (name == "idle" or hasattr(value, "__get__")):
            raise TypeError(f"{cls.__name__}.{name} is to be a property, and is {checks.shown(value)}")
    elif is_method:
        if not (callable(value) or hasattr(value, "__get__")):
            raise TypeError(f"{cls.__name__}.{name} is to be a method, and is {checks.shown(value)}")
        if (kind := checks.kind_not_run(getattr(value, "__func__", value))) is not None:
            raise TypeError(f"{cls.__name__}.{name} is {kind}, which would never run: write a plain def")


def _find(base: type, name: str) -> tuple[type, object] | None:
    """(class, value) of the name, in the first class of `base`'s MRO that has it; None if none has."""
    return next(((owner, vars(owner)[name]) for owner in base.__mro__[:-1] if name in vars(owner)), None)


def _tell_of_misspelt(cls: type, base: type, name: str) -> None:
    if name.startswith("_") or hasattr(base, name):
        return
    near = next((known for known in _expected(base) if _differ_little(name, known)), None)
    if near is not None or name.startswith("event_"):
        meant = f": was {near} meant?" if near is not None else ", and is called by nobody"
        warnings.warn(f"{cls.__name__}.{name} is no hook and no setting of {base.__name__}{meant}", stacklevel=4)


@functools.cache  # to look for them takes half a millisecond, and a class has many names
def _expected(base: type) -> list[str]:
    """The hooks and settings."""
    return [
        name
        for name in dir(base)
        if (name.startswith(("event_", "on_")) and name != "event_loop") or isinstance(_static(base, name), Setting)
    ]


def _static(base: type, name: str) -> object:
    found = _find(base, name)
    return found[1] if found is not None else None


def _differ_little(one: str, other: str) -> bool:
    """Whether one can be made of the other by two letters that are put in, left out or changed (Levenshtein)."""
    if abs(len(one) - len(other)) > _LETTERS or len(set(one) ^ set(other)) > 2 * _LETTERS:
        return False
    row = list(range(len(other) + 1))
    for number, letter in enumerate(one, 1):
        before, row = row, [number]
        for place, its in enumerate(other):
            row.append(min(before[place] + (letter != its), before[place + 1] + 1, row[place] + 1))
    return row[-1] <= _LETTERS


def _checked_init(cls: type, init: Callable[..., None]) -> Callable[..., None]:
    """Wrap an `__init__` that does not seem to call `super().__init__`: check afterwards whether it did."""

    @functools.wraps(init)
    def checked(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        check_initialised(self, cls)

    return checked


def _checked_init_of_another(cls: type, owner: type) -> Callable[..., None]:
    """An `__init__` for a class that inherits one from a mixin: calls that, and checks like `_checked_init`."""

    def checked(self: Any, *args: Any, **kwargs: Any) -> None:
        super(cls, self).__init__(*args, **kwargs)  # type: ignore[arg-type]
        check_initialised(self, owner)

    return checked


def check_initialised(sock: Any, cls: type) -> None:
    """Raise TypeError if the `__init__` of a socket's class has not called `super().__init__`."""
    if getattr(sock, "loop", None) is None:
        raise TypeError(f"{cls.__name__}.__init__ does not call super().__init__(sock), which makes a socket of it")
