from dangagreen.loop.handlers cimport flag
from dangagreen.loop.turn cimport Turning
from dangagreen.sockets.descriptor cimport Descriptor

cdef class Admitting:
    cdef public object _connected
    cdef public object _on_connection
    cdef public Py_ssize_t accepted
    cdef public Py_ssize_t connections
    cdef public object limit
    cdef public Turning loop
    cdef public Py_ssize_t spare

cdef class Acceptor(Descriptor):
    cdef public object _accept_budget
    cdef public object _accept_one
    cdef public object _backoff_timer
    cdef public Py_ssize_t _refusals
    cdef public object _sets_nodelay
    cdef public flag _sits_out
    cdef public object file
    cdef public Admitting server
