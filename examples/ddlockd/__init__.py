"""ddlockd, the distributed lock daemon: a lock is a name, and is held by one connection for as long as that lasts.

    python examples/ddlockd --port 7002
    nc 127.0.0.1 7002      and type: trylock lock=mine

The clients of the original work unchanged: `trylock` and `releaselock` never wait, and the end of a connection, however
it comes, frees what it held. New are `lock`, which waits for its turn, leases (`ttl`), fencing tokens, and the queries
`holder` and `waiters`.

Which style is where, and why:

- Commands that never wait are in callback style: a connection holds no greenlet, and nothing comes between asking
  whether a lock is free and taking it.
- A command that may wait is a dialogue, in sequential style, on the same connection. `lock` waits for its turn, and
  `locks`, which has a long answer, for its client to read it; then the connection goes on in callback style.
- Where the locks are kept in a database or in files, a thread asks there; every command that needs its answer is then
  one that may wait.

The modules, each of which imports only from those above it:

    counters        how often locks were asked for, and had
    protocol        lines and replies
    stores          what a store of locks is; files in a directory
    databases       a table of SQLite, PostgreSQL or MySQL
    tokens          fencing tokens
    locks           who holds them, who waits for them, in memory
    stored_locks    and in a store as well, which a thread asks
    connection      what a client holds, its limits and its end
    commands        what a client may ask for
    client          how its lines are answered, in either style
    server          the program: options, start and end
"""
