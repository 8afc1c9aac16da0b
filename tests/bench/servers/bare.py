"""A bare epoll loop in Python: what the language and its socket module cost, and nothing else."""

import select
import socket
import sys

from tests.bench.protocol import ANSWERS, BACKLOG, BLOCK, CHUNK, LARGE, REPLY, handle, many_files, serving_on


class Server:
    """One loop, one dict from fd to socket, one method for a readable socket by mode."""

    def __init__(self, mode):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
        self.listener.setblocking(False)
        self.epoll = select.epoll()
        self.epoll.register(self.listener.fileno(), select.EPOLLIN)
        self.socks, self.rest, self.counts = {}, {}, {}
        self.greets = mode == "broadcast"
        self.answer = ANSWERS["http"]
        self.readable = getattr(self, mode)
        self.scratch = bytearray(LARGE)

    def run(self):
        serving_on(self.listener.getsockname()[1])
        poll, listening = self.epoll.poll, self.listener.fileno()
        socks, readable = self.socks, self.readable
        while True:
            for fd, mask in poll():
                if fd == listening:
                    self.welcome()
                elif mask & select.EPOLLOUT:
                    self.pump(fd, socks[fd])
                else:
                    readable(fd, socks[fd])

    def welcome(self):
        sock, _ = self.listener.accept()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socks[sock.fileno()] = sock
        self.epoll.register(sock.fileno(), select.EPOLLIN)
        if self.greets:
            sock.send(REPLY)

    def forget(self, fd):
        self.rest.pop(fd, None)
        self.counts.pop(fd, None)
        self.socks.pop(fd).close()

    def lines(self, fd, sock):
        data = sock.recv(CHUNK)
        if not data:
            self.forget(fd)
            return
        if fd in self.rest:
            data = self.rest.pop(fd) + data
        lines = data.split(b"\n")
        if rest := lines.pop():
            self.rest[fd] = rest
        if len(lines) == 1:
            sock.send(handle(lines[0]))
        elif lines:
            sock.send(b"".join([handle(line) for line in lines]))

    def http(self, fd, sock):
        data = sock.recv(CHUNK)
        if not data:
            self.forget(fd)
            return
        if fd in self.rest:
            data = self.rest.pop(fd) + data
        replies, rest = self.answer(data)
        if replies:
            sock.send(replies)
        if rest:
            self.rest[fd] = rest

    def receive(self, fd, sock):
        size = sock.recv_into(self.scratch)
        self.counts[fd] = self.counts.get(fd, 0) + size
        if not size:
            sock.send(b"%d\n" % self.counts[fd])
            self.forget(fd)

    def send(self, fd, sock):
        data = self.rest.pop(fd, b"") + sock.recv(CHUNK)
        if not data:
            self.forget(fd)
            return
        if data.endswith(b"\n"):
            self.counts[fd] = int(data)
            self.epoll.modify(fd, select.EPOLLOUT)
        else:
            self.rest[fd] = data

    def pump(self, fd, sock):
        left, view = self.counts[fd], memoryview(BLOCK)
        try:
            while left:
                left -= sock.send(view[:left])
        except BlockingIOError:
            pass
        self.counts[fd] = left
        if not left:
            self.epoll.modify(fd, select.EPOLLIN)

    def broadcast(self, fd, sock):
        data = self.rest.pop(fd, b"") + sock.recv(CHUNK)
        if not data:
            self.forget(fd)
            return
        head, newline, rest = data.rpartition(b"\n")
        if rest:
            self.rest[fd] = rest
        if newline:
            message = head + newline
            for peer in self.socks.values():
                peer.send(message)


if __name__ == "__main__":
    many_files()
    Server(sys.argv[1]).run()
