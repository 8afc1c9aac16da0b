from dangagreen.green.waiters cimport Waiter

cdef class Runnable(Waiter):
    pass

cdef class Life(Runnable):
    cdef object __weakref__
    cdef public object _call
    cdef public object _error
    cdef public dict _joiners
    cdef public object origin
    cdef public object _result
    cdef public bint error_retrieved
    cdef public object group
    cdef public object name
