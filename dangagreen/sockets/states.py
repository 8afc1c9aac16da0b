"""How far a connection has come: the values of the slots that say so, a sentence each.

Rules: a value that more than one module knows stands here, and nowhere else by number. What does not belong here: code
that acts on them.
"""

from __future__ import annotations

from dangagreen.loop.pollers import ERR, HUP

# `_write_closed`: 0, or one of MUTE, OBSERVED and OBSERVED | OWES
MUTE = 1  # what is written goes nowhere: it was closed or finished, has sent its FIN, or its peer takes no more
OBSERVED = 2  # a drain is on, and wants to know who has answered
OWES = 4  # it has received something since, and not answered yet

# `_eof`: 0, or
EOF_MET = 1  # the peer's stream has ended, in order or, where `_read_error` says so, by a reset; nobody was told
EOF_TOLD = 2  # and read() has answered None

# `_sending`: who sends the queue
IDLE = 0  # nobody: there is none, or it is sent when the task parks or the turn ends
BLOCKED = 1  # the kernel took no more, and a WRITE event will tell when it does
FLUSHING = 2  # it is being sent right now, further up the stack

# `_hangup_state`: bits, of what was told to whom
ERR_TOLD = ERR  # event_err was called
HUP_TOLD = HUP  # event_hup was called, before read() had answered None
HUP_TOLD_AT_END = 32  # event_hup was called after that
BY_PEER = 64  # it was closed because the peer had ended: who reads later finds that end
