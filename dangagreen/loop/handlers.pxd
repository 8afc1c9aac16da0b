cdef class Handler:
    cdef object __weakref__
    cdef public object _context
    cdef public object _queue
    cdef public object _reader
    cdef public int _registered_mask
    cdef public object _timer
    cdef public bint _watch_read
    cdef public bint closed
    cdef public int fd

cdef class FdHandler(Handler):
    cdef public object callback
    cdef public object loop
