"""What is measured within one process: tasks and timers. `MODE` is spawn, spawn_many, switch, timer_cancel, ..."""
