from dangagreen.loop.handlers cimport Resumable
from dangagreen.sockets.sock cimport CallbackSocket

cdef class ReadyWaiter(Resumable):
    cdef public object _task

cdef class SelectableSocket(CallbackSocket):
    cdef _check_reader(self, task)
