from dangagreen.loop.deadlock cimport DeadlockWatch

cdef class SlowWatch(DeadlockWatch):
    cdef public object _on_slow
    cdef public object after_turn
    cdef public double looked
    cdef public Py_ssize_t slow_count
    cdef public double slow_limit
    cdef public object slow_in_turn
    cdef public object slow_log
    cdef public object slowest
    cdef public double suspect_after
    cdef public object turns
