"""What holds for all examples."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from programs import EXAMPLES, run
from tests.programs import needed


def test_every_example_has_tests() -> None:
    """A file for each module: `test_miniredis_keys.py` for `miniredis/keys.py`."""
    modules = [path.relative_to(EXAMPLES).with_suffix("") for path in EXAMPLES.rglob("*.py") if path.name[0] != "_"]
    names = {f"test_{'_'.join(module.parts)}.py" for module in modules}
    assert len(names) > 15
    assert {name for name in names if not (Path(__file__).parent / name).exists()} == set()


@pytest.mark.parametrize("name", ["echo", "chat", "miniredis"])
def test_a_port_in_use_is_told_in_a_line(name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        status, output, complaint = run(name, "--port", port)
    assert (status, output) == (1, "")
    assert complaint.startswith(f"{name}: ")
    assert port in complaint
    assert complaint.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("echo", "how it is written"),
        ("chat", "time to log in"),
        ("crawler", "pages at a time"),
        ("gateway", "calls to both"),
        ("miniredis", "picks"),
        ("prices", "event loop"),
    ],
)
def test_help_tells_what_an_option_is_and_its_default(name: str, words: str) -> None:
    for module in {"gateway": ("asyncpg", "httpx"), "prices": ("fastapi", "uvicorn")}.get(name, ()):
        needed(module)
    status, output, complaint = run(name, "--help")
    assert (status, complaint) == (0, "")
    assert words in output
    options = output.count("\n  --")
    assert options == output.count("(default:") > 0
