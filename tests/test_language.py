"""The language of the sources: docstrings that stand by themselves, plain words, a purpose for each module, a sentence
for each slot."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

from tests.helpers import nodes

PACKAGE = Path(__file__).parent.parent / "dangagreen"
SOURCES = {path.relative_to(PACKAGE.parent).as_posix(): path.read_text() for path in sorted(PACKAGE.rglob("*.py"))}

# A docstring that begins so needs the sentence before it, which pydoc does not show.
LEANING = (
    "The same|Or|And|But|Nor|Also|So|Again|Likewise|Otherwise|Ditto|As above|As before|See there|One more|It|Its|They"
    "|Their|Those|These|Not|Too|Is it|Has it|Has its|Have it|Have its|Does it|Did it"
)
LEANS = re.compile(rf"(?:{LEANING})\b(?! `)")
# Plain technical English says who: the caller, the peer, another task, the loop.
OBSCURE = re.compile(
    r"\bwhoever\b|\bsomebody\b|\beverybody\b|\banybody\b|\btold of\b|\bis let be\b|\bbears? with\b|\btime and again\b"
    r"|\bbehind our back\b|\bis at it\b",
    re.IGNORECASE,
)


def docstrings(source):
    """(line, name, text) of the docstrings of a module, its classes and its functions."""
    for node in nodes(source):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and (text := ast.get_docstring(node)):
            yield getattr(node, "lineno", 1), getattr(node, "name", "module"), text


def leaning(source):
    return [f"{line}: {name}: {text[:60]}" for line, name, text in docstrings(source) if LEANS.match(text)]


def obscure(source):
    """What comments, docstrings and messages of a source say in words of this kind."""
    kinds = (tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING))
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    texts = [(token.start[0], token.string) for token in tokens if token.type in kinds]
    return [f"{line}: {found[0]}" for line, text in texts for found in OBSCURE.finditer(text)]


@pytest.mark.parametrize("name", SOURCES)
def test_a_docstring_stands_by_itself(name):
    assert leaning(SOURCES[name]) == []


@pytest.mark.parametrize("name", SOURCES)
def test_comments_and_messages_say_who(name):
    assert obscure(SOURCES[name]) == []


@pytest.mark.parametrize("name", [name for name in SOURCES if not name.endswith(("__init__.py", "__main__.py"))])
def test_a_module_says_what_it_is_for_its_rules_and_what_does_not_belong(name):
    opening = " ".join((ast.get_docstring(nodes(SOURCES[name])[0]) or "").split())
    assert opening
    assert "Rules:" in opening
    assert "does not belong here" in opening or "Not modelled" in opening


def written_slots():
    """(where, slot, its sentence) for each slot in the sources: from a dict of `__slots__`, or from the comment that
    stands beside its assignment in `__init__`; "" where there is none."""
    for path, source in SOURCES.items():
        lines = source.splitlines()
        for cls in nodes(source):
            if not isinstance(cls, ast.ClassDef):
                continue
            for slot, sentence in slots_of(cls):
                yield f"{path}: {cls.name}.{slot}", sentence or comment_on(cls, slot, lines)


def slots_of(cls):
    for node in cls.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__slots__":
            if isinstance(node.value, ast.Dict):
                for key, value in zip(node.value.keys, node.value.values, strict=True):
                    if key is None:  # **dict.fromkeys((...)): names without sentences
                        yield from ((name.value, "") for name in ast.walk(value) if isinstance(name, ast.Constant))
                    else:
                        yield key.value, value.value if isinstance(value, ast.Constant) else ""
            else:
                yield from ((name.value, "") for name in ast.walk(node.value) if isinstance(name, ast.Constant))


def comment_on(cls, slot, lines):
    """The comment at the end of the line in which `__init__` gives the slot its value, or a class's body its type."""
    for node in ast.walk(cls):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(
            getattr(target, "attr", getattr(target, "id", None)) == slot for target in targets if target is not None
        ):
            _, mark, comment = lines[node.end_lineno - 1].partition("  # ")
            if mark and not comment.startswith(("type:", "noqa")):
                return comment
    return ""


def test_every_slot_has_a_sentence():
    slots = dict(written_slots())
    assert len(slots) > 150
    assert [where for where, sentence in slots.items() if not sentence and not where.endswith("__weakref__")] == []


# -- these tests can fail


@pytest.mark.parametrize(
    "text", ["The same, later.", "Or raise.", "It is closed.", "And back.", "Is it open?", "Not after the end."]
)
def test_a_leaning_docstring_is_found(text):
    assert leaning(f'def f():\n    """{text}"""\n')


@pytest.mark.parametrize("text", ["Items of a queue.", "Itself.", "Order of events.", "Whether it is open."])
def test_a_docstring_that_stands_by_itself_passes(text):
    assert leaning(f'def f():\n    """{text}"""\n') == []


def test_obscure_words_are_found_wherever_they_are_read():
    source = (
        'x = 1  # for whoever asks\ndef f():\n    """Tell somebody."""\n    raise ValueError(f"{x}: it is let be")\n'
    )
    assert len(obscure(source)) == 3
    assert obscure("somebody = 1\n") == []


def test_a_slot_without_a_sentence_is_found():
    source = (
        'class A:\n    __slots__ = {"a": "One.", **dict.fromkeys(("b", "c"))}\n'
        "    def __init__(self):\n        self.b = 1  # two\n        self.c = 3\n"
    )
    (cls,) = ast.parse(source).body
    found = {slot: sentence or comment_on(cls, slot, source.splitlines()) for slot, sentence in slots_of(cls)}
    assert found == {"a": "One.", "b": "two", "c": ""}
