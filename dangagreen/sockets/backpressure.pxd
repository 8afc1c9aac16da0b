from dangagreen.sockets.delivery cimport Delivery

cdef class BackPressure(Delivery):
    cdef public object _high_water
    cdef public object _water
    cdef public object _write_error
    cdef public int _write_closed
