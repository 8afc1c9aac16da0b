from dangagreen.loop.schedule cimport Schedule

cdef class Registry(Schedule):
    cdef public Py_ssize_t error_count
    cdef public object error_log
    cdef public object _maps
    cdef public object _on_error
    cdef public object _others
    cdef public object _places
    cdef public object handlers
    cdef public object instruments
    cdef public object object_callbacks
    cdef public object pending_reads
    cdef public object post_loop_callback
    cdef public object to_close
    cdef public dict own_settings
    cdef public list batch
    cdef public bint accepting
    cdef public bint running
