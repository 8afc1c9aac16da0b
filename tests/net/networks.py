"""A network in memory and its resolver, on a virtual clock: which addresses a name has, how each answers, and when."""

from __future__ import annotations

import errno
import os
import socket

import dangagreen as d
from dangagreen.testing import wire

SILENT = None  # an address that never answers


class Network:
    """`hosts`: host to (seconds, errno or 0), or SILENT. `tried`: the time and host of each attempt, in order."""

    def __init__(self, loop, hosts):
        self.loop = loop
        self.hosts = hosts
        self.tried = []
        self.began = loop.clock()
        self.sockets = []

    def socket(self, family=socket.AF_INET, kind=socket.SOCK_STREAM):
        """In the place of `socket.socket`."""
        made = NetworkSocket(self, family)
        self.sockets.append(made)
        return made

    @property
    def open(self):
        return [sock for sock in self.sockets if not sock.closed]


class NetworkSocket:
    """An OS socket of the network: connecting until its host answers, then an end of a wire; the other one is `far`."""

    type = socket.SOCK_STREAM

    def __init__(self, network, family):
        self.network = network
        self.family = family
        self.near, self.far = wire()
        self.far.capacity = 0  # not writable
        self.answer = errno.ENOTCONN
        self.timer = None
        self.bound = None

    def __getattr__(self, name):
        return getattr(self.near, name)

    def bind(self, address):
        self.bound = address

    def connect_ex(self, address):
        network = self.network
        network.tried.append((round(network.loop.clock() - network.began, 6), address[0]))
        if network.hosts[address[0]] is SILENT:
            return errno.EINPROGRESS
        seconds, number = network.hosts[address[0]]
        if seconds is None:  # at once
            self._answers(number)
            return number
        self.timer = network.loop.add_timer(seconds, lambda: self._answers(number))
        return errno.EINPROGRESS

    def _answers(self, number):
        self.answer = number
        self.far.capacity = 65536

    def getsockopt(self, level, option, size=0):
        if option == socket.SO_ERROR and self.answer:
            return self.answer
        return self.near.getsockopt(level, option, size)

    def close(self):
        if self.timer is not None:
            self.timer.cancel()
        self.near.close()


class Names:
    """A resolver that parks: name to the hosts that it has, or an errno of getaddrinfo; `asked`: what it was asked."""

    parks = True

    def __init__(self, table, seconds=0.0):
        self.table = table
        self.seconds = seconds
        self.asked = []

    def getaddrinfo(self, host, port, family, kind):
        self.asked.append(host)
        if self.seconds:
            d.sleep(self.seconds)
        found = self.table[host]
        if isinstance(found, int):
            raise socket.gaierror(found, os.strerror(2))
        return [entry(host, port) for host in found]


def entry(host, port):
    """An item of the answer of getaddrinfo(3)."""
    if ":" in host:
        return socket.AF_INET6, socket.SOCK_STREAM, 6, "", (host, port, 0, 0)
    return socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)
