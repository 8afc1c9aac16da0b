from dangagreen.loop.handlers cimport Resumable
from dangagreen.loop.turn cimport Turning

cdef class WaitKind:
    cdef public bint by_thread
    cdef public bint due
    cdef public object name
    cdef public object undo
    cdef public object words

cdef class Waiter(Resumable):
    cdef public object cancelled
    cdef public object context
    cdef public object deadline_timer
    cdef public bint done
    cdef public Turning loop
    cdef public object scope
    cdef public object subject
    cdef public object to_hub
    cdef public WaitKind wait
    cdef public object worker

cdef class Roster:
    cdef public object ended
    cdef public object ended_from
    cdef public object from_tasks
    cdef public list idle
    cdef public object no_parking
    cdef public object tasks

cdef class TopLevel(Waiter):
    cdef public bint _thrown
    cdef public bint _woken
    cdef public object turned

cdef class Collector(Waiter):
    cdef public object _before
    cdef public bint _entered
