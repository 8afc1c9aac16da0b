"""Between tasks: locks, events, queues, channels, and waiting for several of them."""
