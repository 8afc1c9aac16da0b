import errno

import pytest

from dangagreen.core import errors


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
    assert {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM} == errors.OUT_OF_RESOURCES
    assert not errors.ACCEPT_PASSING & errors.OUT_OF_RESOURCES
    assert errno.EBADF not in errors.ACCEPT_PASSING
