"""perlbal: a reverse proxy, load balancer and web server, of which configuration files of the original run unchanged.

    python examples/perlbal -c perlbal.conf
    python examples/perlbal --check -c perlbal.conf

Which style is where, and why:

- The passing of bytes is in callback style: clients, backends, the queues in which clients wait for backends, and what
  each side may be ahead of the other. A kept-alive client between two requests is one small object, without a
  greenlet, and so is an idle connection to a backend.
- What takes steps is sequential: the management port, the verification of a backend, the schedule of retries, uploads
  that are collected in a file first, the list of urls of a reproxied answer, waiting for a file of nodes to change,
  loading a configuration, and the graceful shutdown.
- Some connections are handed from one style to the other and back: an upload is collected by a task, which reads from
  the client, has a thread write to disk, and then gives the client back to its callbacks.

The modules, each of which imports only from those above it:

    heads           request and response heads
    language        the command language: from a line to a command
    kinds           kinds of parameters: how a value is read and shown
    parameters      the parameters of services and pools: one table
    chunks          chunked bodies
    pools           nodes and pools: where backends are, and which one is next
    pages           what responses of our own say
    meters          what is counted of requests, for the metrics
    hooks           plugins, and where they have a say
    services        the world: services, their roles, plugins, settings
    tls             TLS to clients
    access_log      a line for each request
    clients         the client side: connections that ask, and the exchange for each request
    bodies          bodies of requests that tasks read
    disk            disk work, in threads or in place
    files           files that are sent: GET and HEAD of the web server
    put             PUT and DELETE
    concatenation   several files by one request
    web_role        the role web_server
    priorities      who is served first
    forwarding      the head that a backend sees
    backends        a connection to a node: one response after the other
    queues          who waits for a backend, and the connections that they wait for
    url_connections connections to the servers of reproxied urls
    uploads         uploads that are collected in files
    reproxy_cache   what backends have answered by urls, remembered
    reproxying      answers that backends have others give
    proxying        one proxied request
    proxy_role      the role reverse_proxy
    metrics         metrics in the Prometheus text format
    delaying        requests that wait for a while
    commands        how commands are found and answered; those of configurations
    console         commands that list
    dumping         dumpconfig
    loading         configuration files
    reloading       live reconfiguration
    ending          the graceful shutdown
    management      the management port
    selector        the role selector
    plugins         plugins, a module each
    program         the command line, start and end
"""
