cimport cython

cdef class Timers

cdef class Timer:
    cdef object __weakref__
    cdef public object _number
    cdef public Timers _timers
    cdef public object callback
    cdef public object context
    cdef public object deadline
    cpdef fire(self)

cdef class Timers:
    cdef public object _added
    cdef public object _many
    cdef public object owner
    cdef public dict by_number
    cdef public dict later
    cdef public list heap
    cdef public object soon
    cpdef Timer add(self, deadline, callback, context=*)
    cpdef mark(self)
    @cython.locals(timer=Timer)
    cpdef Timer pop_due(self, now, mark)
    cdef dict _begin_second(self, second)
    @cython.locals(held=dict, timer=Timer)
    cdef _draw_near(self, second)
