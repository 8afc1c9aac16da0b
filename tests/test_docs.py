"""The documentation is true: its Python runs and prints what it says, it names every name, its links lead somewhere.

Each ```python block of README.md and of the pages in docs is run. The blocks of a page share one namespace and run in
order; each starts with an empty loop, which is reset after it. `__name__` is not "__main__" there, so what serves for
ever goes under `if __name__ == "__main__":`. A block fails by raising, by a warning, by a log record of level WARNING
or above, by an unhandled error or a file descriptor left behind, and by printing something else than the ```text
output block that follows it, where one does. Other blocks are not run, among them ```py, for Python with other
libraries.
"""

import contextlib
import gc
import io
import logging
import re
import signal
import socket
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import pytest

import dangagreen
import dangagreen.bridge
import dangagreen.metrics
import dangagreen.testing
from dangagreen.parks import PARKING
from dangagreen.testing import no_leaks
from tests.programs import free_port, without_slowness

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "examples" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
HEADING = re.compile(r"^#+ (?P<title>.+)$", re.MULTILINE)


@dataclass
class Block:
    page: str
    line: int
    source: str
    output: str | None = None

    def run(self, namespace):
        """Run it; tracebacks name the page and its line."""
        code = compile("\n" * self.line + self.source, self.page, "exec", dont_inherit=True)
        printed = io.StringIO()
        with no_leaks(), contextlib.redirect_stdout(printed):
            try:
                exec(code, namespace)
            finally:
                dangagreen.Socket.reset()
        if self.output is not None:
            assert printed.getvalue() == self.output, f"{self.page}, line {self.line}"


def blocks(page, text):
    """The Python blocks of a page, each with the output that it promises."""
    found, python_ends = [], None
    for fence in FENCE.finditer(text):
        info = fence["info"].strip()
        if info == "text output":
            if python_ends is None or text[python_ends : fence.start()].strip():
                raise ValueError(f"{page}: a block of output does not follow a python block")
            found[-1].output = fence["text"]
        python_ends = None
        if info == "python":
            found.append(Block(page, text.count("\n", 0, fence.start()) + 1, fence["text"]))
            python_ends = fence.end()
    return found


def run_page(page, text, log):
    namespace = {"__name__": "documentation"}
    loop = dangagreen.current_loop()
    slowness = loop.on_slow, loop.slow_seconds
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for block in blocks(page, text):
            block.run(namespace)
            loud = [record.getMessage() for record in log.records if record.levelno >= logging.WARNING]
            assert without_slowness("\n".join(loud)) == "", f"{page}, line {block.line}"
        namespace.clear()
        gc.collect()
    loop.on_slow, loop.slow_seconds = slowness  # a page may show its own


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_run(page, caplog):
    run_page(str(page), page.read_text(), caplog)


@pytest.mark.slow
def test_the_program_of_the_readme_answers_alike_in_both_styles_and_ends_in_silence(tmp_path):
    source = blocks("README.md", (ROOT / "README.md").read_text())[0].source
    program = tmp_path / "program.py"
    ports = [free_port(), free_port()]
    program.write_text(source.replace("7007", str(ports[0])).replace("7008", str(ports[1])))
    with subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            for port in ports:
                with connected(port) as sock:
                    sock.sendall(b"no line")
                    assert sock.recv(100) == b"no line"
                    sock.shutdown(socket.SHUT_WR)
                    assert sock.recv(100) == b""
            process.send_signal(signal.SIGINT)
            assert without_slowness(process.communicate(timeout=30)[0].decode()) == ""
            assert process.returncode == 0
        finally:
            process.kill()


def connected(port):
    """A connection, as soon as somebody listens there."""
    give_up = time.monotonic() + 30
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), 30)
        except ConnectionRefusedError:
            assert time.monotonic() < give_up
            time.sleep(0.02)


@pytest.mark.parametrize(
    "module",
    [dangagreen, dangagreen.bridge, dangagreen.metrics, dangagreen.testing],
    ids=lambda module: module.__name__,
)
def test_reference_has_every_public_name(module):
    reference = (ROOT / "docs" / "reference.md").read_text()
    assert [name for name in module.__all__ if not re.search(rf"`{name}\b", reference)] == []


CLASSES = [
    dangagreen.Socket, dangagreen.Loop, dangagreen.Listener, dangagreen.Task, dangagreen.Timer, dangagreen.CancelScope,
    dangagreen.TaskGroup, dangagreen.Queue, dangagreen.Channel, dangagreen.Future,
]  # fmt: skip
# Public to the library's own modules: the loop's and the scheduler's inner state.
INNER = {
    dangagreen.Loop: "abandon batch begin budget check_thread close_later close_with_thread current discard error_log"
    " green handler_failed handlers interest_changed look_for_a_stall look_ups measurements object_callbacks"
    " own_settings pending_reads post_loop_maps ready register report runnable seems_stalled take_struck timers"
    " to_close to_flush turn unregister wakeup_pair looked post_loop_calls call_took handler_took slow_limit slow_log"
    " slow_in_turn slowest suspect_after after_turn awaited direct drop_instrument end_turn instruments"
    " slow_count error_count accepting onlookers next_task task_call task_looks tasks_since",
    dangagreen.Listener: "acceptor_closed acceptor_failed is_shared limit maker set_up spare stop_accepting"
    " spare tell_of_connections",
    dangagreen.Task: "called cancel_seen cancelled context deadline_timer end end_unstarted ended_by error_retrieved"
    " function"
    " group in_words interrupt joiners origin resume resume_with run scope set_hub start start_next subject task to_hub"
    " begin outcome unflushed_socket update_interrupt wait was_cancelled worker",
    dangagreen.Timer: "context fire",
    dangagreen.TaskGroup: "scope",
    dangagreen.Channel: "queue",
}


@pytest.mark.parametrize("owner", CLASSES, ids=lambda owner: owner.__name__)
def test_reference_has_every_public_attribute(owner):
    reference = (ROOT / "docs" / "reference.md").read_text()
    section = re.search(rf"^## `{owner.__name__}`$(.*?)(?=^## |\Z)", reference, re.MULTILINE | re.DOTALL)
    assert section is not None
    names = {name for cls in owner.__mro__[:-1] for name in vars(cls) if not name.startswith("_")}
    names -= set(INNER.get(owner, "").split())
    assert [name for name in sorted(names) if not re.search(rf"\b{name}\b", section[1])] == []


def is_marked(method):
    """Whether a method may park; one for a syntax of the language bears no mark where it is compiled."""
    owner = getattr(method, "__objclass__", None)
    return getattr(method, "__parks__", False) or (owner and (owner.__module__, method.__qualname__) in PARKING)


def parking_calls():
    """Every public call that may park, in the words of the reference."""
    for name in dangagreen.__all__:
        public = getattr(dangagreen, name)
        if not isinstance(public, type):
            if getattr(public, "__parks__", False):
                yield name
            continue
        for method in dir(public):
            if is_marked(getattr(public, method, None)):
                block = {"__enter__": "with", "__exit__": "with", "__iter__": "for … in", "__next__": "for … in"}.get(
                    method
                )
                yield f"{block} {name}" if block else f"{name}.{method}"


def test_reference_tells_what_each_interrupted_call_leaves_behind():
    reference = (ROOT / "docs" / "reference.md").read_text()
    section = re.search(r"^## What an interrupted call leaves behind$(.*?)^## ", reference, re.MULTILINE | re.DOTALL)
    assert section is not None
    rows = re.findall(r"^\| `(.*?)` \| ", section[1], re.MULTILINE)
    told = {name for row in rows for name in row.split("`, `")}
    assert told == set(parking_calls())


def anchors(text):
    """What GitHub makes of the headings."""
    for heading in HEADING.finditer(FENCE.sub("", text)):
        yield re.sub(r"[^\w\- ]", "", heading["title"].lower()).replace(" ", "-")


def broken_links(page, text):
    for link in LINK.finditer(FENCE.sub("", text)):
        path, _, anchor = link["target"].partition("#")
        if re.match(r"[a-z]+:", path):
            continue
        target = page if not path else page.parent / path
        if not target.exists() or (anchor and anchor not in anchors(target.read_text())):
            yield link["target"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    assert list(broken_links(page, page.read_text())) == []


# What people search for: each is in a page of the guide that treats it, beside the index of terms.
TERMS = """
half-close; back-pressure; flow control; EOF; RST; FIN; hang-up; keep-alive; graceful shutdown; connection draining;
lingering close; SO_LINGER; wait queue; high-water mark; low-water mark; level-triggered; thundering herd;
head-of-line blocking; connection limit; backlog; EMFILE; slowloris; timeout; deadline; idle timeout; cancellation;
structured concurrency; deadlock; fairness; pipelining; framing; short write; write queue; Nagle; TCP_NODELAY;
SO_REUSEPORT; SO_KEEPALIVE; pre-fork; SIGTERM; DNS; connection pool; worker pool; race condition; virtual clock;
mutual exclusion; semaphore; condition variable; event loop; reactor; context variables; self-pipe; proxy; atomic
"""
# Those that name a behaviour, which the reference defines.
DEFINED = """
half-close; back-pressure; flow control; EOF; RST; FIN; hung up; keep-alive; graceful shutdown; lingering close;
wait queue; high-water mark; low-water mark; level-triggered; thundering herd; connection limit; backlog; EMFILE;
timeout; deadline; idle; cancellation; structured concurrency; Deadlock; fairness; pipelining; short write; write queue;
Nagle; TCP_NODELAY; SO_REUSEPORT; SIGTERM; mutual exclusion; condition variable; rendezvous
"""
GUIDE = [page for page in PAGES if page.parent.name == "guide" and page.name != "terms.md"]
INDEX = ROOT / "docs" / "guide" / "terms.md"


def listed(terms):
    return terms.replace("\n", " ").strip().split("; ")


def prose(page):
    """A page without its code, in lower case and in one line: a term may be broken between two."""
    return " ".join(FENCE.sub("", page.read_text()).lower().split())


@pytest.mark.parametrize("term", listed(TERMS))
def test_the_guide_is_found_by_the_terms_of_the_field(term):
    assert any(term.lower() in prose(page) for page in GUIDE)
    assert term.lower().removesuffix("s") in prose(INDEX)


@pytest.mark.parametrize("term", listed(DEFINED))
def test_the_reference_is_found_by_the_terms_of_the_field(term):
    assert term.lower() in prose(ROOT / "docs" / "reference.md")


def test_the_index_of_terms_is_in_order_and_names_the_pages_as_they_are_called():
    rows = re.findall(r"^\| ([^|]+) \| [^|]+ \| \[([^\]]+)\]\(([^)#]+)", INDEX.read_text(), re.MULTILINE)[2:]
    assert len(rows) > 40
    terms = [term.lower().strip("`") for term, _, _ in rows]
    assert terms == sorted(terms)
    for term, title, path in rows:
        assert HEADING.search((INDEX.parent / path).read_text())["title"] == title
        words = [word.strip("` ").lower().removesuffix("s") for word in re.split(r",|\(", term.replace(")", ""))]
        assert any(word in prose(INDEX.parent / path) for word in words), term


OWN_WORDS = r"\bturns?\b|\bpark(s|ed|ing)?\b|\bhub\b|\bscopes?\b"


@pytest.mark.parametrize("page", [*GUIDE, ROOT / "docs" / "guide.md"], ids=lambda page: page.name)
def test_a_word_of_our_own_is_linked_to_its_meaning_where_a_page_first_uses_it(page):
    if page.name == "words.md":
        return
    text = FENCE.sub("", page.read_text())
    used = re.search(OWN_WORDS, re.sub(r"\]\([^)]*\)|`[^`\n]*`", lambda found: " " * len(found[0]), text))
    if used is not None:
        assert re.search(r"\]\((guide/)?words\.md\)", text[: text.find("\n\n", used.end())]), used[0]


# -- these tests can fail


@pytest.mark.parametrize(
    "text",
    [
        "```python\n1 / 0\n```\n",
        "```python\nx = 1\n```\n\n```python\nassert x == 2\n```\n",
        "```python\nprint(1)\n```\n\n```text output\n2\n```\n",
        "```python\nimport warnings\nwarnings.warn('look out')\n```\n",
        "```python\nimport logging\nlogging.getLogger('dangagreen').error('look out')\n```\n",
        "```python\nimport dangagreen.testing as t\nx = t.virtual_loop()\n```\n",
        "```python\nimport dangagreen as d\nd.run(lambda: d.spawn(int, 'x') and d.sleep(0))\n```\n",
        "```python\nprint(1)\n```\nWords.\n```text output\n1\n```\n",
    ],
)
def test_a_bad_page_fails(text, caplog):
    with pytest.raises((Exception, AssertionError)):
        run_page("bad.md", text, caplog)


def test_a_good_page_passes(caplog):
    text = "```python\nx = 1\n```\n```console\n$ rm x\n```\n```python\nprint(x)\n```\n\n```text output\n1\n```\n"
    run_page("good.md", text, caplog)
    assert [(block.line, block.output) for block in blocks("good.md", text)] == [(1, None), (7, "1\n")]


def test_a_broken_link_is_found():
    text = "[a](guide.md) [b](nowhere.md) [c](#one-two) [d](#three) [e](https://example.org/x)\n\n# One: two\n"
    page = ROOT / "docs" / "page.md"
    assert [link for link in broken_links(page, text) if link != "#one-two"] == ["nowhere.md", "#three"]
