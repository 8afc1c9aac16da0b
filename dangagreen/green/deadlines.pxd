from dangagreen.green.scopes cimport CancelScope

cdef class timeout(CancelScope):
    pass

cdef class timeout_at(CancelScope):
    pass

cdef class move_on_after(CancelScope):
    pass
