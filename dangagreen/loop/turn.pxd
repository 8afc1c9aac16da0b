from dangagreen.loop.instruments cimport Instrumented

cdef class Turning(Instrumented):
    cdef public bint _stop
    cdef public object _struck
    cdef public object budget
    cdef public object interest_changed
    cdef public object measurements
    cdef public object to_flush
    cdef public object loop_timeout
    cdef public object now
