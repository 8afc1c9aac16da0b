from dangagreen.sockets.idle cimport IdleClock

cdef class ReadBuffer(IdleClock):
    cdef public object _buffer
    cdef public Py_ssize_t _line_limit
    cdef public Py_ssize_t _pos
    cdef public Py_ssize_t _scan_from
