cimport cython

cdef double _NEVER

cdef class Timers

cdef class Timer:
    cdef object __weakref__
    cdef public object _number
    cdef public Timers _timers
    cdef public object callback
    cdef public object context
    cdef public object deadline
    @cython.locals(due=double, timers=Timers, pending=dict)
    cpdef cancel(self)
    cpdef fire(self)

cdef class Timers:
    cdef public object _added
    cdef public object _many
    cdef public object owner
    cdef public dict by_number
    cdef public dict later
    cdef public list heap
    cdef public double soon
    @cython.locals(due=double, second=double)
    cpdef Timer add(self, deadline, callback, context=*)
    cpdef mark(self)
    @cython.locals(timer=Timer)
    cpdef Timer pop_due(self, now, mark)
    cdef dict _begin_second(self, second)
    @cython.locals(held=dict, timer=Timer)
    cdef _draw_near(self, second)
