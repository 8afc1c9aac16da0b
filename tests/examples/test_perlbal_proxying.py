"""Proxied requests: what passes in both directions, and each point at which one of the sides may leave."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from proxy_wires import ANSWERED, GET, NODE, OK, End, Proxy

POST = b"POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"


def code(response: bytes | None) -> int:
    assert response is not None
    assert response.startswith(b"HTTP/1."), response
    return int(response.split(b" ")[1])


# -- the usual exchange


def test_a_request_and_its_answer(proxy: Proxy) -> None:
    client = proxy.client(
        b"GET /x?y=1 HTTP/1.0\r\nHost: www\r\nX-Forwarded-For: 6.6.6.6\r\nConnection: keep-alive\r\n\r\n"
    )
    assert proxy.answer() == (
        b"GET /x?y=1 HTTP/1.0\r\nHost: www\r\nX-Forwarded-For: 10.0.0.2\r\nConnection: keep-alive\r\n\r\n"
    )
    assert client.received() == ANSWERED
    proxy.check()


def test_connections_are_used_again_on_both_sides(proxy: Proxy) -> None:
    client = proxy.client()
    for _ in range(3):
        client.send(GET)
        proxy.answer()
        assert client.received() == ANSWERED
    assert len(proxy.nodes) == 1
    assert proxy.world.nodes[NODE].requests == 3
    assert list(proxy.world.nodes[NODE].codes) == [200] * 3
    proxy.check()


@pytest.mark.parametrize("step", [1, 2, 7])
def test_both_sides_may_send_in_any_pieces(proxy: Proxy, step: int) -> None:
    client = proxy.client()
    request = POST + b"hello"
    for at in range(0, len(request), step):
        client.send(request[at : at + step])
        proxy.turns(2)
    proxy.turns()
    node = proxy.node()
    assert (node.received() or b"").endswith(b"\r\n\r\nhello")
    for at in range(0, len(OK), step):
        node.send(OK[at : at + step])
        proxy.turns(2)
    assert client.received() == ANSWERED
    proxy.check()


def test_a_body_until_the_backend_closes(proxy: Proxy) -> None:
    client = proxy.client(GET)
    proxy.answer(b"HTTP/1.0 200 fine\r\nX-A: 1\r\n\r\nfirst ")
    assert client.received() == b"HTTP/1.0 200 fine\r\nX-A: 1\r\nConnection: close\r\n\r\nfirst "
    proxy.node().send(b"second")
    proxy.node().close()
    proxy.turns()
    assert client.received() == b"second"
    assert client.ended()
    proxy.check()


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.0 204 No Content\r\nConnection: keep-alive\r\n\r\n", b"HTTP/1.1 304 x\r\n\r\n"]
)
def test_answers_without_a_body_keep_both_connections(proxy: Proxy, answer: bytes) -> None:
    client = proxy.client(GET)
    proxy.answer(answer)
    assert b"Connection: keep-alive" in (client.received() or b"")
    assert proxy.ask(client, GET) == b""
    proxy.answer()
    assert client.received() == ANSWERED
    assert len(proxy.nodes) == 1
    proxy.check()


def test_the_answer_to_head_has_a_length_and_no_body(proxy: Proxy) -> None:
    client = proxy.client(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
    proxy.answer(OK[:-2])
    assert client.received() == ANSWERED[:-2]
    proxy.check()
    assert len(proxy.queues.bored) == 1


def test_a_backend_that_sends_more_than_its_length_is_not_used_again(proxy: Proxy) -> None:
    client = proxy.client(GET)
    proxy.answer(OK + b"more")
    assert client.received() == ANSWERED
    assert proxy.node().near.closed
    proxy.check()


@pytest.mark.parametrize("before", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n" * 2])
def test_what_comes_before_the_answer_is_dropped(proxy: Proxy, before: bytes) -> None:
    client = proxy.client(GET)
    proxy.answer(before + OK)
    assert client.received() == ANSWERED
    proxy.check()


def test_a_chunked_answer_to_http_1_0_is_passed_through(proxy: Proxy) -> None:
    client = proxy.client(GET)
    proxy.answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 9\r\n\r\n2\r\nok\r\n0\r\n\r\n")
    assert client.received() == (
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n2\r\nok\r\n0\r\n\r\n"
    )
    proxy.node().close()
    proxy.turns()
    assert client.ended()
    proxy.check()


def test_a_length_beside_another_coding_is_not_believed(proxy: Proxy) -> None:
    client = proxy.client(GET)
    proxy.answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nContent-Length: 2\r\n\r\nzipped")
    assert client.received() == b"HTTP/1.0 200 OK\r\nTransfer-Encoding: gzip\r\nConnection: close\r\n\r\nzipped"
    proxy.node().close()
    proxy.turns()
    assert client.ended()
    proxy.check()


# -- HTTP/1.1 to backends

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nok\r\n3\r\nyes\r\n0\r\nT: 1\r\n\r\n"


def test_chunks_are_framed_anew_and_both_connections_kept(proxy: Proxy) -> None:
    proxy.set(backend_http_version="1.1")
    client = proxy.client(GET)
    assert proxy.answer(CHUNKED).startswith(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n")
    got = client.received() or b""
    head, _, body = got.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive")
    assert body == b"5\r\nokyes\r\n0\r\n\r\n"
    assert not client.ended()
    assert len(proxy.queues.bored) == 1
    proxy.check()


def test_a_client_of_http_1_0_gets_no_chunks(proxy: Proxy) -> None:
    proxy.set(backend_http_version="1.1")
    client = proxy.client(b"GET / HTTP/1.0\r\n\r\n")
    assert b"Host: 10.0.0.9:80\r\n" in proxy.answer(CHUNKED)
    assert client.received() == b"HTTP/1.0 200 OK\r\nConnection: close\r\n\r\nokyes"
    assert client.ended()
    assert len(proxy.queues.bored) == 1
    proxy.check()


def test_chunks_that_lie_end_the_connection_without_a_last_chunk(proxy: Proxy) -> None:
    proxy.set(backend_http_version="1.1")
    client = proxy.client(GET)
    proxy.answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
    proxy.node().send(b"1\r\nlong\r\n")
    proxy.turns()
    assert (client.received() or b"").endswith(b"2\r\nok\r\n")
    assert client.ended()
    proxy.check()


def test_the_answer_to_head_says_nothing_of_chunks_that_do_not_come(proxy: Proxy) -> None:
    proxy.set(backend_http_version="1.1")
    client = proxy.client(GET.replace(b"GET", b"HEAD"))
    proxy.answer(CHUNKED.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
    assert client.received() == b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nKeep-Alive: timeout=30, max=100\r\n\r\n"
    assert len(proxy.queues.bored) == 1
    proxy.check()


# -- request bodies


def test_a_body_goes_to_the_backend_with_its_head(proxy: Proxy) -> None:
    client = proxy.client(POST + b"hel")
    assert proxy.nodes == []
    client.send(b"lo")
    assert proxy.answer().endswith(b"\r\n\r\nhello")
    assert client.received() == ANSWERED
    proxy.check()


def test_a_long_body_is_sent_on_as_it_comes(proxy: Proxy) -> None:
    proxy.set(buffer_backend_connect="3")
    client = proxy.client(POST + b"hel")
    assert (proxy.node().received() or b"").endswith(b"\r\n\r\nhel")
    client.send(b"lo")
    assert proxy.answer() == b"lo"
    assert client.received() == ANSWERED
    proxy.check()


def test_no_more_is_read_than_a_backend_takes(proxy: Proxy) -> None:
    proxy.set(buffer_backend_connect="0")
    client = proxy.client(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n", capacity=1_000_000)
    proxy.node().received()
    client.send(b"x" * 1_000_000)
    proxy.turns(40)
    assert 0 < proxy.node().near.unsent < 200_000
    assert client.near.paused
    total = 0
    while piece := proxy.node().received(10_000):
        total += len(piece)
        proxy.turns(4)
    assert total == 1_000_000
    proxy.answer()
    assert client.received() == ANSWERED
    proxy.check()


def test_while_nobody_takes_it_only_so_much_of_a_body_is_read(proxy: Proxy) -> None:
    proxy.connects = lambda name: None
    proxy.set(buffer_backend_connect="100k")
    client = proxy.client(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n", capacity=1_000_000)
    client.send(b"x" * 1_000_000)
    proxy.turns(40)
    assert client.near.exchange.collected < 102_400 + 32_768 + 65_536
    assert client.near.paused
    proxy.connect(proxy.node())
    proxy.turns()
    total = 0
    while piece := proxy.node().received(100_000):
        total += len(piece.split(b"\r\n\r\n")[-1])
        proxy.turns(8)
    assert total == 1_000_000
    proxy.answer()
    assert client.received() == ANSWERED
    proxy.check()


def test_expect_is_answered_when_the_body_is_read(proxy: Proxy) -> None:
    client = proxy.client(POST.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
    assert client.received() == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send(b"hello")
    assert b"Expect: 100-continue\r\n" in proxy.answer()
    assert client.received() == ANSWERED
    proxy.check()


def test_an_early_answer_is_passed_on_and_the_rest_of_the_request_dropped(proxy: Proxy) -> None:
    proxy.set(buffer_backend_connect="1")
    client = proxy.client(POST + b"he")
    proxy.answer()
    got = client.received() or b""
    assert b"Connection: close\r\n" in got
    assert got.endswith(b"ok")
    client.send(b"llo")
    proxy.turns()
    assert client.ended()
    assert proxy.node().near.closed
    proxy.check()


def test_requests_behind_a_body_have_to_wait_and_are_answered(proxy: Proxy) -> None:
    client = proxy.client(POST + b"hello\r\n" + POST + b"world" + GET)
    for body in (b"hello", b"world", b""):
        assert proxy.answer().endswith(b"\r\n\r\n" + body)
        assert client.received() == ANSWERED
    assert len(proxy.nodes) == 1
    proxy.check()


def test_what_comes_behind_a_refusal_that_is_not_sent_yet_is_left_alone(proxy: Proxy) -> None:
    proxy.set(backend_http_version="1.1")
    chunked = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    client = proxy.client(capacity=10)
    client.sock.peer.capacity = 100_000  # of the proxy's end: it may be sent more
    client.send(chunked + b"no\r\n")
    proxy.turns()
    client.send(b"more\r\n" * 10)
    got = b""
    for _ in range(100):
        got += client.received() or b""
        proxy.turns(2)
    assert code(got) == 400
    assert got.endswith(b"invalid chunk size")
    assert client.ended()
    proxy.check()


def test_a_request_behind_one_without_a_body_is_refused(proxy: Proxy) -> None:
    client = proxy.client(GET + GET)
    assert b"Can't pipeline to HTTP/1.0" in (client.received() or b"")
    assert client.ended()
    proxy.check()


def test_a_chunked_request_needs_a_length_with_http_1_0(proxy: Proxy) -> None:
    client = proxy.client(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n")
    assert code(client.received()) == 411
    assert client.ended()
    assert proxy.nodes == []
    proxy.check()


def test_a_chunked_request_is_passed_on_with_http_1_1(proxy: Proxy) -> None:
    proxy.set(backend_http_version="1.1")
    client = proxy.client(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2;a\r\na")
    client.send(b"b\r\n0\r\n\r\n" + GET)
    assert proxy.answer().endswith(b"\r\n\r\n1\r\na\r\n1\r\nb\r\n0\r\n\r\n")
    assert client.received() == ANSWERED
    assert proxy.answer().startswith(b"GET / ")
    assert client.received() == ANSWERED
    proxy.check()


@pytest.mark.parametrize(("data", "status"), [(b"x\r\n", 400), (b"2\r\nabc", 400), (b"5\r\nabcde\r\n", 413)])
def test_a_chunked_request_that_lies_or_is_too_long_is_refused(proxy: Proxy, data: bytes, status: int) -> None:
    proxy.set(backend_http_version="1.1", buffer_backend_connect="1", max_chunked_request_size="4")
    client = proxy.client(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    client.send(b"1\r\nA\r\n" + data)
    proxy.turns()
    assert code(client.received()) == status
    assert client.ended()
    proxy.check()


# -- back-pressure of the client


def test_a_slow_client_stops_the_backend(proxy: Proxy) -> None:
    proxy.set(buffer_size="100k")
    proxy.capacity = 1_000_000
    client = proxy.client(GET, capacity=10_000)
    proxy.answer(b"HTTP/1.0 200 OK\r\nContent-Length: 900000\r\n\r\n" + b"x" * 900_000)
    proxy.turns(40)
    assert 100_000 < client.near.unsent < 300_000
    assert client.near.exchange.held
    total = 0
    while piece := client.received(5_000):
        total += len(piece)
        proxy.turns(3)
    assert total > 900_000
    proxy.check()


def test_a_client_that_stops_reading_is_closed_and_its_backend_freed(
    proxy: Proxy, advance: Callable[[float], None]
) -> None:
    proxy.set(buffer_size="10k", client_stall_timeout="5", idle_timeout="100")
    proxy.capacity = 1_000_000
    client = proxy.client(GET, capacity=1000)
    proxy.answer(b"HTTP/1.0 200 OK\r\nContent-Length: 900000\r\n\r\n" + b"x" * 900_000)
    advance(4)
    assert not client.near.closed
    advance(3)
    assert client.near.closed
    proxy.check()


def test_a_client_may_read_slowly_after_a_long_wait(proxy: Proxy, advance: Callable[[float], None]) -> None:
    proxy.set(buffer_size="10k", client_stall_timeout="5", idle_timeout="100", backend_timeout="100")
    proxy.capacity = 1_000_000
    client = proxy.client(GET, capacity=1000)
    advance(20)
    proxy.answer(b"HTTP/1.0 200 OK\r\nContent-Length: 50000\r\n\r\n" + b"x" * 50_000)
    total = 0
    for _ in range(100):
        total += len(client.received() or b"")
        advance(1)
    assert total > 50_000
    proxy.check()


# -- the client leaves


LEAVES: dict[str, Callable[[End], None]] = {"closes": End.close, "resets": End.reset}


@pytest.mark.parametrize("leave", LEAVES.values(), ids=LEAVES)
@pytest.mark.parametrize("point", range(8))
def test_a_client_leaves(
    proxy: Proxy, point: int, leave: Callable[[End], None], advance: Callable[[float], None]
) -> None:
    proxy.set(buffer_backend_connect="1")
    proxy.connects = (lambda name: None) if point == 3 else proxy.connects
    client = proxy.client()
    steps = [
        lambda: client.send(POST[:10]),
        lambda: client.send(POST[10:]),
        lambda: client.send(b"h"),  # the backend is asked for
        lambda: client.send(b"el"),
        lambda: client.send(b"lo"),
        lambda: proxy.node().send(OK[:10]),
        lambda: proxy.node().send(OK[10:-1]),
        lambda: proxy.node().send(OK[-1:]),
    ]
    for step in steps[: point + 1]:
        step()
        proxy.turns()
    leave(client)
    proxy.turns()
    assert client.near.closed
    if point == 3:
        proxy.connect(proxy.node())  # nobody waits for it any more
    proxy.check()
    assert [end.near.closed for end in proxy.nodes] == ([] if point < 2 else [point not in (3, 7)])


# -- the backend leaves


@pytest.mark.parametrize("leave", LEAVES.values(), ids=LEAVES)
@pytest.mark.parametrize(
    "sent", [b"", b"HTTP/1.0 2", b"garbage\r\n\r\n", b"HTTP/1.0 200 OK\r\nContent-Length: x\r\n\r\n"]
)
def test_a_backend_leaves_before_its_answer(proxy: Proxy, sent: bytes, leave: Callable[[End], None]) -> None:
    client = proxy.client(GET)
    proxy.answer(sent)
    leave(proxy.node())
    proxy.turns()
    assert code(client.received()) == 502
    assert not client.ended()  # it may ask again
    client.send(GET)
    proxy.answer()
    assert client.received() == ANSWERED
    proxy.check()


@pytest.mark.parametrize("leave", LEAVES.values(), ids=LEAVES)
def test_a_backend_leaves_in_the_middle_of_its_answer(proxy: Proxy, leave: Callable[[End], None]) -> None:
    client = proxy.client(GET)
    proxy.answer(OK[:-1])
    leave(proxy.node())
    proxy.turns()
    assert client.received() == ANSWERED[:-1]
    assert client.ended()
    proxy.check()


def test_what_a_backend_has_sent_before_it_left_comes_to_a_slow_client(proxy: Proxy) -> None:
    proxy.set(buffer_size="10k")
    proxy.capacity = 1_000_000
    client = proxy.client(GET, capacity=1000)
    proxy.answer(b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * 500_000)
    proxy.node().close()
    total = b""
    for _ in range(5000):
        if (piece := client.received(5_000)) is None:
            break
        total += piece
        proxy.turns(1)
    assert len(total.partition(b"\r\n\r\n")[2]) == 500_000
    assert client.ended()
    proxy.check()


def test_an_endless_head_of_a_backend_is_refused(proxy: Proxy) -> None:
    proxy.capacity = 2_000_000
    client = proxy.client(GET)
    proxy.answer(b"HTTP/1.0 200 OK\r\nX: " + b"y" * 1_000_000)
    answer = client.received() or b""
    assert code(answer) == 502
    assert answer.endswith(b"\nThe backend's answer is no HTTP: The header is too large")
    proxy.check()


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_backend_that_closes_just_as_it_is_used_again_is_replaced_once(proxy: Proxy, method: str) -> None:
    request = GET.replace(b"GET", method.encode())
    answer = OK if method == "GET" else OK[:-2]
    client = proxy.client(request)
    proxy.answer(answer)
    client.received()
    client.send(request)
    proxy.turns()
    proxy.node().close()
    proxy.turns()
    assert len(proxy.nodes) == 2
    assert proxy.answer(answer).startswith(request[:10])
    assert code(client.received()) == 200
    assert proxy.world.nodes[NODE].failures == 0
    client.send(request)
    proxy.turns()
    proxy.node().close()
    proxy.turns()
    proxy.node().close()  # a fresh one, too
    proxy.turns()
    assert code(client.received()) == 502
    proxy.check()


def test_it_is_replaced_by_a_fresh_one_though_others_are_idle(proxy: Proxy) -> None:
    for _ in range(2):
        proxy.client(GET)
    for number in range(2):
        proxy.answer(number=number)
    assert len(proxy.queues.bored) == 2
    client = proxy.client(GET)
    used = client.near.exchange.backend
    next(node for node in proxy.nodes if node.near is used).close()
    proxy.turns()
    assert len(proxy.nodes) == 3
    proxy.answer()
    assert client.received() == ANSWERED
    proxy.check()


def test_a_post_is_never_repeated(proxy: Proxy) -> None:
    client = proxy.client(GET)
    proxy.answer()
    client.received()
    client.send(POST + b"hello")
    proxy.turns()
    proxy.node().close()
    proxy.turns()
    assert code(client.received()) == 502
    assert len(proxy.nodes) == 1
    proxy.check()


def test_a_post_gets_no_connection_whose_end_has_come_already(proxy: Proxy) -> None:
    client = proxy.client(GET)
    proxy.answer()
    client.received()
    proxy.node().close()  # in the same turn
    client.send(POST + b"hello")
    assert proxy.answer().startswith(b"POST ")
    assert client.received() == ANSWERED
    assert len(proxy.nodes) == 2
    proxy.check()


@pytest.mark.parametrize("said", [b"garbage\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"])
def test_what_has_said_anything_is_not_asked_again(proxy: Proxy, said: bytes) -> None:
    client = proxy.client(GET)
    proxy.answer()
    client.received()
    client.send(GET)
    proxy.answer(said)
    proxy.node().close()
    proxy.turns()
    assert code(client.received()) == 502
    assert len(proxy.nodes) == 1
    proxy.check()


def test_what_has_begun_to_answer_is_not_asked_again(proxy: Proxy) -> None:
    client = proxy.client(GET)
    proxy.answer()
    client.received()
    client.send(GET)
    proxy.answer(b"H")
    proxy.node().close()
    proxy.turns()
    assert code(client.received()) == 502
    assert len(proxy.nodes) == 1
    proxy.check()


def test_what_the_log_is_told(proxy: Proxy, advance: Callable[[float], None]) -> None:
    proxy.connects = lambda name: None
    client = proxy.client(GET)
    exchange = client.near.exchange
    advance(0.25)
    proxy.connect(proxy.node())
    proxy.turns()
    advance(0.5)
    proxy.answer()
    assert (exchange.node, exchange.queue_seconds, exchange.connect_seconds) == (NODE, 0.25, 0.25)
    assert exchange.response_seconds == 0.5


# -- time


def test_a_silent_backend_is_a_504(proxy: Proxy, advance: Callable[[float], None]) -> None:
    proxy.set(backend_timeout="7", idle_timeout="100")
    client = proxy.client(GET)
    advance(6.5)
    assert client.received() == b""
    advance(1)
    assert code(client.received()) == 504
    assert proxy.node().near.closed
    assert proxy.world.nodes[NODE].failures == 1
    proxy.check()


def test_idle_timeout_is_no_silence(proxy: Proxy, advance: Callable[[float], None]) -> None:
    proxy.set(idle_timeout="3")
    client = proxy.client(GET)
    advance(4)
    client.near.look_at_clock(proxy.loop.now)
    proxy.turns()
    assert code(client.received()) == 504
    proxy.check()


def test_a_backend_that_makes_progress_is_not_given_up(proxy: Proxy, advance: Callable[[float], None]) -> None:
    proxy.set(backend_timeout="3", idle_timeout="3")
    client = proxy.client(GET)
    proxy.answer(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n")
    for _ in range(5):
        advance(2)
        client.near.look_at_clock(proxy.loop.now)
        proxy.node().send(b"x")
    proxy.turns()
    assert (client.received() or b"").endswith(b"\r\n\r\nxxxxx")
    proxy.check()


# -- retries


def test_a_500_is_tried_again_by_the_schedule_and_passed_on_at_its_end(
    proxy: Proxy, advance: Callable[[float], None]
) -> None:
    proxy.set(enable_error_retries="on", error_retry_schedule="0,1")
    bad = b"HTTP/1.0 500 Oops\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nno"
    client = proxy.client(GET)
    proxy.answer(bad)
    proxy.turns()
    assert len(proxy.nodes) == 2
    proxy.answer(bad)
    assert (client.received(), len(proxy.nodes)) == (b"", 2)
    advance(1)
    assert len(proxy.nodes) == 3
    proxy.answer(bad)
    assert (client.received() or b"").startswith(b"HTTP/1.0 500 Oops\r\n")
    proxy.check()


def test_a_client_may_leave_between_two_trials(proxy: Proxy) -> None:
    proxy.set(enable_error_retries="on", error_retry_schedule="5")
    client = proxy.client(GET)
    proxy.answer(b"HTTP/1.0 500 Oops\r\n\r\n")
    client.close()
    proxy.turns()
    proxy.check()


def test_other_methods_are_not_tried_again(proxy: Proxy) -> None:
    proxy.set(enable_error_retries="on")
    client = proxy.client(GET.replace(b"GET", b"GETX"))
    proxy.answer(b"HTTP/1.0 500 Oops\r\nContent-Length: 0\r\n\r\n")
    assert code(client.received()) == 500
    proxy.check()
