# cython: language_level=3, binding=False, auto_pickle=False
"""What is called for each event, in C: the twin of `system_calls.py`, with its names and its outcomes.

Rules: a short way is for small amounts, of a socket that does not block: it keeps the interpreter lock, asks the kernel
not to wait (MSG_DONTWAIT), and leaves everything else, such as timeouts, signals and large amounts, to the method of
`socket.socket`. The one call that might block is made without the lock. What does not belong here: as there.
"""

import select
import socket
import _socket

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals, PyErr_SetFromErrno
from cpython.object cimport PyObject
from libc.errno cimport EAGAIN, EINTR, errno
from libc.math cimport ceil
from libc.stdint cimport int64_t, uint32_t

cdef extern from *:
    """
    #include <errno.h>
    #include <sys/socket.h>
    #include <time.h>
    #include <unistd.h>

    /* The beginning of the interpreter's socket object, which no header shows: see `_check_layout`. */
    typedef struct {
        PyObject_HEAD
        int fd, family, type, proto;
        PyObject *(*set_error)(void);
        int64_t timeout;  /* nanoseconds; 0: non-blocking; -1 second: none */
    } Fields;

    typedef struct {  /* and that of its epoll object */
        PyObject_HEAD
        int fd;
    } EpollFields;

    #ifdef __linux__
    #include <sys/epoll.h>
    #else  /* where nobody asks for it */
    struct epoll_event {
        unsigned events;
        struct { int fd; } data;
    };
    static int epoll_wait(int fd, struct epoll_event *found, int most, int milliseconds) {
        errno = ENOSYS;
        return -1;
    }
    #endif

    static double monotonic(void) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return now.tv_sec + now.tv_nsec * 1e-9;
    }

    static char received[65536];

    #ifdef SOCK_NONBLOCK
    #define accept_quietly(fd) accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)
    #else  /* macOS, whose accepted sockets have the flags of the listener, but for close-on-exec */
    #include <fcntl.h>
    #define MSG_NOSIGNAL 0  /* the interpreter ignores SIGPIPE */
    static int accept_quietly(int fd) {
        int made = accept(fd, NULL, NULL);
        if (made >= 0) {
            fcntl(made, F_SETFD, FD_CLOEXEC);
            fcntl(made, F_SETFL, fcntl(made, F_GETFL) | O_NONBLOCK);
        }
        return made;
    }
    #endif
    """
    ctypedef struct Fields:
        int fd, family, type, proto
        int64_t timeout

    ctypedef struct EpollFields:
        int fd

    union epoll_data_t:
        int fd

    struct epoll_event:
        uint32_t events
        epoll_data_t data

    int epoll_wait(int, epoll_event*, int, int) nogil
    double monotonic() nogil
    char* received
    int MSG_DONTWAIT, MSG_NOSIGNAL
    ssize_t recv(int, void*, size_t, int) nogil
    ssize_t send(int, const void*, size_t, int) nogil
    int accept_quietly(int) nogil  # non-blocking, close-on-exec; nobody asks for the address
    int close(int) nogil

cdef extern from "Python.h":
    int PyContext_Enter(object context) except -1
    int PyContext_Exit(object context) except -1
    ctypedef struct PyTypeObject:
        object (*tp_new)(PyTypeObject* type, PyObject* args, PyObject* kwargs)

    int PySys_Audit(const char* event, const char* format, ...) except -1

cdef enum:
    SMALL = 65536  # bytes, at most, that are copied while the interpreter lock is held
    MANY = 128  # events that one wait takes, at most
    LONG = 1000000  # seconds: a longer wait is left to the method of the epoll object

cdef type _plain = socket.socket
cdef object _recv = _socket.socket.recv
cdef object _send = _socket.socket.send
cdef object _setblocking = _socket.socket.setblocking
cdef tuple _NOTHING = ()


cdef class _ShortWays:
    """Methods that come before those of `socket.socket`, in `OSSocket`."""

    def __cinit__(self):
        raise TypeError("a base class of OSSocket, and of nothing else")

    def recv(self, Py_ssize_t size, int flags=0, /):
        cdef Fields* fields = <Fields*> <PyObject*> self
        cdef ssize_t count
        if fields.timeout == 0 and 0 < size <= SMALL:
            count = recv(fields.fd, received, size, flags | MSG_DONTWAIT)
            if count >= 0:
                return PyBytes_FromStringAndSize(received, count)
            if errno != EINTR:
                PyErr_SetFromErrno(OSError)
        return _recv(self, size, flags)

    def send(self, data, int flags=0, /):
        cdef Fields* fields = <Fields*> <PyObject*> self
        cdef ssize_t count
        if fields.timeout == 0 and type(data) is bytes and PyBytes_GET_SIZE(data) <= SMALL:
            count = send(fields.fd, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), flags | MSG_DONTWAIT | MSG_NOSIGNAL)
            if count >= 0:
                return count
            if errno != EINTR:
                PyErr_SetFromErrno(OSError)
        return _send(self, data, flags)

    def setblocking(self, flag, /):
        cdef Fields* fields = <Fields*> <PyObject*> self
        if flag or fields.timeout != 0 or fields.fd < 0:  # otherwise it does not block already
            _setblocking(self, flag)


class OSSocket(_ShortWays, _plain):
    """A `socket.socket`, in all that can be seen of it, whose recv and send take a shorter way."""

    __slots__ = ()


OSSocket.__name__ = OSSocket.__qualname__ = "socket"  # for reprs and messages, which are those of `socket.socket`
OSSocket.__module__ = "socket"
OSSocket.__doc__ = _plain.__doc__
OS_SOCKETS = (_plain, OSSocket)


def run_in(context, call, /):
    PyContext_Enter(context)
    try:
        return call()
    finally:
        PyContext_Exit(context)


cdef class _Waiting:
    """An epoll object, and a short way to wait for its events."""

    cdef object epoll
    cdef object poll

    def __cinit__(self, epoll):
        self.epoll = epoll
        self.poll = epoll.poll

    def wait(self, timeout, /):
        cdef int fd = (<EpollFields*> <PyObject*> self.epoll).fd, most = -1, count
        cdef double end = 0.0
        cdef epoll_event found[MANY]
        if timeout is not None:
            if type(timeout) is not float and type(timeout) is not int or not 0.0 <= timeout < LONG:
                return self.poll(timeout)
            most = <int> ceil(timeout * 1e3)
            if most:
                end = monotonic() + <double> timeout
        if fd < 0:
            return self.poll(timeout)  # which raises: it was closed
        while True:
            with nogil:
                count = epoll_wait(fd, found, MANY, most)
            if count >= 0:
                return [(found[at].data.fd, found[at].events) for at in range(count)]
            if errno != EINTR:
                PyErr_SetFromErrno(OSError)
            PyErr_CheckSignals()
            if most > 0:
                most = max(0, <int> ceil((end - monotonic()) * 1e3))


def waiting(epoll):
    known = type(epoll) is select.epoll and (<EpollFields*> <PyObject*> epoll).fd == epoll.fileno()
    return _Waiting(epoll).wait if known else epoll.poll


def accepting(listener):
    if type(listener) not in OS_SOCKETS:
        return lambda: _accepted(listener)
    return lambda: _accept(listener)


def _accepted(listener):
    try:
        return listener.accept()[0]
    except BlockingIOError:
        return None


cdef _accept(listener):
    cdef Fields* fields = <Fields*> <PyObject*> listener
    cdef int fd, at = fields.fd
    while True:
        with nogil:  # other processes may have the listener too, and make it blocking
            fd = accept_quietly(at)
        if fd >= 0:
            break
        if errno == EAGAIN:
            return None
        if errno != EINTR:
            PyErr_SetFromErrno(OSError)
        PyErr_CheckSignals()
    try:
        return _made(fd, fields)
    except BaseException:
        close(fd)
        raise


cdef _made(int fd, Fields* like):
    """An OS socket of this fd, of the kind of a listener. The constructor would ask the kernel for what is known."""
    cdef Fields* fields
    sock = (<PyTypeObject*> OSSocket).tp_new(<PyTypeObject*> OSSocket, <PyObject*> _NOTHING, NULL)
    PySys_Audit("socket.__new__", "Oiii", <PyObject*> sock, like.family, like.type, like.proto)
    sock._io_refs = 0
    sock._closed = False
    fields = <Fields*> <PyObject*> sock
    fields.family, fields.type, fields.proto, fields.timeout = like.family, like.type, like.proto, 0
    fields.fd = fd
    return sock


def take_over(sock):
    if type(sock) is _plain:
        sock.__class__ = OSSocket


def hand_over(sock):
    if type(sock) is OSSocket:
        sock.__class__ = _plain


def _check_layout():
    """Raise ImportError if the interpreter's socket object has another layout than `Fields`."""
    cdef Fields* fields
    if not issubclass(_plain, _socket.socket):
        raise ImportError("dangagreen needs the sockets of the standard library, and they were replaced: import it before")
    try:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    except OSError:  # this process may have none
        return
    with sock:
        sock.settimeout(0.25)
        fields = <Fields*> <PyObject*> sock
        found = fields.fd, fields.family, fields.type, fields.proto, fields.timeout
        known = sock.fileno(), socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, 250_000_000
    if _socket.socket.__basicsize__ < sizeof(Fields) or found != known:
        raise ImportError("dangagreen was compiled for another build of Python: set DANGAGREEN_PURE=1, or compile anew")


_check_layout()
