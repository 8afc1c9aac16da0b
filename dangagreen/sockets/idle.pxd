from dangagreen.sockets.endpoint cimport Endpoint

cdef class IdleClock(Endpoint):
    cdef public Py_ssize_t _at_work
    cdef public object _created_at
    cdef public object _last_activity
