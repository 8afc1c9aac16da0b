"""Settings of a connection: class attributes that may be assigned for one object as well.

Rules: a value is checked when it is assigned, that of a class when the class is made; values of single objects are kept
in the loop, so that they cost nothing if there are none. What does not belong here: what a setting does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from dangagreen import checks

Value = TypeVar("Value")
NOTED = ("_noted", "_usual_water", "_usual_line_limit", "_limited")  # in each class, of the settings that it has
_names: dict[str, None] = {}  # of all settings


class Setting(Generic[Value]):
    """A descriptor: a class attribute that may be assigned for an object with `__slots__` too."""

    __slots__ = {
        "check": "A function of (name, value) that returns the value to keep, or raises.",
        "name": "The name of the attribute.",
        "value": "The value of the class.",
    }

    def __init__(self, value: Value, check: Callable[[str, Any], Value]) -> None:
        self.value = value
        self.check = check

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name
        _names[name] = None

    def __get__(self, instance: Any, owner: type | None = None) -> Value:
        if instance is None or not (own := instance.loop.own_settings):
            return self.value
        return own.get(id(instance), {}).get(self.name, self.value)  # type: ignore[no-any-return]

    def __set__(self, instance: Any, value: Value) -> None:
        value = self.check(f"{type(instance).__name__}.{self.name}", value)
        loop = getattr(instance, "loop", None)
        if loop is None:
            raise AttributeError(f"{self.name} is set before the socket is made: call super().__init__(sock) first")
        loop.check_thread(f"assigning {self.name}")
        if not instance.closed:
            instance._check_water(**{self.name: value})
            loop.own_settings.setdefault(id(instance), {})[self.name] = value
            instance._was_set(self.name)


def seconds(name: str, value: Any) -> float:
    """A time in seconds. Raises ValueError for a negative one or NaN, TypeError for what is no number."""
    number = value if value != value else checks.seconds(name, value)
    if not number >= 0:
        raise ValueError(f"{name} is {number}: it is a time in seconds, or None")
    return number


def seconds_or_none(name: str, value: Any) -> float | None:
    """A time in seconds, or None. Raises like `seconds`."""
    return None if value is None else seconds(name, value)


def size(name: str, value: Any) -> int:
    """A number of bytes. Raises ValueError for a negative one, TypeError for what is no int."""
    return checks.count(name, value)


def size_or_none(name: str, value: Any) -> int | None:
    """A number of bytes, or None. Raises like `size`."""
    return None if value is None else size(name, value)


def adopt_settings(cls: Any, *, fixed: bool) -> None:
    """Make settings of plain values that a class, or a mixin of it, has by their names; also of later assignments.

    Raises TypeError or ValueError for a value that makes no sense. `fixed`: note the values in the class, where its
    objects look them up from now on; otherwise each object looks for later assignments, which takes ten times as long.
    """
    mine = vars(cls)
    if (not fixed or mine.get("_limited") is not None) and mine.get("_noted") == _values(cls):  # as the last time
        return
    found: dict[str, tuple[Any, Any]] = {}
    for base in cls.__mro__:  # the first one that has a name decides, whatever it is
        for name, value in vars(base).items():
            if name not in found:
                found[name] = base, value
            elif isinstance(value, Setting) and not isinstance(found[name][1], Setting):
                owner, given = found[name]
                setting = Setting(value.check(f"{cls.__name__}.{name}", given), value.check)
                setting.name = name
                found[name] = owner, setting
                setattr(owner if hasattr(owner, "_check_order") else cls, name, setting)  # what is mixed in stays as is
    cls._check_order(cls.low_water, cls.high_water, cls.max_unsent)
    for name, value in notes(cls, fixed=fixed).items():
        if vars(cls).get(name, _names) != value:  # to set one that it has would only cost the interpreter its caches
            setattr(cls, name, value)


def notes(cls: Any, *, fixed: bool = False) -> dict[str, Any]:
    """The values of settings that are noted in a class: name to value."""
    limited = cls.idle_timeout is not None or cls.lifetime is not None if fixed else None
    water = cls.high_water, cls.low_water, cls.max_unsent
    return dict(zip(NOTED, (_values(cls), water, cls.line_limit, limited), strict=True))


def _values(cls: type) -> tuple[Any, ...]:
    return tuple([getattr(cls, name) for name in _names])
