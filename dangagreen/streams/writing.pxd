from dangagreen.green.parking cimport checkpoint, park
from dangagreen.loop.schedule cimport get_ident
from dangagreen.streams.reading cimport ReadingSocket

cdef class StreamSocket(ReadingSocket):
    pass
