"""TLS to clients: the context of a service's listener. What does not belong here: what is said over TLS."""

from __future__ import annotations

import ssl

from perlbal.services import Service


def server_context(service: Service) -> ssl.SSLContext:
    """Raises OSError, which ssl.SSLError is, for files that are no certificate and no key."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(service.ssl_cert_file, service.ssl_key_file)
    if service.ssl_cipher_list:
        context.set_ciphers(service.ssl_cipher_list)
    if service.ssl_ca_path:
        context.load_verify_locations(capath=service.ssl_ca_path)
    context.verify_mode = VERIFY.get(service.ssl_verify_mode & 3, ssl.CERT_OPTIONAL)
    return context


# The numbers of OpenSSL: 0 asks for no certificate of the client, 1 verifies one if there is one, 2 more demands it.
VERIFY = {0: ssl.CERT_NONE, 3: ssl.CERT_REQUIRED, 2: ssl.CERT_NONE}
