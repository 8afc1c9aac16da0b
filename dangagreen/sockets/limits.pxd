from dangagreen.sockets.write_queue cimport WriteQueue

cdef class TimeLimits(WriteQueue):
    pass
