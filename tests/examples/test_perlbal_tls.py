"""TLS to clients: what is asked of it by parameters, and certificates that are read again."""

from __future__ import annotations

import ssl

import pytest

from perlbal.clients import HttpRole
from perlbal.tls import server_context
from perlbal_talk import served
from tests.certificates import AUTHORITY, certificate


@pytest.fixture
def service(loop, tmp_path):
    write(tmp_path, "localhost")
    with served(ssl_key_file=tmp_path / "key.pem", ssl_cert_file=tmp_path / "cert.pem") as service:
        yield service


def write(directory, *names):
    """A certificate for these names, and its key."""
    issued = certificate(*names)
    issued.private_key_pem.write_to_path(directory / "key.pem")
    (directory / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))


def names_shown(context, name):
    """The names in the certificate that a client is shown, in memory."""
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    AUTHORITY.configure_trust(trusting)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(there, back, server_side=True)
    client = trusting.wrap_bio(back, there, server_hostname=name)
    for _ in range(3):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                pass
    return [value for _, value in client.getpeercert()["subjectAltName"]]


def test_certificates_are_read_again_on_request(service, tmp_path):
    role = HttpRole(service)
    role.tls = server_context(service)
    assert names_shown(role.tls, "localhost") == ["localhost"]
    write(tmp_path, "other.example")
    assert names_shown(role.tls, "localhost") == ["localhost"]
    role.reread_certificates()
    assert names_shown(role.tls, "other.example") == ["other.example"]


def test_without_tls_there_is_nothing_to_read(service):
    HttpRole(service).reread_certificates()


@pytest.mark.parametrize(
    ("mode", "expected"), [(0, ssl.CERT_NONE), (1, ssl.CERT_OPTIONAL), (2, ssl.CERT_NONE), (3, ssl.CERT_REQUIRED)]
)
def test_the_numbers_of_openssl_say_whether_clients_need_certificates(service, mode, expected):
    service.set("ssl_verify_mode", str(mode))
    assert server_context(service).verify_mode == expected


def test_files_that_are_no_certificate_are_an_error(service, tmp_path):
    (tmp_path / "cert.pem").write_text("nonsense")
    with pytest.raises(OSError):
        server_context(service)
    service.set("ssl_cipher_list", "NONSENSE")
    write(tmp_path, "localhost")
    with pytest.raises(OSError):
        server_context(service)
