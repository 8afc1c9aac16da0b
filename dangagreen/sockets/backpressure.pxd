from dangagreen.sockets.delivery cimport Delivery

cdef int MUTE, OBSERVED, OWES

cdef class BackPressure(Delivery):
    cdef public Py_ssize_t _high_water
    cdef public object _write_error
