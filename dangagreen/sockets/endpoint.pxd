from dangagreen.sockets.descriptor cimport Descriptor

cdef class Endpoint(Descriptor):
    cdef public object _local
    cdef public object _peer
