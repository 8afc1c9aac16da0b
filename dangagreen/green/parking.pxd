cimport cython
from dangagreen.green.waiters cimport Waiter, WaitKind
from dangagreen.loop.handlers cimport Resumable
from dangagreen.loop.turn cimport Turning

@cython.locals(task=Resumable)
cpdef Resumable checkpoint(Turning loop, call)

@cython.locals(loop=Turning)
cpdef park(Waiter task, WaitKind wait, subject)
