"""The commands, by subject: what each module has in `COMMANDS` is put together in `dispatch`."""
