from dangagreen.sockets.read_buffer cimport ReadBuffer

cdef class Receiving(ReadBuffer):
    cdef public Py_ssize_t _bulk_credit
    cdef public int _eof
    cdef public int _sequential
    cdef public bint _finishing
    cdef public object _read_error
