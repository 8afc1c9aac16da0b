from dangagreen.streams.reading cimport ReadingSocket

cdef class StreamSocket(ReadingSocket):
    pass
