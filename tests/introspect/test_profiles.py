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
