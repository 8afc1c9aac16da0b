from dangagreen.streams.readiness cimport SelectableSocket

cdef class ReadingSocket(SelectableSocket):
    pass
