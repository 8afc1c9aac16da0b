"""The errors: what they carry, pickles and copies, which means what."""

import copy
import errno
import pickle

import pytest

from dangagreen import errors
from dangagreen.testing.clock import StalledError


def test_closed_error_is_a_connection_error_and_tells_the_reason():
    error = errors.ClosedError("the socket", "enough")
    assert isinstance(error, ConnectionError)
    assert error.sock == "the socket"
    assert error.reason == "enough"
    assert "'the socket'" in str(error)
    assert "this side" in str(error)
    assert "enough" in str(error)
    assert "None" not in str(errors.ClosedError("the socket"))


def test_incomplete_read_error_is_an_eof_error_and_carries_the_partial_bytes():
    error = errors.IncompleteReadError(None, b"abc", "a line")
    assert isinstance(error, EOFError)
    assert error.partial == b"abc"
    assert "3 bytes" in str(error)
    assert "a line" in str(error)


def test_limit_error_carries_the_limit():
    error = errors.LimitError("too long", 10)
    assert isinstance(error, ValueError)
    assert error.limit == 10


def test_cancelled_is_no_exception_and_carries_its_reason():
    assert not issubclass(errors.Cancelled, Exception)
    assert errors.Cancelled("why").reason == "why"
    assert errors.Cancelled("why").args == ("why",)
    assert errors.Cancelled().reason is None
    assert errors.Cancelled().args == ()


def test_task_cancelled_error_is_an_ordinary_exception():
    error = errors.TaskCancelledError("the task was cancelled", "why")
    assert isinstance(error, Exception)
    assert error.reason == "why"


@pytest.mark.parametrize("kind", [errors.BusyError, errors.CannotParkError, errors.ForeignThreadError])
def test_misuse_is_a_runtime_error(kind):
    assert issubclass(kind, RuntimeError)


def test_an_error_context_cannot_be_changed():
    context = errors.ErrorContext("what failed", ValueError("x"), "subject")
    assert (context.message, str(context.exception), context.subject) == ("what failed", "x", "subject")
    assert errors.ErrorContext("what failed", ValueError()).subject is None
    with pytest.raises(AttributeError):
        context.message = "other"


def test_the_errno_lists_tell_what_passes_from_what_has_run_out():
    assert {errno.ECONNABORTED, errno.EPROTO, errno.ECONNRESET} <= errors.ACCEPT_PASSING
    assert {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ENOSR} == errors.OUT_OF_RESOURCES
    assert not errors.ACCEPT_PASSING & errors.OUT_OF_RESOURCES
    assert errno.EBADF not in errors.ACCEPT_PASSING


class Unpicklable:
    def __reduce__(self):
        raise TypeError("no socket is pickled")


ERRORS = [
    errors.TlsError("refused", "UNKNOWN_CA", "client"),
    errors.TruncatedError("cut short"),
    errors.ClosedError(Unpicklable(), "enough"),
    errors.ClosedError(Unpicklable(), ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")),
    errors.IncompleteReadError(Unpicklable(), b"abc", "a line"),
    errors.LimitError("too long", 10),
    errors.ShortFileError("a file", 5, 10),
    errors.BusyError("somebody else"),
    errors.CannotParkError("not here"),
    errors.Deadlock("nobody can run", "the\ntable"),
    errors.ForeignThreadError("another thread"),
    errors.Cancelled(),
    errors.Cancelled("why"),
    errors.TaskCancelledError("the task was cancelled", "why"),
    errors.ShutDown(),
    errors.ClosedChannelError("closed"),
    errors.ChannelEnd("the end"),
    StalledError("stalled", "the table"),
]


def attributes(error):
    return {name: repr(value) for name, value in vars(error).items() if name != "sock"}


def test_no_error_of_ours_is_forgotten_below():
    ours = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, BaseException)}
    assert {kind.__name__ for kind in ours if not kind.__name__.startswith("_")} <= {
        type(error).__name__ for error in ERRORS
    }


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("again", [lambda e: pickle.loads(pickle.dumps(e)), copy.deepcopy], ids=["pickle", "deepcopy"])
def test_an_error_survives_pickling_with_text_and_attributes(error, again):
    error.add_note("in the handler")
    other = again(error)
    assert type(other) is type(error)
    assert (str(other), repr(other.args)) == (str(error), repr(error.args))
    assert attributes(other) == attributes(error)
    assert getattr(other, "sock", None) is None
    del error.__notes__


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_copy_of_an_error_keeps_everything(error):
    other = copy.copy(error)
    assert type(other) is type(error)
    assert (str(other), other.args, vars(other)) == (str(error), error.args, vars(error))


def test_an_error_of_a_users_own_class_survives_too():
    assert pickle.loads(pickle.dumps(Refused(None, "no", extra=3))).extra == 3


class Refused(errors.ClosedError):
    def __init__(self, sock, reason, *, extra):
        super().__init__(sock, reason)
        self.extra = extra
