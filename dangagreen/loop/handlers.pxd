cdef extern from "stdbool.h":
    ctypedef bint flag "bool"  # a bint of one byte: those of one class lie next to each other

cdef class Resumable:
    cdef public object interrupt
    cdef public object resume
    cdef public object unflushed_socket

cdef class Handler:
    cdef object __weakref__
    cdef public object _context
    cdef public object _queue
    cdef public Resumable _reader
    cdef public object _timer
    cdef public int fd
    cdef public char _registered_mask
    cdef public flag _watch_read
    cdef public flag _watch_write
    cdef public flag closed

cdef class FdHandler(Handler):
    cdef public object callback
    cdef public object loop
