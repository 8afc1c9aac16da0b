from dangagreen.loop.timers cimport Timers

cdef extern from "pythread.h":
    cpdef unsigned long get_ident "PyThread_get_thread_ident"()

cdef class Schedule:
    cdef public object clock
    cdef public object poller
    cdef public object ready
    cdef public object runnable
    cdef public object wakeup_pair
    cdef public bint closed
    cdef public unsigned long thread
    cdef public Timers timers
