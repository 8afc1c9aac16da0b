from dangagreen.sockets.endpoint cimport Endpoint

cdef Py_ssize_t HELD

cdef class IdleClock(Endpoint):
    cdef public Py_ssize_t _at_work
    cdef public double _created_at
    cdef public double _last_activity
    cdef _begin_wait(self)
    cdef _give_up_wait(self)
    cdef bint _waits_for_peer(self) except -1
