cimport cython
from dangagreen.green.waiters cimport Waiter
from dangagreen.loop.schedule cimport get_ident
from dangagreen.loop.timers cimport Timer
from dangagreen.loop.turn cimport Latest, Turning

cdef Latest latest

cdef class CancelScope:
    cdef public object _cancel_seen
    cdef public object _deadline
    cdef public bint _entered
    cdef public bint _expired
    cdef public object _own_cancel
    cdef public CancelScope _parent
    cdef public object _seconds
    cdef public Waiter _task
    cdef public bint cancelled_caught
    @cython.locals(loop=Turning, task=Waiter, timer=Timer, now=double, deadline=double, due=double)
    cpdef __enter__(self)
    @cython.locals(task=Waiter)
    cpdef __exit__(self, kind, error, traceback)

cdef class shield(CancelScope):
    pass
