from dangagreen.loop.schedule cimport get_ident
from dangagreen.loop.turn cimport Latest

cdef Latest latest
cdef int _TO_CALLER, NOT_RUN
