"""Listening sockets: stale files, ports, addresses in use, several addresses, modes and owners."""

import errno
import grp
import os
import pwd
import socket
import stat
from typing import ClassVar

import pytest

from dangagreen import Socket, serve
from dangagreen.sockets.binding import SocketFile
from tests.connections import KeepingEcho, keeping


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_serving_on_tcp_picks_a_port_for_port_zero(host, real_loop, server, client, run_turns):
    listener = server((host, 0))
    assert listener.address[1] > 0
    assert len(listener.address) == 2
    sock = client(listener.address)
    sock.send(b"hello")
    run_turns(3)
    assert sock.recv(10) == b"hello"


def test_serving_on_a_unix_socket_and_its_file_goes_with_it(real_loop, server, client, run_turns, tmp_path):
    path = tmp_path / "socket"
    listener = server(path)
    assert listener.address == str(path)
    sock = client(str(path))
    sock.send(b"hello")
    run_turns(3)
    assert sock.recv(10) == b"hello"
    listener.close()
    run_turns(1)
    assert not path.exists()


def test_a_socket_file_that_somebody_else_has_made_meanwhile_is_left_alone(loop, server, tmp_path):
    path = tmp_path / "socket"
    listener = server(str(path))
    path.unlink()
    path.write_text("somebody else's")
    listener.close()
    assert path.read_text() == "somebody else's"


def test_a_stale_socket_file_is_replaced(loop, server, client, run_turns, tmp_path):
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    server(path)
    sock = client(path)
    sock.send(b"x")
    run_turns(3)
    assert sock.recv(10) == b"x"


def test_a_socket_file_on_which_somebody_listens_is_not_taken(loop, server, tmp_path):
    path = str(tmp_path / "socket")
    server(path)
    with pytest.raises(OSError, match="socket") as caught:
        serve(path, KeepingEcho)
    assert caught.value.errno == errno.EADDRINUSE
    assert os.path.exists(path)


def test_a_file_that_is_no_socket_is_not_removed(loop, tmp_path):
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(OSError, match="precious"):
        serve(path, KeepingEcho)
    assert path.read_text() == "data"


def test_serving_on_a_socket_that_listens_already(real_loop, server, client, run_turns):
    listening = socket.create_server(("127.0.0.1", 0))
    listener = server(listening)
    assert listener.address == listening.getsockname()
    sock = client(listener.address)
    sock.send(b"x")
    run_turns(3)
    assert sock.recv(10) == b"x"


def test_a_socket_that_does_not_listen_is_refused(loop):
    with socket.socket() as sock, pytest.raises(ValueError, match="listen"):
        serve(sock, KeepingEcho)


@pytest.mark.parametrize("address", [5, None, ("a", 1, 2, 3, 4), ()])
def test_what_is_no_address_is_refused_with_words(loop, address):
    with pytest.raises(TypeError, match="address"):
        serve(address, KeepingEcho)


def test_an_address_in_use_is_named(loop, server):
    listener = server()
    with pytest.raises(OSError, match=str(listener.address[1])) as caught:
        serve(listener.address, KeepingEcho)
    assert caught.value.errno == errno.EADDRINUSE


def test_two_listeners_share_a_port_with_reuse_port(loop, server):
    first = server(reuse_port=True)
    assert server(first.address, reuse_port=True).address == first.address


@pytest.mark.parametrize("handler", [5, None, int])
def test_what_is_no_handler_is_refused(loop, handler):
    with pytest.raises(TypeError):
        serve(("127.0.0.1", 0), handler)
    assert Socket.watched_sockets() == 0


# -- several addresses


def descriptors():
    return len(os.listdir("/dev/fd"))


LOCAL_BOTH = [("127.0.0.1", 0), ("::1", 0)]


@pytest.fixture
def listening(peers):
    """An IPv4 socket that listens already."""
    sock = socket.create_server(("127.0.0.1", 0))
    peers.append(sock)
    return sock


def test_several_addresses_of_any_family_are_one_server(real_loop, server, client, run_turns, tmp_path, listening):
    path = str(tmp_path / "socket")
    listener = server([("127.0.0.1", 0), ("::1", 0), path, listening])
    assert listener.addresses[2:] == [path, listening.getsockname()]
    assert listener.address == listener.addresses[0]
    assert (listener.sock.getsockname(), listener.fd) == (listener.address, listener.sock.fileno())
    clients = [client(address) for address in listener.addresses]
    for sock in clients:
        sock.send(b"hi")
    run_turns(4)
    assert [sock.recv(5) for sock in clients] == [b"hi"] * 4
    assert listener.connections == len(keeping()) == 4
    assert repr(listener) == f"<Listener on {', '.join(map(str, listener.addresses))}>"


def test_port_zero_is_one_port_for_all_families(loop, server):
    listener = server([*LOCAL_BOTH, ("127.0.0.2", 0)])
    hosts, ports = zip(*listener.addresses, strict=True)
    assert hosts == ("127.0.0.1", "::1", "127.0.0.2")
    assert len(set(ports)) == 1
    assert ports[0] != 0


def test_a_port_that_was_given_is_not_touched_by_port_zero(loop, server):
    with server() as first:
        free_address = first.address
    listener = server([*LOCAL_BOTH, free_address])
    assert listener.addresses[0][1] == listener.addresses[1][1] != free_address[1] == listener.addresses[2][1]


class Taken(socket.socket):
    """A socket whose first IPv6 ports are taken."""

    left = 0
    tried: ClassVar[list[int]]

    def bind(self, address):
        if self.family == socket.AF_INET6 and Taken.left:
            Taken.left -= 1
            Taken.tried.append(address[1])
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        super().bind(address)


def test_a_port_that_one_family_has_and_another_has_not_is_given_back_for_the_next(loop, server, monkeypatch, tmp_path):
    path = tmp_path / "socket"
    monkeypatch.setattr(Taken, "left", 3)
    monkeypatch.setattr(Taken, "tried", [], raising=False)
    monkeypatch.setattr(socket, "socket", Taken)
    before = descriptors()
    listener = server([path, *LOCAL_BOTH])
    assert listener.addresses[1][1] == listener.addresses[2][1]
    assert len(Taken.tried) == 3
    assert all(Taken.tried)
    assert descriptors() == before + 3
    assert path.exists()


def test_where_no_port_is_free_in_all_families_that_is_an_error_that_leaves_nothing(loop, monkeypatch, tmp_path):
    monkeypatch.setattr(Taken, "left", 1000)
    monkeypatch.setattr(Taken, "tried", [], raising=False)
    monkeypatch.setattr(socket, "socket", Taken)
    before = descriptors()
    with pytest.raises(OSError, match="no port was found that is free for each of them") as caught:
        serve([tmp_path / "socket", *LOCAL_BOTH], KeepingEcho)
    assert caught.value.errno == errno.EADDRINUSE
    assert (descriptors(), list(tmp_path.iterdir()), len(Taken.tried) < 100) == (before, [], True)


def test_an_error_of_one_address_closes_those_before_it_and_names_it(loop, server, listening, tmp_path):
    taken = server().address
    before = descriptors()
    with pytest.raises(OSError, match=str(taken[1])) as caught:
        serve([listening, tmp_path / "socket", ("127.0.0.1", 0), taken, tmp_path / "other"], KeepingEcho)
    assert caught.value.errno == errno.EADDRINUSE
    assert (descriptors(), list(tmp_path.iterdir())) == (before, [])
    assert server([listening]).address == listening.getsockname()  # it was left open


@pytest.mark.parametrize(
    ("wrong", "error"),
    [(5, TypeError), (("127.0.0.1", 70000), ValueError), ("x" * 200, OSError), ("a\0b", OSError), ("h:80", ValueError)],
    ids=["int", "port", "long", "nul", "text"],
)
def test_what_is_no_address_is_found_before_anything_is_opened(loop, monkeypatch, tmp_path, wrong, error):
    opened = []
    monkeypatch.setattr(socket.socket, "bind", lambda sock, address: opened.append(address))
    with pytest.raises(error):
        serve([tmp_path / "socket", ("127.0.0.1", 0), wrong], KeepingEcho)
    assert opened == []


def test_no_address_and_what_is_one_address_in_a_list_are_refused(loop):
    with pytest.raises(ValueError, match="there is no address"):
        serve([], KeepingEcho)
    with pytest.raises(TypeError, match="not 80"):
        serve(["127.0.0.1", 80], KeepingEcho)
    with pytest.raises(TypeError, match="the host of"):
        serve((("127.0.0.1", 80), ("::1", 80)), KeepingEcho)


def test_one_address_twice_is_refused(loop, tmp_path, listening):
    path, name = str(tmp_path / "socket"), ("127.0.0.1", 0)
    for first, second in ((name, name), (("", 0), ("0.0.0.0", 0)), (path, os.fsencode(path)), (listening, listening)):
        with pytest.raises(ValueError, match="is given twice"):
            serve([first, second], KeepingEcho)
    assert list(tmp_path.iterdir()) == []
    assert Socket.watched_sockets() == 0


def test_a_listener_that_the_loop_has_not_room_for_leaves_nothing(loop, tmp_path, monkeypatch, listening):
    """The second one is refused by epoll_ctl."""
    told = []
    add = loop.poller.add

    def refuse(fd, mask):
        told.append(fd)
        if len(told) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        add(fd, mask)

    monkeypatch.setattr(loop.poller, "add", refuse)
    before = descriptors()
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        serve([listening, tmp_path / "socket"], KeepingEcho)
    assert (descriptors(), list(tmp_path.iterdir()), Socket.watched_sockets()) == (before, [], 0)
    assert listening.fileno() >= 0


# -- sockets that listen already


def test_a_closed_socket_is_refused(loop):
    with socket.create_server(("127.0.0.1", 0)) as sock:
        pass
    with pytest.raises(ValueError, match="is closed"):
        serve(sock, KeepingEcho)


def test_a_socket_whose_descriptor_was_closed_behind_its_back_is_an_error_of_the_system(loop):
    sock = socket.create_server(("127.0.0.1", 0))
    os.close(sock.fileno())
    with pytest.raises(OSError, match="cannot listen on") as caught:
        serve(sock, KeepingEcho)
    assert caught.value.errno == errno.EBADF
    sock.detach()


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET], ids=["dgram", "seqpacket"])
def test_a_socket_for_datagrams_is_refused(loop, kind, tmp_path):
    with socket.socket(socket.AF_UNIX, kind) as sock:
        sock.bind(str(tmp_path / "s"))
        if kind == socket.SOCK_SEQPACKET:
            sock.listen()
        with pytest.raises(TypeError, match="is for datagrams"):
            serve(sock, KeepingEcho)


def test_a_connection_is_refused(loop, unix_pair):
    with pytest.raises(ValueError, match="is not listening"):
        serve(unix_pair()[0], KeepingEcho)


# -- families


def test_ipv6_alone_leaves_the_port_to_ipv4(real_loop, server, client, run_turns):
    listener = server([("::", 0), ("0.0.0.0", 0)])  # one port: the first one has not taken it for IPv4 as well
    socks = [client((host, listener.address[1])) for host in ("127.0.0.1", "::1")]
    run_turns(3)
    assert sorted(sock.peer_ip_string() for sock in keeping()) == ["127.0.0.1", "::1"]
    assert len(socks) == listener.connections == 2


def test_dual_stack_has_both_in_one_socket(real_loop, server, client, run_turns):
    listener = server(("::", 0), ipv6_only=False)
    socks = [client((host, listener.address[1])) for host in ("127.0.0.1", "::1")]
    run_turns(3)
    assert sorted(sock.peer_ip_string() for sock in keeping()) == ["::1", "::ffff:127.0.0.1"]
    assert len(socks) == listener.connections == 2


def test_dual_stack_means_nothing_without_an_ipv6_address_to_be_opened(loop, tmp_path):
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listening:
        for address in (("127.0.0.1", 0), str(tmp_path / "s"), listening, [("0.0.0.0", 0), str(tmp_path / "s")]):
            with pytest.raises(ValueError, match="ipv6_only=False is for an IPv6 address"):
                serve(address, KeepingEcho, ipv6_only=False)
    assert list(tmp_path.iterdir()) == []


# -- mode and owner


@pytest.mark.parametrize("mode", [0o600, 0o666, 0o770])
def test_a_path_has_the_mode_that_was_asked_for_whatever_the_umask(loop, server, tmp_path, mode, monkeypatch):
    path, seen = tmp_path / "socket", []
    listen = socket.socket.listen

    def look(sock, backlog):
        if sock.family == socket.AF_UNIX:
            seen.append(stat.S_IMODE(path.stat().st_mode))
        listen(sock, backlog)

    monkeypatch.setattr(socket.socket, "listen", look)
    before = os.umask(0o027)
    try:
        server([("127.0.0.1", 0), path], mode=mode)
    finally:
        assert os.umask(before) == 0o027
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert seen == [mode]  # before anybody could connect


@pytest.mark.parametrize("by", ["number", "name", "part"])
def test_a_path_has_the_owner_that_was_asked_for(loop, server, tmp_path, by):
    root = os.getuid() == 0
    user = pwd.getpwnam("nobody") if root else pwd.getpwuid(os.getuid())
    group = grp.getgrgid(user.pw_gid if root else os.getgid())
    mine = (os.getuid(), os.getgid())
    owner, expected = {
        "number": ((user.pw_uid, group.gr_gid), (user.pw_uid, group.gr_gid)),
        "name": ((user.pw_name, group.gr_name), (user.pw_uid, group.gr_gid)),
        "part": ((None, group.gr_name), (mine[0], group.gr_gid)),
    }[by]
    path = tmp_path / "socket"
    listener = server(path, mode=0o660, owner=owner)
    status = path.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (*expected, 0o660)
    listener.close()
    assert not path.exists()


@pytest.mark.parametrize("call", ["chmod", "chown"])
def test_a_mode_or_an_owner_that_is_refused_leaves_no_file(loop, tmp_path, monkeypatch, call):
    def refused(*_args, **_options):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), "path")

    monkeypatch.setattr(os, call, refused)
    before = descriptors()
    with pytest.raises(OSError, match=r"cannot listen on .*socket.*: Operation not permitted") as caught:
        serve(tmp_path / "socket", KeepingEcho, mode=0o600, owner=(0, 0))
    assert caught.value.errno == errno.EPERM
    assert (descriptors(), list(tmp_path.iterdir())) == (before, [])


@pytest.mark.parametrize("by", [os.symlink, os.link, None], ids=["symlink", "hard link", "nothing"])
def test_a_file_that_was_put_in_the_place_of_the_socket_keeps_its_mode(loop, tmp_path, monkeypatch, by):
    """As somebody may in a folder to which he may write."""
    path, other = tmp_path / "socket", tmp_path / "other"
    other.write_text("another's")
    other.chmod(0o600)
    look = SocketFile.permit

    def replace_and_permit(file, *args):
        path.unlink()
        if by is not None:
            by(other, path)
        look(file, *args)

    monkeypatch.setattr(SocketFile, "permit", replace_and_permit)
    before = descriptors()
    with pytest.raises(OSError, match=r"cannot listen on .*socket"):
        serve(path, KeepingEcho, mode=0o666, owner=(os.getuid(), os.getgid()))
    assert stat.S_IMODE(other.stat().st_mode) == 0o600
    assert descriptors() == before


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"mode": "0600"}, TypeError),
        ({"mode": 0o1777}, ValueError),
        ({"mode": -1}, ValueError),
        ({"owner": "nobody"}, TypeError),
        ({"owner": ("nobody",)}, TypeError),
        ({"owner": (1.5, None)}, TypeError),
        ({"owner": (-1, None)}, ValueError),
        ({"owner": ("there is no such user", None)}, ValueError),
        ({"owner": (None, "no\0group")}, ValueError),
        ({"owner": ("\ud800", None)}, ValueError),
    ],
)
def test_a_mode_and_an_owner_that_make_no_sense_are_refused_before_anything_is_made(loop, tmp_path, options, error):
    with pytest.raises(error, match=next(iter(options))):
        serve(tmp_path / "socket", KeepingEcho, **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("options", [{"mode": 0o600}, {"owner": (None, None)}])
def test_mode_and_owner_mean_nothing_where_no_file_is_made(loop, options, tmp_path):
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "made before"))
        listening.listen()
        for address in (("127.0.0.1", 0), [("127.0.0.1", 0), "\0abstract"], listening):
            with pytest.raises(ValueError, match="mode and owner are for the path of a Unix socket"):
                serve(address, KeepingEcho, **options)
