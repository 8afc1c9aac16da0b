"""What mypy --strict says about programs: which handlers it takes, what it infers, and what it refuses.

The package and the examples are checked by `mypy` alone, as `pyproject.toml` has it.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.slow

PAGES = [ROOT / "README.md", ROOT / "examples" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)

PROGRAM = """
import socket
from functools import partial

import dangagreen as d
from dangagreen import Socket
from dangagreen.testing import wire


class Mine(Socket):
    __slots__ = ("color",)

    def __init__(self, sock: d.SocketLike, color: str = "red") -> None:
        super().__init__(sock)
        self.color = color


class Callbacks(Socket):
    __slots__ = ()

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)

    def event_read(self) -> None:
        pass


def handler(sock: Socket) -> None: ...
def mine(sock: Mine) -> None: ...
async def coroutine(sock: Socket) -> None: ...
async def coroutine_of_mine(sock: Mine) -> None: ...


address: d.Address = ("127.0.0.1", 0)

d.serve(address, handler)
d.serve(address, Callbacks)
d.serve(address, partial(Mine, color="blue"))
d.serve(address, mine, socket_class=Mine)
d.serve(address, mine, socket_class=partial(Mine, color="blue"))
d.serve(address, handler, socket_class=Mine)
d.serve(address, lambda sock: sock.write_all(b"x"))
d.serve_requests(address, handler)
d.serve_requests(address, mine, socket_class=Mine)
d.serve(address, coroutine)  # refused
d.serve(address, mine)  # refused
d.serve(address, coroutine_of_mine, socket_class=Mine)  # refused
d.serve_requests(address, coroutine)  # refused
d.serve_requests(address, mine)  # refused
d.serve_requests(address, coroutine_of_mine, socket_class=Mine)  # refused

listener = d.serve(address, handler)
place: d.SocketAddress = listener.address
host, port = listener.address
reveal_type(d.connect(place))  # Socket
reveal_type(d.connect(place, socket_class=Mine))  # Mine

Socket(socket.socketpair()[0])
Socket(wire()[0])
Socket(3)  # refused

queue: d.Queue[int] = d.Queue()
task = d.spawn(d.sleep, 1)
sources: list[d.Selectable] = [queue, task, d.Event(), d.Future[int](), d.current_loop().add_timer(1, print)]
reveal_type(d.select(queue))  # Queue[int]
reveal_type(d.select(queue, task))  # Queue[int] | Task[None]
d.select(*sources)
d.select(d.connect(place), queue, task)
d.select("x")  # refused
"""


def said_by_mypy(tmp_path: Path, *options: str, **sources: str) -> dict[tuple[str, int], str]:
    """(file, line) -> what it says there, of these files."""
    api = pytest.importorskip("mypy.api")
    for name, source in sources.items():
        (tmp_path / f"{name}.py").write_text(source)
    cache = f"--cache-dir={tmp_path / 'cache'}"
    files = [str(tmp_path / f"{name}.py") for name in sources]
    printed, errors, _ = api.run([f"--config-file={ROOT / 'pyproject.toml'}", "--strict", cache, *options, *files])
    assert errors == ""
    lines = re.findall(r"^(?:.*/)?(\w+)\.py:(\d+): (?:error|note): (.*)$", printed, re.MULTILINE)
    return {(name, int(line)): text for name, line, text in lines}


def test_what_is_taken_refused_and_inferred(tmp_path):
    said = {line: text for (_, line), text in said_by_mypy(tmp_path, program=PROGRAM).items()}
    expected = {}
    for line, source in enumerate(PROGRAM.splitlines(), 1):
        _, _, comment = source.partition("  # ")
        if comment:
            expected[line] = comment
    assert said.keys() == expected.keys(), said
    for line, comment in expected.items():
        if comment != "refused":
            inferred = re.sub(r"dangagreen\.[\w.]*\.|program\.", "", said[line])
            assert inferred == f'Revealed type is "{comment}"'


TESTING = "docs_guide_testing_md"  # whose tests and fixtures have no types, as everywhere


def program_of(page):
    """The Python blocks of a page as one program, whose lines have the numbers that they have in the page."""
    text, lines = page.read_text(), []
    for block in FENCE.finditer(text):
        lines += [""] * (text.count("\n", 0, block.start(1)) - len(lines)) + block[1].splitlines()
    return "\n".join(lines) + "\n"


def test_the_documentation_is_strictly_typed(tmp_path):
    programs = {re.sub(r"\W", "_", str(page.relative_to(ROOT))): program_of(page) for page in PAGES}
    programs = {name: source for name, source in programs.items() if source.strip()}
    assert len(programs) > 10
    # the examples of a page have their `main` each
    said = said_by_mypy(tmp_path, "--disable-error-code=no-redef", **programs)
    wanting = {where: text for where, text in said.items() if where[0] != TESTING or "no-untyped-def" not in text}
    assert wanting == {}


def test_a_page_that_is_not_would_be_found(tmp_path):
    assert said_by_mypy(tmp_path, page="def f(x):\n    return x\n").keys() == {("page", 1)}
