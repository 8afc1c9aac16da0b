"""Addresses: which are taken, what is said of others, paths of Unix sockets."""

import errno
import os
import pathlib
import socket
import sys

import pytest

from dangagreen import Socket, connect, serve
from dangagreen.sockets.addresses import _LONGEST_PATH as LONGEST_PATH
from dangagreen.sockets.addresses import host_and_port, public, unix_path

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="abstract Unix names are Linux's")


def echo(sock):
    while data := sock.read_some():
        sock.write_all(data)


@pytest.fixture
def served(active_loop):
    listeners = []

    def served(address, handler=echo, **options):
        listeners.append(serve(address, handler, **options))
        return listeners[-1]

    yield served
    for listener in listeners:
        listener.close()


def says(address):
    """What a server answers to a client that comes by this address."""
    with connect(address, 5) as sock:
        sock.write_all(b"hello")
        return sock.read_exactly(5)


def descriptors():
    return len(os.listdir("/dev/fd"))


# -- Unix sockets


@LINUX
@pytest.mark.parametrize("kind", [os.fsencode, os.fsdecode], ids=["bytes", "str"])
def test_an_abstract_name_is_served_and_its_listeners_address_can_be_connected_to(real_loop, served, kind):
    name = kind(b"\0dangagreen test %d" % os.getpid())
    listener = served(name)
    assert listener.address == os.fsencode(name)
    assert says(listener.address) == says(name) == b"hello"


@LINUX
def test_an_abstract_name_may_hold_what_a_path_may_not_and_leaves_no_file(real_loop, served, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    listener = served(b"\0a\0b\xff:80 %d" % os.getpid())
    assert says(listener.address) == b"hello"
    listener.close()
    assert list(tmp_path.iterdir()) == []


def test_a_path_may_be_bytes(real_loop, served, tmp_path):
    path = os.fsencode(tmp_path / "socket")
    listener = served(path)
    assert says(path) == says(listener.address) == b"hello"
    listener.close()
    real_loop.run(lambda: True)
    assert not os.path.exists(path)


NO_PATHS = {
    "108": ("x" * 108, errno.ENAMETOOLONG),
    "300": ("x" * 300, errno.ENAMETOOLONG),
    "nul": ("a\0b", errno.EINVAL),
    "empty": ("", errno.EINVAL),
}
KINDS = {"str": str, "bytes": os.fsencode, "path": pathlib.PurePath}


@pytest.mark.parametrize("use", [lambda address: serve(address, echo), connect], ids=["serve", "connect"])
@pytest.mark.parametrize(
    ("address", "number"),
    [
        pytest.param(kind(name), number, id=f"{kind_name}-{what}")
        for kind_name, kind in KINDS.items()
        for what, (name, number) in NO_PATHS.items()
        if kind(name) != pathlib.PurePath()  # which is ".", where the name is empty
    ],
)
def test_what_is_no_path_is_an_error_of_the_system_with_its_reason(loop, tmp_path, monkeypatch, use, address, number):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").touch()
    before = descriptors()
    with pytest.raises(OSError) as caught:
        use(address)
    assert caught.value.errno == number
    assert os.strerror(number) in caught.value.strerror
    assert descriptors() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_the_longest_path_is_as_long_as_the_kernels(real_loop, served, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind("y" * LONGEST_PATH)
        with pytest.raises(OSError, match="too long"):
            sock.bind("y" * (LONGEST_PATH + 1))
    served("x" * LONGEST_PATH)
    assert says("x" * LONGEST_PATH) == b"hello"


@pytest.mark.parametrize("use", [lambda address: serve(address, echo), connect], ids=["serve", "connect"])
@pytest.mark.parametrize(
    ("address", "meant"),
    [
        ("127.0.0.1:80000", "('127.0.0.1', 80000)"),
        (":7000", "('', 7000)"),
        ("[::1]:7000", "('::1', 7000)"),
        ("localhost:80", "('localhost', 80)"),
        ("::1", "('::1', port)"),
    ],
)
def test_a_str_that_looks_like_host_and_port_is_refused_with_the_tuple_to_write(
    loop, tmp_path, monkeypatch, use, address, meant
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="Unix socket") as caught:
        use(address)
    assert f"write {meant}" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["sock:1a", "a:", "1", "./a:1", pathlib.PurePath("a:1"), b"a:1", "a:\u00b2"])
def test_other_paths_with_a_colon_are_served(loop, served, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    served(name)
    assert [os.fsencode(path.name) for path in tmp_path.iterdir()] == [os.fsencode(name).removeprefix(b"./")]


@pytest.mark.parametrize("name", [b"a:1", pathlib.PurePath("a:1")], ids=["bytes", "path"])
def test_a_listeners_address_can_be_connected_to_also_where_its_path_looks_like_host_and_port(
    real_loop, served, tmp_path, monkeypatch, name
):
    monkeypatch.chdir(tmp_path)
    listener = served(name)
    assert says(listener.address) == says(name) == b"hello"
    listener.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("use", [lambda address: serve(address, echo), connect], ids=["serve", "connect"])
@pytest.mark.parametrize("path", ["a\ud800", "\0\ud800", pathlib.PurePath("\ud800")], ids=["str", "abstract", "path"])
def test_a_path_that_cannot_be_encoded_is_an_error_of_the_system(loop, use, path):
    with pytest.raises(OSError, match="can't encode") as caught:
        use(path)
    assert caught.value.errno == errno.EINVAL


@LINUX
@pytest.mark.parametrize(
    ("name", "words"),
    [
        (b"\0name %d", "@name %d"),
        (b"\0a\nb\0c %d", r"@a\nb\x00c %d"),
        (b"\0\xff %d", r"@\udcff %d"),
        ("\0\u00e9 %d".encode(), "@\u00e9 %d"),
    ],
)
def test_the_name_that_a_client_has_chosen_cannot_break_the_lines_of_a_log(real_loop, served, tmp_path, name, words):
    told = []
    listener = served(tmp_path / "socket", lambda sock: told.append((sock.peer_addr_string(), repr(sock))))
    with socket.socket(socket.AF_UNIX) as client:
        client.bind(name % os.getpid())
        client.connect(listener.address)
        client.settimeout(30)
        real_loop.run(lambda: told)
    ((address, shown),) = told
    assert address == words % os.getpid()
    assert shown.endswith(f": open to {address}")
    assert shown.isprintable()


def test_the_file_of_a_relative_path_goes_with_its_listener_wherever_the_program_is_then(
    loop, served, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    listener = served("socket")
    other = tmp_path / "other"
    other.mkdir()
    (other / "socket").write_text("somebody else's")
    monkeypatch.chdir(other)
    listener.close()
    assert (list(tmp_path.iterdir()), list(other.iterdir())) == ([other], [other / "socket"])


def test_a_unix_socket_is_served_where_the_kernel_knows_no_reuse_port_for_it(loop, served, tmp_path, monkeypatch):
    """Linux since 6.12.9 refuses SO_REUSEPORT for Unix sockets with EOPNOTSUPP: it never meant anything there."""

    class Refusing(socket.socket):
        def setsockopt(self, level, option, *value):
            if self.family == socket.AF_UNIX and option == socket.SO_REUSEPORT:
                raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
            super().setsockopt(level, option, *value)

    monkeypatch.setattr(socket, "socket", Refusing)
    served(tmp_path / "socket", reuse_port=True)


def test_a_listener_that_fails_after_its_file_was_made_leaves_no_file(loop, tmp_path, monkeypatch):
    class Deaf(socket.socket):
        def listen(self, backlog):
            raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))

    monkeypatch.setattr(socket, "socket", Deaf)
    before = descriptors()
    with pytest.raises(OSError, match=f"socket.*{os.strerror(errno.ENOBUFS)}") as caught:
        serve(tmp_path / "socket", echo)
    assert caught.value.errno == errno.ENOBUFS
    assert (descriptors(), list(tmp_path.iterdir())) == (before, [])


# -- host and port


def test_four_parts_of_ipv6_are_served_and_connected_to(real_loop, served):
    listener = served(("::1", 0, 0, 0))
    assert listener.address == ("::1", listener.address[1])
    assert says(("::1", listener.address[1], 0, 0)) == b"hello"


def test_four_parts_mean_ipv6(loop):
    for use in (lambda address: serve(address, echo), connect):
        with pytest.raises(socket.gaierror, match=r"127\.0\.0\.1"):
            use(("127.0.0.1", 80, 0, 0))


def link_local():
    """A link-local address of this host, with its interface's number."""
    try:
        with open("/proc/net/if_inet6") as lines:
            for line in lines:
                digits, number, _, scope, *_ = line.split()
                if scope == "20":
                    return socket.inet_ntop(socket.AF_INET6, bytes.fromhex(digits)), int(number, 16)
    except OSError:
        pass
    pytest.skip("no interface has a link-local IPv6 address")


def test_a_link_local_address_keeps_its_scope(real_loop, served):
    host, number = link_local()
    scoped = f"{host}%{socket.if_indextoname(number)}"
    peers = []

    def tell(sock):
        peers.append((sock.local_ip_string(), sock.local_addr_string()))
        echo(sock)

    listener = served((scoped, 0), tell)
    port = listener.address[1]
    assert listener.address == (scoped, port)
    assert says(listener.address) == says((host, port, 0, number)) == says((scoped, port, 0, 0)) == b"hello"
    assert set(peers) == {(scoped, f"[{scoped}]:{port}")}


def test_an_interface_that_has_gone_is_told_by_its_number():
    assert public(("fe80::1", 80, 0, 999999)) == ("fe80::1%999999", 80)
    assert public(("2001:db8::1", 80, 0, 0)) == ("2001:db8::1", 80)
    assert public(("fe80::1%lo", 80, 0, 1)) == ("fe80::1%lo", 80)


def entries(*found):
    return lambda *_args, **_options: [(family, socket.SOCK_STREAM, 0, "", address) for family, address in found]


@pytest.mark.parametrize("number", [errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT])
def test_a_name_is_served_on_its_next_address_where_the_host_lacks_the_first(loop, served, monkeypatch, number):
    class WithoutIPv6(socket.socket):
        def __init__(self, family=-1, *args, **kwargs):
            if family == socket.AF_INET6 and number == errno.EAFNOSUPPORT:
                raise OSError(number, os.strerror(number))
            super().__init__(family, *args, **kwargs)

        def bind(self, address):
            if self.family == socket.AF_INET6:
                raise OSError(number, os.strerror(number))
            super().bind(address)

    monkeypatch.setattr(socket, "socket", WithoutIPv6)
    first, second = (socket.AF_INET6, ("::1", 0, 0, 0)), (socket.AF_INET, ("127.0.0.1", 0))
    monkeypatch.setattr(socket, "getaddrinfo", entries(first, second))
    assert served(("localhost", 0)).address[0] == "127.0.0.1"
    monkeypatch.setattr(socket, "getaddrinfo", entries(first))
    with pytest.raises(OSError, match="::1") as caught:
        serve(("localhost", 0), echo)
    assert caught.value.errno == number


def test_a_name_whose_first_address_is_taken_goes_to_no_other(loop, served, monkeypatch):
    taken = served(("127.0.0.1", 0)).address
    monkeypatch.setattr(socket, "getaddrinfo", entries((socket.AF_INET, taken), (socket.AF_INET, ("127.0.0.1", 0))))
    with pytest.raises(OSError, match=str(taken[1])) as caught:
        serve(("localhost", taken[1]), echo)
    assert caught.value.errno == errno.EADDRINUSE


@pytest.mark.parametrize("use", [lambda address: serve(address, echo), connect], ids=["serve", "connect"])
@pytest.mark.parametrize(
    "host", ["a..b", "x" * 64 + ".example", "\udc80", "127.0.0.1\0.example"], ids=["empty", "long", "surrogate", "nul"]
)
def test_a_name_that_cannot_be_asked_for_is_an_error_of_the_look_up(loop, use, host):
    with pytest.raises(socket.gaierror, match="cannot look up") as caught:
        use((host, 80))
    assert "idna" not in str(caught.value) or not host.isascii()
    assert ("is empty, or has more than 63" in str(caught.value)) is (host[0] in "ax")


@pytest.mark.parametrize("use", [lambda address: serve(address, echo), connect], ids=["serve", "connect"])
@pytest.mark.parametrize(
    "address", [(5, 80), ("h", "80"), ("h", 1.5), ("h", None), ("h", 1, 2), ("::1", 1, "0", 0), ("::1", 1, 0, 1.5)]
)
def test_parts_of_a_wrong_kind_are_refused(loop, use, address):
    with pytest.raises(TypeError, match=r"address|port|flowinfo|scope id"):
        use(address)


@pytest.mark.parametrize(
    ("address", "what"),
    [
        (("h", 65536), "port"),
        (("h", -1), "port"),
        (("h", 10**30), "port"),
        (("::1", 1, 2**20, 0), "flowinfo"),
        (("::1", 1, -1, 0), "flowinfo"),
        (("::1", 1, 0, 2**32 + 1), "scope id"),
    ],
)
@pytest.mark.parametrize("use", [lambda address: serve(address, echo), connect], ids=["serve", "connect"])
def test_parts_that_the_kernel_would_make_others_of_are_refused(loop, use, address, what):
    with pytest.raises(ValueError, match=rf"the {what} of .* is not between 0 and \d+"):
        use(address)


def test_a_host_may_be_none_or_bytes_and_a_port_any_whole_number(loop, served):
    class Port:
        def __index__(self):
            return 0

    assert served((None, Port())).address[0] == "0.0.0.0"
    assert served((b"127.0.0.1", 0)).address[0] == "127.0.0.1"
    assert served(("", 0, 0, 0)).address[0] == "::"
    assert host_and_port(["127.0.0.1", 80], "")[:2] == ("127.0.0.1", 80)


@pytest.mark.parametrize("backlog", ["5", 1.5, None])
def test_a_backlog_of_a_wrong_kind_leaves_no_socket_and_no_file(loop, tmp_path, backlog):
    before = descriptors()
    for address in (("127.0.0.1", 0), tmp_path / "socket"):
        with pytest.raises(TypeError, match="backlog"):
            serve(address, echo, backlog=backlog)
    assert (descriptors(), list(tmp_path.iterdir()), Socket.watched_sockets()) == (before, [], 0)


def test_a_backlog_may_be_larger_than_the_kernel_can_be_told(loop, served):
    served(("127.0.0.1", 0), backlog=2**40)


def test_unix_path_gives_back_what_the_kernel_is_to_be_told(tmp_path):
    assert unix_path(tmp_path) == str(tmp_path)
    assert unix_path(b"x") == b"x"
    assert unix_path("\0x:80") == "\0x:80"
