from dangagreen.loop.handlers cimport Handler

cdef class Descriptor(Handler):
    cdef public object _listener
    cdef public object close_reason
    cdef public object sock
    cdef public bint _watch_write
