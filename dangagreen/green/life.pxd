cimport cython
from dangagreen.green.parking cimport park
from dangagreen.green.waiters cimport Roster, Waiter
from dangagreen.loop.schedule cimport get_ident

cdef class Runnable(Waiter):
    @cython.locals(sched=Roster, idle=list)
    cpdef start(self, ended=*)
    cpdef start_next(self, worker)

cdef class Life(Runnable):
    cdef object __weakref__
    cdef public object call
    cdef public object _error
    cdef public dict _joiners
    cdef public object origin
    cdef public object _result
    cdef public bint error_retrieved
    cdef public object group
    cdef public object _name
    @cython.locals(sched=Roster, joiners=dict)
    cpdef end(self, error, result=*)
