"""A profile as data, what took longest first, with bytes from the import of introspect on."""

import sys

import pytest

from tests.introspect.seeing import answers


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel does not tell")
def test_a_profile_is_rows_of_plain_values():
    seen = answers("""
class Echo(d.Socket):
    __slots__ = ()
    def event_read(self):
        data = self.read(100)
        self.close() if data is None else self.write(data)

def main():
    with d.connect(d.serve(("127.0.0.1", 0), Echo).address) as sock:
        for _ in range(3):
            sock.write_all(b"12345\\n")
            sock.read_line()

d.Socket.enable_profiling()
d.run(main)
rows = introspect.profile(d.current_loop())
answers["sorted"] = [row.seconds for row in rows] == sorted((row.seconds for row in rows), reverse=True)
(echo,) = (row for row in rows if row.name == "Echo-read")
answers["echo"] = [echo.calls >= 3, echo.bytes_in, echo.bytes_out, echo.user + echo.system >= 0]
""")
    assert seen == {"sorted": True, "echo": [True, 18, 18, True]}


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel does not tell")
@pytest.mark.parametrize("parks", [False, True])
def test_replies_that_are_sent_at_the_end_of_a_turn_are_those_of_the_handler_that_has_written_them(parks):
    seen = answers(f"""
def answer(sock):
    line = sock.read_line()
    if {parks}:
        d.sleep(0.001)
    sock.write_all(line * 10)

def main():
    with d.serve_requests(("127.0.0.1", 0), answer) as server, d.connect(server.address) as sock:
        for _ in range(20):
            sock.write_all(b"x" * 99 + b"\\n")
            sock.read_exactly(1000)

d.Socket.enable_profiling()
d.run(main)
rows = [row for row in introspect.profile(d.current_loop()) if row.name.startswith("answer")]
answers["in"], answers["out"] = sum(row.bytes_in for row in rows), sum(row.bytes_out for row in rows)
""")
    assert seen == {"in": 2000, "out": 20000}
