from dangagreen.loop.handlers cimport Resumable
from dangagreen.loop.slowness cimport SlowWatch

cdef class Instrumented(SlowWatch):
    cdef public Resumable current
    cdef public int direct
