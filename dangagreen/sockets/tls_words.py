"""What is said of a TLS connection: what was agreed upon, or whose refusal it was, and why.

Rules: an alert is the peer's refusal, all else that OpenSSL says is this side's; the peer is named. What does not
belong here: what is done after an error.
"""

from __future__ import annotations

import re
import ssl
from typing import Any

from dangagreen.errors import TlsError
from dangagreen.sockets.endpoint import in_words, peer_of

_ALERT = re.compile(r"(?:SSLV3|TLSV1|TLSV13)_(?:ALERT_)?(.*)")  # what OpenSSL calls an alert that the peer has sent
_PLAIN_HTTP = ("HTTP_REQUEST", "HTTPS_PROXY_REQUEST")
_WORDS = {  # OpenSSL's names of what one meets, of this side's refusals
    "HTTP_REQUEST": "it speaks plain HTTP to a TLS port",
    "HTTPS_PROXY_REQUEST": "it speaks plain HTTP to a TLS port",
    "NO_PROTOCOLS_AVAILABLE": "the context allows no version of TLS",
    "NO_SHARED_CIPHER": "no cipher suite is common to both, or the context has no certificate",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it has sent no certificate, which is required",
    "CALLBACK_FAILED": "the sni_callback has failed",
    "RECORD_LAYER_FAILURE": "what it sends is no TLS",
    "UNSUPPORTED_PROTOCOL": "no version of TLS is common to both",
    "VERSION_TOO_LOW": "no version of TLS is common to both",
    "WRONG_VERSION_NUMBER": "what it sends is no TLS",
    "UNEXPECTED_MESSAGE": "what it sends is no TLS, or out of order",
}


def is_plain_http(error: ssl.SSLError) -> bool:
    """Whether a server has met a request in plain HTTP, for which OpenSSL makes no alert."""
    return error.reason in _PLAIN_HTTP


def explained(error: ssl.SSLError, ssl_object: ssl.SSLObject, sock: Any) -> TlsError:
    """An error of OpenSSL in words."""
    me, peer = ("server", "client") if ssl_object.server_side else ("client", "server")
    name = _name_of(ssl_object, sock)
    reason: str | None = error.reason
    if isinstance(error, (ssl.SSLEOFError, ssl.SSLSyscallError)):
        return TlsError(f"the {peer}{name} ended the connection within the TLS handshake", reason)
    if reason is not None and (alert := _ALERT.fullmatch(reason)):
        why = alert[1].lower().replace("_", " ")
        return TlsError(f"the {peer}{name} has refused TLS: {why} ({reason})", reason, peer)
    if isinstance(error, ssl.SSLCertVerificationError):
        return TlsError(f"the certificate of the {peer}{name} was refused: {error.verify_message}", reason, me)
    why = _WORDS.get(reason or "", (reason or str(error)).lower().replace("_", " "))
    return TlsError(f"TLS with the {peer}{name} was refused: {why} ({reason})", reason, me)


def _name_of(ssl_object: ssl.SSLObject, sock: Any) -> str:
    """ " example.com (192.0.2.1:443)", as far as it is known."""
    address = in_words(peer_of(sock))
    host = None if ssl_object.server_side else ssl_object.server_hostname
    if host and address and host not in address:
        return f" {host} ({address})"
    return f" {host or address}" if host or address else ""


class TlsInfo:
    """What the two sides of a TLS connection have agreed upon; `ssl_object` has all else: neither read nor write it."""

    __slots__ = {"ssl_object": "The ssl.SSLObject."}

    def __init__(self, ssl_object: ssl.SSLObject) -> None:
        self.ssl_object = ssl_object

    @property
    def version(self) -> str | None:
        """ "TLSv1.3" and the like."""
        return self.ssl_object.version()

    @property
    def cipher(self) -> tuple[str, str, int] | None:
        """The cipher suite: its name, the version of TLS that it is of, and the bits of its key."""
        return self.ssl_object.cipher()

    @property
    def alpn(self) -> str | None:
        """The protocol that was chosen by ALPN, such as "h2"; None if there is none that both have."""
        return self.ssl_object.selected_alpn_protocol()

    @property
    def server_hostname(self) -> str | None:
        """The name that a client has asked for; on a server's side None: its `sni_callback` is told."""
        return self.ssl_object.server_hostname

    @property
    def peer_certificate(self) -> dict[str, Any] | None:
        """The peer's certificate, as `ssl.SSLSocket.getpeercert` has it; None if there is none that was verified."""
        return self.ssl_object.getpeercert() or None

    @property
    def peer_certificate_der(self) -> bytes | None:
        """The peer's certificate, verified or not, in DER; None if it has sent none."""
        return self.ssl_object.getpeercert(binary_form=True)

    @property
    def session(self) -> ssl.SSLSession | None:
        """The session, which `connect(session=)` resumes; with TLS 1.3 it can be used once something was read."""
        return self.ssl_object.session

    @property
    def session_reused(self) -> bool:
        """Whether the session is an earlier one, resumed."""
        return bool(self.ssl_object.session_reused)

    def __repr__(self) -> str:
        cipher = self.cipher
        return f"<TlsInfo {self.version} {cipher[0] if cipher else 'without a cipher'}>"
