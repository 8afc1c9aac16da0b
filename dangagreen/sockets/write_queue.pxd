from dangagreen.loop.handlers cimport flag
from dangagreen.loop.schedule cimport get_ident
from dangagreen.sockets.backpressure cimport BackPressure

cdef int WRITE, BLOCKED, FLUSHING, IDLE, MUTE
cdef Py_ssize_t _JOIN, _MANY, _CALLS_AT_ONCE

cdef class WriteQueue(BackPressure):
    cdef public object _drain_waiters
    cdef public object _writer
    cdef public int _queued_callables
    cdef public flag _over_high_water
    cdef public char _hangup_state
    cdef public char _sending
    cdef public Py_ssize_t unsent
    cpdef _flush(self)
    cdef _write_later(self, data)
    cdef _flush_in_order(self, queue, bint refused=*)
    cdef bint _send_some(self, queue) except -1
    cdef _was_sent(self, queue, Py_ssize_t count, data, Py_ssize_t sent)
    cdef _wait_for_kernel(self)
    cdef _was_flushed(self, int state)
    cdef _wake_writers(self)
