from dangagreen.sockets.lingering cimport Lingering

cdef int ERR, HUP, READ, WRITE, BY_PEER, EOF_TOLD, ERR_TOLD, HUP_TOLD, HUP_TOLD_AT_END

cdef class CallbackSocket(Lingering):
    cdef _readable(self)
    cdef _hang_up(self, int ended)
