"""The table of parameters of perlbal: what each row has, and the page that is made of it."""

from __future__ import annotations

import pytest

from perlbal.kinds import Parameter
from perlbal.parameters import POOL_TABLE, SERVICE_TABLE
from perlbal.services import Service
from perlbal_reference import PAGE, page
from perlbal_worlds import inert_world

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


def test_every_default_of_the_table_can_be_read_and_shown():
    service = Service(inert_world(), "x")
    for row in SERVICE_TABLE.values():
        if row.default is not None:
            assert row.parse(service, row.show(row.initial(service))) == row.initial(service)
