from dangagreen.sockets.sock cimport CallbackSocket

cdef class ReadyWaiter:
    cdef public object task

cdef class SelectableSocket(CallbackSocket):
    pass
