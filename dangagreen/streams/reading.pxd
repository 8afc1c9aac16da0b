from dangagreen.loop.schedule cimport get_ident
from dangagreen.streams.readiness cimport SelectableSocket

cdef Py_ssize_t _BULK

cdef class ReadingSocket(SelectableSocket):
    cdef Py_ssize_t _find(self, task, wait, separator, Py_ssize_t limit) except -1
    cdef bint _fill(self, task, wait, Py_ssize_t size=*) except -1
