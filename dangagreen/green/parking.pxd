cimport cython
from dangagreen.green.waiters cimport Waiter, WaitKind
from dangagreen.loop.turn cimport Turning

@cython.locals(loop=Turning)
cpdef park(Waiter task, WaitKind wait, subject)
