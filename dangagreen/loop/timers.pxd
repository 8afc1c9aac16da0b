cdef class Timer:
    cdef object __weakref__
    cdef public object _number
    cdef public object _timers
    cdef public object callback
    cdef public object context
    cdef public object deadline

cdef class Timers:
    cdef public object _added
    cdef public object owner
    cdef public dict by_number
    cdef public list heap
