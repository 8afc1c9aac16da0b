"""What is asked of TLS is checked before anything begins: contexts, sides, certificates, names."""

from __future__ import annotations

import ssl
import warnings

import pytest

import dangagreen as d
from dangagreen.sockets.tls_options import client_options, host_of, server_options, start_options
from tests.certificates import certificate, client_context, of_version, server_context, versions

LOCAL = ("127.0.0.1", 0)


def without_certificate():
    """A server's context whose cipher suites need one: Python may be built with others among its usual ones."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("DEFAULT:!PSK")
    return context


@pytest.mark.parametrize(
    ("context", "error", "words"),
    [
        (5, TypeError, "SSLContext"),
        (True, TypeError, "SSLContext"),
        (client_context(), ValueError, "a client's"),
        (without_certificate(), ValueError, "no certificate"),
    ],
)
@pytest.mark.parametrize("serve", [d.serve, d.serve_requests])
def test_contexts_that_serve_refuses(loop, serve, context, error, words):
    with pytest.raises(error, match=words):
        serve(LOCAL, lambda sock: None, tls=context)


@pytest.mark.parametrize("version", [None, *versions()])
@pytest.mark.parametrize("loaded", [False, True], ids=["none", "without its key"])
def test_a_context_with_no_certificate_or_one_without_its_key(loop, tmp_path, version, loaded):
    context = of_version(without_certificate(), version)
    if loaded:
        certificate("localhost").cert_chain_pems[0].write_to_path(tmp_path / "server.pem")
        with pytest.raises(ssl.SSLError):
            context.load_cert_chain(tmp_path / "server.pem")
    with pytest.raises(ValueError, match="no certificate"):
        d.serve(LOCAL, lambda sock: None, tls=context)


@pytest.mark.parametrize("version", [None, *versions()])
def test_a_context_with_a_certificate_is_served_whatever_its_version(version):
    assert server_options("serve", server_context(version=version)).server_side


def test_a_context_of_versions_that_are_old_is_served():
    context = server_context()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    assert server_options("serve", context).server_side


def test_a_context_whose_callback_chooses_needs_no_certificate_of_its_own():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sni_callback = lambda *_: None
    assert server_options("serve", context).server_side


def test_a_context_with_cipher_suites_that_need_no_certificate():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("aNULL:@SECLEVEL=0")
    assert server_options("serve", context).server_side


def test_of_the_handshakes_of_a_context_none_is_counted_or_kept():
    context = server_context()
    server_options("serve", context)
    assert context.session_stats()["accept_good"] == 0


@pytest.mark.parametrize(
    ("tls", "name", "error", "words"),
    [
        (None, "localhost", ValueError, "tls is not given"),
        (False, "localhost", ValueError, "tls is not given"),
        (5, None, TypeError, "SSLContext or True"),
        ("", None, TypeError, "SSLContext or True"),  # and no plain connection
        (server_context(), None, ValueError, "a server's"),
        (True, None, ValueError, "give it as server_hostname"),
        (True, 5, TypeError, "is a str"),
    ],
)
def test_what_connect_refuses(loop, tmp_path, tls, name, error, words):
    with pytest.raises(error, match=words):
        d.connect(str(tmp_path / "path"), 30, tls=tls, server_hostname=name)


def test_a_session_without_tls_is_refused():
    with pytest.raises(ValueError, match="session"):
        client_options("connect", None, session=5)


def test_the_host_of_the_address_is_the_name():
    assert client_options("connect", True, address=("example.com", 443)).server_hostname == "example.com"
    assert client_options("connect", True, "other.net", address=("example.com", 443)).server_hostname == "other.net"
    assert client_options("connect", None) is None


@pytest.mark.parametrize(
    ("host", "name"),
    [("example.com.", "example.com"), ("fe80::1%eth0", "fe80::1"), ("::1", "::1"), ("", None), (None, None)],
)
def test_a_name_is_as_certificates_have_it(host, name):
    assert host_of(host) == name


def test_the_context_decides_the_side():
    assert start_options(server_context(), None, None, accepted=False).server_side
    assert not start_options(client_context(), "localhost", None, accepted=True).server_side
    with pytest.warns(DeprecationWarning, match="PROTOCOL_TLS"):
        both = ssl.SSLContext(ssl.PROTOCOL_TLS)
    assert start_options(both, None, None, accepted=True).server_side
    assert not start_options(both, None, None, accepted=False).server_side
    with pytest.raises(ValueError, match="a client's"):
        start_options(server_context(), "localhost", None, accepted=True)
    with pytest.raises(ValueError, match="server_hostname"):
        start_options(client_context(), None, None, accepted=False)


def test_the_usual_context_checks_certificates():
    context = client_options("connect", True, "localhost").context
    assert context.check_hostname
    assert context.verify_mode == ssl.CERT_REQUIRED
