"""A small Redis server: strings, expiry, transactions, publish and subscribe, RESP2 and RESP3, and a status page.

    python examples/miniredis --port 6380 --status-port 8080      and http://127.0.0.1:8080/ in a browser
    redis-cli -p 6380 set greeting hello ex 60
    redis-cli -p 6380 subscribe news      and elsewhere: redis-cli -p 6380 publish news 'it works'
    redis-benchmark -p 6380 -t ping,set,get -P 16 -q

Which style is where, and why:

- The dialogue of requests and replies is sequential (`talk` in `server`, `read_request` in `protocol`). A request is
  a line, then so many times a line and a block of bytes, and the code just says that. It runs in a greenlet that
  `serve_requests` lends it while there are requests; a client that is idle is one small object, and holds no greenlet.
- What a client is told unasked comes in callback style, whoever causes it (`deliver` in `commands.channels`):
  subscribers are idle as a rule, and hold no greenlet either. A client that does not read is cut off when it is too far
  behind.
- No command stops the others for long. One that takes its time, such as KEYS, is a generator that yields between
  portions, and others have their turn in between (`in_portions`). A transaction, and a command about many keys, is
  atomic as long as it takes no more than five milliseconds. A long reply is sent as fast as its client reads it.
- Keys expire by the loop's timers (`keys`).
- Ctrl-C and SIGTERM shut both servers down gracefully (`serve_forever`): requests that have come are answered, then
  clients are told the end. Without such care, a client that has just sent INCR could not know whether it happened.
- The status page is in callback style (`status`): one read, one write, and nothing in between that could be waited for.

The modules, each of which imports only from those above it:

    portions     long work, and the turns of the others
    protocol     requests and replies
    patterns     `h?llo*`, at no more than the product of the lengths
    keys         keys, values and when they expire
    clients      clients, and what they have subscribed to
    commands     what can be asked for, a module for each subject
    status       INFO and the status page
    dispatch     from a request to its command
    server       the program
"""
