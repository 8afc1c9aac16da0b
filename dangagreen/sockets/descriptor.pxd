from dangagreen.loop.handlers cimport Handler
from dangagreen.loop.schedule cimport get_ident
from dangagreen.loop.turn cimport Turning

cdef int ERR, HUP, READ, WRITE, PAUSED, UNREGISTERED

cdef class Descriptor(Handler):
    cdef public object _listener
    cdef public object close_reason
    cdef public Turning loop
    cdef public object sock
    cdef bint _is_told_of(self, int bit) except -1
    cdef bint _is_paused(self) except -1
    cdef bint _is_short_of_memory(self, error) except -1
