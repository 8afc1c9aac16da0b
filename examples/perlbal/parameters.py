"""The parameters of services and of pools: one table, from which checking, `dumpconfig` and the page in the docs come.

A row says who may set it, its default as one would write it, and what it is for; its kind (`kinds`) how a value is read
and shown. `ours` marks what the original does not have. Each is an attribute of every service, or pool. What does not
belong here: what follows when one is set (services).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import perlbal.kinds as kinds
from perlbal.kinds import Parameter, boolean, choice, integer, optional, seconds, size, text

ANY = "*"
PROXY, WEB, SELECTOR, POOL = "reverse_proxy", "web_server", "selector", "pool"


# fmt: off
class ServiceParameters:
    # -- of every role

    role = kinds.role(ANY, None, "What the service is; sets the defaults of all parameters of that role.")
    listen = kinds.listen(ANY, None, "Where it accepts connections: ip:port or port; also [ipv6]:port and unix:/path.")
    persist_client = boolean(ANY, "off", "Clients may keep their connection for further requests.")
    persist_client_idle_timeout = integer(ANY, "30", "Seconds that a kept connection may be idle between requests.")
    idle_timeout = integer(ANY, "30", "Seconds that a connection may be without activity.")
    persist_client_timeout = kinds.both_timeouts(ANY, None, "Sets idle_timeout and persist_client_idle_timeout.",
                                                 dumped=False)
    always_trusted = boolean(ANY, "off", "Every client is believed what it says in X-Forwarded-For and its like.")
    trusted_upstream_proxies = kinds.networks(ANY, None, "Networks, at commas, whose clients are believed that.")
    plugins = kinds.names(ANY, "", "Plugins, at commas or blanks; none for none. LOAD them first.", dumped=False)
    client_sndbuf_size = size(ANY, "0", "SO_SNDBUF of connections to clients; 0 leaves it as it is.")
    max_chunked_request_size = size(ANY, "200m", "Most that the body of a chunked request may have; 0 is no limit.")
    server_tokens = boolean(ANY, "on", "Responses have a Server field.")
    enable_ssl = boolean(ANY, "off", "Clients speak TLS.")
    ssl_key_file = kinds.file(ANY, "certs/server-key.pem", "The private key, PEM.")
    ssl_cert_file = kinds.file(ANY, "certs/server-cert.pem", "The certificate, PEM.")
    ssl_cipher_list = text(ANY, "ALL:!LOW:!EXP", "A cipher list of OpenSSL.")
    ssl_ca_path = kinds.directory(ANY, "Directory '{value}' not found for '{key}'",
                                  "A directory of certificates by which those of clients are verified.")
    ssl_verify_mode = integer(ANY, "0", "Certificates of clients: 0 none is asked for, 1 one is verified, 3 demanded.")
    head_timeout = seconds(ANY, "30", "Seconds in which the head of a request has to come; 0 is no limit.", ours=True)
    client_stall_timeout = seconds(ANY, "30", "A client that reads nothing for so long is closed; 0: never.", ours=True)
    access_log = text(ANY, "none", "A file that gets a line for each request, in combined format.", ours=True)
    access_log_times = boolean(ANY, "off", "Its lines end with the node, and the seconds in the queue, to connect,"
                               " until the answer, and in all.", ours=True)

    # -- of reverse_proxy

    pool = kinds.pool(PROXY, None, "The pool whose nodes get the requests.")
    persist_backend = boolean(PROXY, "off", "Connections to backends are kept for further requests.")
    backend_persist_cache = integer(PROXY, "2", "Idle connections to backends that are kept when nobody waits.")
    max_backend_uses = integer(PROXY, "0", "Requests that one connection to a backend gets; 0 is no limit.")
    connect_ahead = integer(PROXY, "0", "Spare connections to backends that are wanted.")
    verify_backend = boolean(PROXY, "off", "Each connection to a backend has to answer an OPTIONS request first.")
    verify_backend_path = text(PROXY, "*", "The path of that request.")
    buffer_size = size(PROXY, "256k", "A client may be so far behind its backend, from which no more is read then.")
    buffer_size_reproxy_url = size(PROXY, "50k", "That, for the answer of a reproxied url.")
    buffer_backend_connect = size(PROXY, "100k", "So much of a body is collected before a backend is asked for.")
    buffer_uploads = boolean(PROXY, "off", "Large or slow uploads are collected in files first.")
    buffer_uploads_path = kinds.directory(
        PROXY, "Directory ({value}) not found for service {of.name} (buffer_uploads_path)", "The directory of these.")
    buffer_upload_threshold_size = size(PROXY, "250k", "Uploads of this size are collected; 0 is no such limit.")
    buffer_upload_threshold_time = integer(PROXY, "5", "So are those that will take more seconds; 0 is no such limit.")
    buffer_upload_threshold_rate = integer(PROXY, "0", "So are those slower, in bytes per second; 0 is no such limit.")
    enable_reproxy = boolean(PROXY, "off", "Backends may name a file, or urls, to be sent in place of an answer.")
    reproxy_cache_maxsize = integer(PROXY, "0", "How many of these are remembered, where the backend asks for it.")
    high_priority_cookie = optional(PROXY, None, "The cookie that tells clients of high priority.")
    high_priority_cookie_contents = optional(PROXY, None, "What that cookie has to contain.")
    queue_relief_size = integer(PROXY, "0", "With so many clients in the normal queue, one of them may go first.")
    queue_relief_chance = kinds.percentage(PROXY, "0", "How often that is so.")
    blind_proxy = boolean(PROXY, "off", "The forwarding headers of trusted clients are left alone.")
    enable_error_retries = boolean(PROXY, "off", "A GET or HEAD that a backend answers by 500 is tried again.")
    error_retry_schedule = kinds.schedule(PROXY, "0,.25,.50,1,1,1,1,1", "The delays before each of these trials.")
    upload_status_listeners = kinds.endpoints(PROXY, "", "UDP endpoints, at commas, that hear how far uploads are.")
    server_process = kinds.executable(PROXY, None, "A program that serves a request on its standard streams.")
    backend_http_version = choice(PROXY, "1.0 1.1", "What is spoken to backends.", ours=True)
    queue_timeout = seconds(PROXY, "10", "A client that waits so long for a backend hears 503; 0: never.", ours=True)
    backend_timeout = seconds(PROXY, "60", "A client whose backend is silent so long hears 504; 0: never.", ours=True)

    # -- of web_server

    docroot = kinds.directory(WEB, "Directory not found for service {of.name}", "The directory that is served.")
    dirindexing = boolean(WEB, "off", "Directories are listed.")
    index_files = kinds.names(WEB, "index.html", "What stands for a directory: the first of these that it has.")
    enable_put = boolean(WEB, "off", "PUT writes files.")
    enable_delete = boolean(WEB, "off", "DELETE removes files.")
    max_put_size = size(WEB, "0", "The largest file that may be written; 0 is no limit.")
    min_put_directory = integer(WEB, "0", "How many directories of a path must exist already.")
    enable_md5 = boolean(WEB, "on", "Content-MD5 of a PUT is verified.")
    enable_concatenate_get = boolean(WEB, "off", "One request may ask for several files: /dir/??a.css,b.css.")

    # -- of selector

    default_service = kinds.service(SELECTOR, None, "The service that gets what no plugin has taken.")
    latency = integer(SELECTOR, "0", "A delay before each request, in milliseconds.")


class PoolParameters:
    nodefile = optional(POOL, None, "A file with ip[:port] on each line, read anew when it has changed; none: no more.")
    balance_method = choice(POOL, "random round_robin least_used", "How a node is chosen.", "Unknown balance method")
    eject_failures = integer(POOL, "0", "So many failures in a row put a node aside; 0: none do.", ours=True)
    eject_seconds = seconds(POOL, "30", "For how long a node is put aside.", ours=True)
    tls = boolean(POOL, "off", "The nodes speak TLS.", ours=True)
    tls_verify = boolean(POOL, "on", "Their certificates are verified.", ours=True)
    tls_ca_file = kinds.optional(POOL, None, "Certificates by which they are; the system's without it.", ours=True)
    tls_name = kinds.optional(POOL, None, "What their certificates name; without it the host of the node.", ours=True)
# fmt: on


def _rows(table: type) -> Iterator[Parameter[Any]]:
    return (row for row in vars(table).values() if isinstance(row, Parameter))


SERVICE_TABLE = {row.name: row for row in _rows(ServiceParameters)}
POOL_TABLE = {row.name: row for row in _rows(PoolParameters)}
