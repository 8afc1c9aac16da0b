from dangagreen.loop.handlers cimport Resumable, flag
from dangagreen.loop.schedule cimport get_ident
from dangagreen.sockets.read_buffer cimport ReadBuffer

cdef int READ, EOF_MET, EOF_TOLD
cdef Py_ssize_t HELD, _BULK_CREDIT

cdef class Receiving(ReadBuffer):
    cdef public object _read_error
    cdef public int _bulk_credit
    cdef public char _eof
    cdef public flag _finishing
    cdef public char _sequential
    cdef public char _write_closed
    cpdef Resumable _parked_reader(self)
    cpdef bint _await_input(self, reader) except -1
    cdef bint _may_go_on(self, Py_ssize_t size) except -1
    cdef _was_less(self)
    cdef _receive_into(self, buffer)
    cdef bint _ends_input(self, error) except -1
    cdef bint _meet_eof(self, int eof=*) except -1
