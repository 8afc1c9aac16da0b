from dangagreen.sockets.receiving cimport Receiving

cdef class Delivery(Receiving):
    pass
