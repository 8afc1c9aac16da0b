from dangagreen.loop.slowness cimport SlowWatch

cdef class Instrumented(SlowWatch):
    cdef public object current
    cdef public int direct
