from dangagreen.loop.deadlock cimport DeadlockWatch

cdef class SlowWatch(DeadlockWatch):
    cdef public object _on_slow
    cdef public object after_turn
    cdef public object looked
    cdef public object slow_limit
    cdef public object slow_in_turn
    cdef public object slow_log
    cdef public object slowest
    cdef public object suspect_after
    cdef public object turns
    cdef public Py_ssize_t slow_count
