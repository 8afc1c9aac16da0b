from dangagreen.sockets.limits cimport TimeLimits

cdef class Lingering(TimeLimits):
    pass
