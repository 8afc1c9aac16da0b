from dangagreen.sockets.lingering cimport Lingering

cdef class CallbackSocket(Lingering):
    cdef public int _hangup_state
    cdef _readable(self)
    cdef _hang_up(self, int ended)
