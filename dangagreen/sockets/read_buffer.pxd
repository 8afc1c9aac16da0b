cimport cython
from dangagreen.sockets.idle cimport IdleClock

cdef Py_ssize_t _LINES_AT_ONCE, _SHORT

cdef class ReadBuffer(IdleClock):
    cdef public object _buffer
    cdef public Py_ssize_t _line_limit
    cdef public object _lines
    cdef public Py_ssize_t _pos
    cdef public Py_ssize_t _scan_from
    cdef _append(self, data)
    @cython.locals(start=Py_ssize_t)
    cdef bytes _consume(self, n)
    @cython.locals(start=Py_ssize_t)
    cdef _consume_exactly(self, n)
    @cython.locals(start=Py_ssize_t, size=Py_ssize_t, most=Py_ssize_t, stop=Py_ssize_t)
    cdef bytes _consume_line(self, Py_ssize_t end)
    cdef Py_ssize_t _usual_limit(self) except -1
    cdef _grant_no_lines(self)
    cdef bytes _consume_up_to(self, Py_ssize_t end)
    cdef bytes _consume_all(self)
    cdef _drop_input(self)
    @cython.locals(start=Py_ssize_t, end=Py_ssize_t)
    cdef Py_ssize_t _search(self, separator) except -1
    cdef bint _is_longer(self, Py_ssize_t end, Py_ssize_t limit) except -1
    cdef _search_anew(self)
