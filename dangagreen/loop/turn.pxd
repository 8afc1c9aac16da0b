cimport cython
from dangagreen.loop.handlers cimport Handler
from dangagreen.loop.instruments cimport Instrumented
from dangagreen.loop.timers cimport Timer

cdef int READ, WRITE

cdef class Turning(Instrumented):
    cdef public bint _stop
    cdef public object _struck
    cdef public object budget
    cdef public object interest_changed
    cdef public object measurements
    cdef public object to_flush
    cdef public object loop_timeout
    cdef public object now
    cdef public object task_call
    cdef public object task_looks
    cdef public double tasks_since
    cpdef bint _turn(self) except -1
    @cython.locals(handler=Handler)
    cdef _patience(self)
    cdef _dispatch_many(self)
    @cython.locals(handler=Handler, mask=int, direct=int, last=double, suspect=double, now=double)
    cdef _dispatch(self, events)
    @cython.locals(timer=Timer, began=double, last=double, suspect=double, now=double)
    cdef _run_timers(self)
    @cython.locals(began=double, last=double, suspect=double, now=double)
    cdef _run_calls(self, looks)
    @cython.locals(began=double, last=double, suspect=double, now=double)
    cpdef _run_tasks(self)
    @cython.locals(now=double)
    cpdef next_task(self)
    @cython.locals(began=double, last=double, suspect=double, now=double)
    cdef _run_pending_reads(self)
    @cython.locals(suspect=double, last=double, now=double)
    cdef _flush_all(self)
    cdef _update_registrations(self)

cdef class Latest:
    cdef public Turning loop
