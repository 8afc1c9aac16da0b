"""Copies of errors for who keeps them, and the clearing of frames."""

import copy
import errno
import traceback
import weakref

import pytest

from dangagreen.tracebacks import forget_locals, is_like, without_traceback


class Strict(Exception):
    """Its constructor takes something else than what it hands on, and counts."""

    made = 0

    def __init__(self, number, *, text):
        super().__init__(f"{number}: {text}")
        self.number = number
        Strict.made += 1


class Made(Exception):
    def __new__(cls, one, other):
        return super().__new__(cls, one)

    def __init__(self, one, other):
        super().__init__(one, other)


class Slotted(Exception):
    __slots__ = ("more",)


class Both(ValueError, OSError):
    pass


class Owner:
    def __repr__(self):
        return "the owner"


def slotted():
    error = Slotted("x")
    error.more = 5
    return error


def noted(error):
    error.more = 5
    return error


ERRORS = [
    KeyError("a"),
    ConnectionResetError(104, "Connection reset by peer"),
    FileNotFoundError(2, "No such file", "name"),
    OSError(18, "Invalid link", "name", None, "other"),
    OSError(),
    OSError("some words"),
    BlockingIOError(11, "again", 7),
    TimeoutError(None, "no number"),
    noted(ConnectionResetError(104, "Connection reset by peer")),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"),
    SystemExit(3),
    Strict(7, text="seven"),
    Made(1, 2),
    Both("x"),
    slotted(),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_copy_is_equal_and_bare(error):
    made = Strict.made
    try:
        try:
            raise LookupError
        except LookupError as cause:
            raise error from cause
    except BaseException as raised:
        kept = without_traceback(raised)
    assert kept is not error
    assert type(kept) is type(error)
    assert (kept.args, str(kept), repr(kept)) == (error.args, str(error), repr(error))
    assert getattr(kept, "errno", None) == getattr(error, "errno", None)
    assert getattr(kept, "more", None) == getattr(error, "more", None)
    assert vars(kept) == vars(error)
    assert (kept.__traceback__, kept.__cause__, kept.__context__) == (None, None, None)
    assert Strict.made == made
    assert is_like(error, kept)
    assert error.__traceback__ is not None


def test_a_group_is_copied_with_what_is_in_it():
    try:
        raise ValueError("inner")
    except ValueError as inner:
        group = ExceptionGroup("two", [inner, ExceptionGroup("deeper", [KeyError(1)])])
    kept = without_traceback(group)
    assert traceback.format_exception_only(kept) == traceback.format_exception_only(group)
    assert repr(kept) == repr(group)
    assert kept.exceptions[0].__traceback__ is None
    assert group.exceptions[0].__traceback__ is not None


def test_notes_and_attributes_come_along_and_errors_among_them_are_copied_too():
    try:
        raise KeyError("inner")
    except KeyError as raised:
        inner = raised
    error = RuntimeError(inner)
    error.inner, error.own = inner, error
    error.add_note("a note")
    kept = without_traceback(error)
    assert kept.__notes__ == ["a note"]
    assert kept.args[0] is kept.inner
    assert kept.inner is not inner
    assert kept.inner.__traceback__ is None
    assert kept.own is None  # rather than for ever


def test_who_keeps_it_is_named_weakly():
    owner = Owner()
    error = RuntimeError(owner, "x")
    error.sock = owner
    kept = without_traceback(error, owner)
    assert "the owner" in str(kept.args[0])
    assert kept.sock == kept.args[0]
    del owner, error
    with pytest.raises(ReferenceError):
        str(kept.sock)


def test_what_an_os_error_is_about_may_be_who_keeps_it():
    owner = Owner()
    kept = without_traceback(OSError(errno.EIO, "no more", owner), owner)
    assert (kept.errno, "the owner" in str(kept.filename)) == (errno.EIO, True)
    del owner
    with pytest.raises(ReferenceError):
        str(kept.filename)


def test_likeness_is_of_type_and_arguments():
    assert is_like(KeyError(1), KeyError(1))
    assert not is_like(KeyError(1), LookupError(1))
    assert not is_like(KeyError(1), KeyError(2))
    assert not is_like(KeyError(1), None)


def test_locals_of_others_stay_and_the_traceback_tells_the_same():
    def fail():
        large = bytes(1000)
        raise KeyError(len(large))

    def second():
        other = bytes(1000)
        try:
            fail()
        except KeyError as error:
            raise ValueError(len(other)) from error

    try:
        second()
    except ValueError as raised:
        error = raised
    before = traceback.format_exception(error)
    forget_locals(error)
    deepest = error.__cause__.__traceback__.tb_next.tb_frame
    assert deepest.f_locals["large"]
    forget_locals(error, all_frames=True)
    assert not deepest.f_locals
    assert traceback.format_exception(error) == before


def test_locals_go_also_where_somebody_has_looked_at_them():
    held = weakref.ref(error := Owner())

    def fail(owner):
        raise KeyError

    try:
        fail(error)
    except KeyError as raised:
        error = raised
    assert error.__traceback__.tb_next.tb_frame.f_locals["owner"] is held()
    forget_locals(error, all_frames=True)
    assert held() is None


def test_copies_can_be_copied():
    assert repr(copy.copy(without_traceback(KeyError(1)))) == repr(KeyError(1))


def test_what_an_os_error_refers_to_is_copied_too():
    owner = Owner()
    error = ConnectionResetError(104, owner)
    assert "the owner" in str(without_traceback(error, owner))
    assert type(without_traceback(error, owner).args[1]) is weakref.ProxyType
