from dangagreen.green.parking cimport checkpoint, park
from dangagreen.green.waiters cimport Waiter, WaitKind
from dangagreen.loop.handlers cimport Resumable
from dangagreen.loop.schedule cimport get_ident
from dangagreen.streams.readiness cimport SelectableSocket

cdef Py_ssize_t _BULK

cdef class ReadingSocket(SelectableSocket):
    cdef Resumable _checkpoint(self, call)
    cdef Py_ssize_t _find(self, Waiter task, WaitKind wait, separator, Py_ssize_t limit) except -1
    cdef bint _fill(self, Waiter task, WaitKind wait, Py_ssize_t size=*) except -1
