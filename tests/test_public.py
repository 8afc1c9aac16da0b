"""Public things are one thing each, and say where they are found."""

from __future__ import annotations

import inspect
import pickle
import pydoc
import re
import typing

import pytest

import dangagreen as d
import dangagreen.bridge
import dangagreen.testing

PUBLIC = [
    pytest.param(package, name, id=f"{package.__name__}.{name}")
    for package in (d, dangagreen.bridge, dangagreen.testing)
    for name in package.__all__
    if name not in ("BLOCK", "Address", "Selectable", "SocketAddress")  # a value, aliases of types
]


@pytest.mark.parametrize(("package", "name"), PUBLIC)
def test_a_public_thing_says_where_it_is_found(package, name):
    thing = getattr(package, name)
    if thing.__module__ not in ("queue", "threading"):  # the standard library's, if it has that
        assert thing.__module__ == package.__name__
    assert thing.__qualname__ == name
    assert pickle.loads(pickle.dumps(thing)) is thing
    typing.get_type_hints(thing)
    assert inspect.getdoc(thing)
    if inspect.isfunction(thing):
        assert inspect.getsource(thing).lstrip().startswith(("def ", "@"))


def test_users_see_one_class_socket():
    assert [base.__module__ for base in d.Socket.__mro__ if base.__name__ == "Socket"] == ["dangagreen"]
    assert repr(d.Socket) == "<class 'dangagreen.Socket'>"
    assert "function Socket.read_line " in repr(d.Socket.read_line)  # a cyfunction, where it is compiled
    with pytest.raises(TypeError, match=r"read_some\(\) got an unexpected"):
        d.Socket.read_some(None, size=3)


CLASSES = [thing for thing in (getattr(d, name) for name in d.__all__) if isinstance(thing, type)]


@pytest.mark.parametrize(
    "owner",
    [owner for owner in CLASSES if not issubclass(owner, BaseException) and owner not in (typing.Any, d.SocketLike)],
    ids=lambda owner: owner.__name__,
)
def test_every_public_attribute_has_a_text_in_pydoc(owner):
    classes = "".join(base.__doc__ or "" for base in owner.__mro__)  # which tell of settings, plain values
    slots = {name for base in owner.__mro__ for name in vars(base).get("__slots__", ())}
    for name in dir(owner):
        if not name.startswith("_") and not (d.compiled and name in slots):  # declared ones have no text
            thing = inspect.getattr_static(owner, name)
            told = inspect.getdoc(thing) if hasattr(thing, "__get__") else f"`{name}`" in classes
            assert told, name


def test_pydoc_of_a_socket_reads_well():
    text = pydoc.render_doc(d.Socket, renderer=pydoc.plaintext)
    assert "class Socket in module dangagreen" in text
    assert "dangagreen.sockets.sock.Socket" not in text
    assert d.compiled or "The number of the OS socket's file descriptor." in text


def test_pydoc_of_a_task_reads_well():
    text = pydoc.render_doc(d.Task, renderer=pydoc.plaintext)
    assert "class Task in module dangagreen" in text
    assert "never park" in text
    for name in () if d.compiled else ("name", "error_retrieved", "done", "loop", "unflushed_socket"):
        assert re.search(rf"^ \|  {name}\n \|      \w", text, re.MULTILINE), name
