from dangagreen.loop.registry cimport Registry

cdef class DeadlockWatch(Registry):
    cdef public object _deadlock_seconds
    cdef public object awaited
    cdef public object green
    cdef public object look_ups
    cdef public bint _waited
    cdef public bint _warned
    cdef public set onlookers
