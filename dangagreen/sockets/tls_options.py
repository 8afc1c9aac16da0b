"""What is asked of TLS: the context, the side, the name that the certificate is to be for; checked beforehand.

Rules: a context of the wrong side, a server without a certificate, a name without TLS are refused in words. What does
not belong here: bytes (tls).
"""

from __future__ import annotations

import ssl
from typing import Any, NamedTuple

from dangagreen import checks
from dangagreen.sockets.addresses import in_ascii
from dangagreen.sockets.tls import TlsSocket


class TlsOptions(NamedTuple):
    """How a connection is secured; `wrap` does not begin yet."""

    context: ssl.SSLContext
    server_side: bool
    server_hostname: str | None = None
    session: ssl.SSLSession | None = None

    def wrap(self, sock: Any) -> TlsSocket:
        """Make the TLS connection over a socket. Raises ValueError for a name or a session that OpenSSL refuses."""
        name = self.server_hostname and in_ascii(self.server_hostname)  # of the IDNA that the module ssl has, of 2003,
        return TlsSocket(sock, self.context, self.server_side, name, self.session)  # another name may come


def server_options(call: str, context: Any) -> TlsOptions:
    """For `serve`. Raises TypeError for what is no context, ValueError for a client's, or one without a certificate."""
    _check_context(call, context)
    if context.protocol == ssl.PROTOCOL_TLS_CLIENT:
        raise ValueError(
            f"{call} needs a context for servers, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); this is a client's"
        )
    options = TlsOptions(context, server_side=True)
    _check_certificate(call, options)
    return options


def client_options(
    call: str,
    tls: Any,
    server_hostname: str | None = None,
    *,
    address: Any = None,
    session: ssl.SSLSession | None = None,
) -> TlsOptions | None:
    """For `connect`: `tls` is True (the usual context, which checks certificates), a context, or None: no TLS.

    Without a name it is the host of the address. Raises TypeError or ValueError for what makes no sense.
    """
    if tls is None or tls is False:
        if server_hostname is not None or session is not None:
            raise ValueError(f"{call}: server_hostname and session are for TLS, and tls is not given")
        return None
    context = ssl.create_default_context() if tls is True else tls
    _check_context(call, context, " or True")
    if context.protocol == ssl.PROTOCOL_TLS_SERVER:
        raise ValueError(
            f"{call} needs a context for clients, such as ssl.create_default_context(); this is a server's"
        )
    if server_hostname is None and isinstance(address, tuple):
        server_hostname = host_of(address[0])
    _check_name(call, context, server_hostname)
    return TlsOptions(context, False, server_hostname or None, session)


def start_options(
    context: Any, server_hostname: str | None, session: ssl.SSLSession | None, accepted: bool
) -> TlsOptions:
    """For `start_tls`: the context decides the side; one for both is a server's on a connection that was accepted."""
    _check_context("start_tls", context)
    both = context.protocol not in (ssl.PROTOCOL_TLS_CLIENT, ssl.PROTOCOL_TLS_SERVER)
    if context.protocol == ssl.PROTOCOL_TLS_SERVER or (both and accepted):
        if server_hostname is not None or session is not None:
            raise ValueError("start_tls: server_hostname and session are a client's, and the context is for servers")
        return TlsOptions(context, server_side=True)
    _check_name("start_tls", context, server_hostname)
    return TlsOptions(context, False, server_hostname, session)


def host_of(host: Any) -> str | None:
    """The host of an address, as its certificate has it: without the dot at its end, or the zone of an IPv6 address."""
    if not isinstance(host, str):
        return None
    return host.partition("%")[0].removesuffix(".") or None


def _check_context(call: str, context: Any, others: str = "") -> None:
    if not isinstance(context, ssl.SSLContext):
        raise TypeError(f"{call} needs an ssl.SSLContext{others}, not {checks.shown(context)}")


def _check_name(call: str, context: ssl.SSLContext, server_hostname: Any) -> None:
    if server_hostname is not None and not isinstance(server_hostname, str):
        raise TypeError(f"the server_hostname of {call} is a str, not {checks.shown(server_hostname)}")
    if context.check_hostname and not server_hostname:
        raise ValueError(f"{call}: the context checks the server's name: give it as server_hostname")


def _check_certificate(call: str, options: TlsOptions) -> None:
    """Raise ValueError if a server has no certificate. OpenSSL tells by a first flight only, which is made in memory.

    Nor has it one whose key is missing, as after a `load_cert_chain` that has failed. An `sni_callback` may choose a
    context that has one, and some cipher suites need none.
    """
    context = options.context
    if context.sni_callback is not None or any(
        cipher.get("auth") in _WITHOUT_CERTIFICATE for cipher in context.get_ciphers()
    ):
        return
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    flight, nowhere = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        client.wrap_bio(ssl.MemoryBIO(), flight).do_handshake()
    except ssl.SSLError:  # WantRead: it has said hello
        pass
    try:
        context.wrap_bio(flight, nowhere, server_side=True).do_handshake()
    except ssl.SSLError as error:
        alone = context.minimum_version == ssl.TLSVersion.TLSv1_3 and error.reason == "UNSUPPORTED_PROTOCOL"
        if alone or error.reason == "NO_SHARED_CIPHER":
            raise ValueError(f"{call}: the context has no certificate: context.load_cert_chain(...)") from None


_WITHOUT_CERTIFICATE = ("auth-null", "auth-psk", "auth-any-psk")
