"""The table of parameters of perlbal: what each row has, and the page that is made of it."""

from __future__ import annotations

import pytest

from perlbal.kinds import Networks, Parameter, network
from perlbal.parameters import POOL_TABLE, SERVICE_TABLE
from perlbal_reference import PAGE, page

ROWS = [*SERVICE_TABLE.values(), *POOL_TABLE.values()]


def test_the_page_in_the_docs_is_what_the_table_says():
    """If it is not: `python tests/examples/perlbal_reference.py`."""
    assert PAGE.read_text() == page()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_row_is_whole(row: Parameter):
    assert row.name
    assert row.role in ("*", "reverse_proxy", "web_server", "selector", "pool")
    assert row.help.endswith(".")
    assert row.kind


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("10.0.0.0/8", "10.255.1.2", "11.0.0.1"),
        ("10.0.0.0:255.0.0.0", "10.1.2.3", "11.0.0.1"),
        ("10.1", "10.1.2.3", "10.2.0.0"),
        ("192.168.1.7", "192.168.1.7", "192.168.1.8"),
        ("10.1.2.3/16", "10.1.9.9", "10.2.0.0"),
        ("fe80::/10", "fe80::1", "::1"),
        ("::1", "::1", "::2"),
    ],
)
def test_networks(text, inside, outside):
    assert network(text)
    assert inside in Networks(text)
    assert outside not in Networks(text)
    assert "nonsense" not in Networks(text)


@pytest.mark.parametrize("text", ["", "10.0.0.0/33", "1.2.3.4.5", "x", "10.0.0.0/8,", "::g"])
def test_what_is_no_network(text):
    with pytest.raises(ValueError):
        Networks(text)
