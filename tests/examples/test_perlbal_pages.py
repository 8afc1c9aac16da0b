"""What responses of our own say: pages, reasons, dates."""

from email.utils import parsedate_to_datetime

import pytest

from perlbal.pages import REASONS, http_date, page


def test_dates_are_those_of_the_rfc():
    assert http_date(784111777) == "Sun, 06 Nov 1994 08:49:37 GMT"
    for seconds in range(0, 2_000_000_000, 98_765_432):
        assert parsedate_to_datetime(http_date(seconds)).timestamp() == seconds


@pytest.mark.parametrize("tokens", [True, False])
def test_a_page_is_that_of_the_original(tokens):
    head, body = page(404, "", tokens)
    server = b"Server: Perlbal\r\n" if tokens else b""
    assert head.to_bytes() == (
        b"HTTP/1.0 404 Not Found\r\nContent-Type: text/html\r\nContent-Length: 25\r\n" + server + b"\r\n"
    )
    assert body == b"<h1>404 - Not Found</h1>\n"


@pytest.mark.parametrize("code", [204, 304])
def test_what_may_have_no_body_has_none(code):
    head, body = page(code, "text", True)
    assert [name for name, _ in head.items()] == ["Server"]
    assert body == b""


def test_each_code_has_a_reason():
    assert all(REASONS[code] for code in (200, 201, 204, 206, 304, 400, 403, 404, 408, 411, 413, 414, 416, 431))
    assert (REASONS[400], REASONS[416]) == ("Bad request", "Request range not satisfiable")
