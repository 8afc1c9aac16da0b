from dangagreen.sockets.backpressure cimport BackPressure

cdef class WriteQueue(BackPressure):
    cdef public object _drain_waiters
    cdef public object _writer
    cdef public bint _over_high_water
    cdef public Py_ssize_t _queued_callables
    cdef public Py_ssize_t unsent
    cdef public int _sending
