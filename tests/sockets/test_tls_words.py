"""What is said of TLS that was refused: whose refusal it was, whom it met, and why."""

from __future__ import annotations

import socket
import ssl

import pytest

import dangagreen as d
from dangagreen.sockets.tls import TlsSocket
from tests.certificates import STRANGER, ByHand, client_context, server_context, shake_hands, versions


def refused(wires, client, server, name="localhost"):
    """What both sides say after a handshake that fails: the client's error, the server's."""
    one, two = wires()
    mine, other = TlsSocket(one, client, False, name), TlsSocket(two, server, True)
    errors = {}
    for _ in range(8):
        for side, end in (("client", mine), ("server", other)):
            if side not in errors:
                try:
                    end.go_on()
                    if side == "client":
                        end.recv(1)  # under TLS 1.3 the server's refusal comes after the handshake
                except BlockingIOError:
                    pass
                except OSError as error:
                    errors[side] = error
    return errors["client"], errors["server"]


def without_certificate():
    context = server_context()
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def no_common_version():
    return client_context(ssl.TLSVersion.TLSv1_2), server_context(version=ssl.TLSVersion.TLSv1_3)


CASES = {
    "unknown authority": (lambda v: (client_context(v), server_context(authority=STRANGER)), "client", "unknown ca"),
    "another name": (lambda v: (client_context(v), server_context("else.where")), "client", "bad certificate"),
    "no certificate": (lambda v: (client_context(v), without_certificate()), "server", ""),
}


@pytest.mark.parametrize("version", versions(), ids=lambda version: version.name)
@pytest.mark.parametrize("case", CASES)
def test_both_sides_say_whose_refusal_it_was(wires, case, version):
    contexts, who, alert = CASES[case]
    theirs, ours = refused(wires, *contexts(version))
    assert (theirs.refused_by, ours.refused_by) == (who, who), (theirs, ours)
    for error, peer in ((theirs, "server"), (ours, "client")):
        assert isinstance(error, d.TlsError)
        assert f"the {peer}" in str(error)
        assert error.reason
    assert "localhost" in str(theirs)
    assert alert in str(ours)


def test_no_common_version(wires):
    theirs, ours = refused(wires, *no_common_version())
    assert "no version" in str(ours)
    assert "protocol version" in str(theirs)
    assert theirs.refused_by == ours.refused_by == "server"


def test_an_expired_certificate_is_called_expired(wires):
    import datetime

    from tests.certificates import AUTHORITY

    past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert("localhost", not_before=past - datetime.timedelta(days=5), not_after=past).configure_cert(
        context
    )
    theirs, ours = refused(wires, client_context(), context)
    assert "certificate has expired" in str(theirs)
    assert "certificate expired" in str(ours)


def test_a_peer_that_speaks_no_tls(wires):
    one, two = wires()
    mine = TlsSocket(one, client_context(), False, "localhost")
    with pytest.raises(BlockingIOError):
        mine.go_on()
    two.send(b"220 mail.example.com ESMTP\r\n")
    with pytest.raises(d.TlsError, match=r"the server localhost.*is no TLS"):
        mine.go_on()


def test_a_peer_that_ends_within_the_handshake(wires):
    one, two = wires()
    mine = TlsSocket(one, client_context(), False, "localhost")
    with pytest.raises(BlockingIOError):
        mine.go_on()
    two.shutdown(socket.SHUT_WR)
    with pytest.raises(d.TlsError, match="within the TLS handshake") as caught:
        mine.go_on()
    assert caught.value.refused_by is None


@pytest.mark.parametrize("request_line", [b"GET / HTTP/1.1\r\n\r\n", b"CONNECT a:1 HTTP/1.1\r\n\r\n"])
def test_plain_http_is_answered_in_plain_words(wires, request_line):
    one, two = wires()
    server = TlsSocket(one, server_context(), True)
    two.send(request_line)
    with pytest.raises(d.TlsError, match="plain HTTP") as caught:
        server.go_on()
    assert caught.value.refused_by == "server"
    answer = two.recv(1000)
    assert answer.startswith(b"HTTP/1.0 400 ")
    assert b"use https" in answer


def test_the_alert_is_sent_before_anything_is_closed(wires):
    one, two = wires()
    mine = TlsSocket(one, client_context(), False, "localhost")
    peer = ByHand(two, server_context(authority=STRANGER), True)
    with pytest.raises(d.TlsError):
        shake_hands(mine, peer)
    with pytest.raises(ssl.SSLError, match="UNKNOWN_CA"):
        peer.go_on()


def test_errors_can_be_pickled():
    import pickle

    error = pickle.loads(pickle.dumps(d.TlsError("words", "REASON", "client")))
    assert (str(error), error.reason, error.refused_by) == ("words", "REASON", "client")
    assert error.errno is not None
    assert str(pickle.loads(pickle.dumps(d.TruncatedError("cut")))) == "cut"
