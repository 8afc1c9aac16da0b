"""The event loop: pollers, timers, the turn. No greenlets here."""
