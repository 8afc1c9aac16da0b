cimport cython

cdef class Timer:
    cdef object __weakref__
    cdef public object _number
    cdef public object _timers
    cdef public object callback
    cdef public object context
    cdef public object deadline
    cpdef fire(self)

cdef class Timers:
    cdef public object _added
    cdef public object owner
    cdef public dict by_number
    cdef public list heap
    cpdef Timer add(self, deadline, callback, context=*)
    cpdef mark(self)
    @cython.locals(timer=Timer)
    cpdef Timer pop_due(self, now, mark)
