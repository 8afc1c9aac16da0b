"""What sending a file costs, in processor time, beside a loop of read and write_all over the same connection.

    python -m tests.bench.files [--megabytes 256] [--rounds 3]

The client is a process of its own, whose time is not counted; that of the threads that read is.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import tempfile
import time

import dangagreen as d


def by_sendfile(sock, file):
    sock.send_file(file)


def in_pieces(sock, file):
    os_socket = sock.sock
    sock.set_writer_func(lambda data: os_socket.send(data))
    sock.send_file(file)


def by_write_all(sock, file):
    file.seek(0)
    while data := file.read(65536):
        sock.write_all(data)
    sock.drain()


WAYS = {"send_file, sendfile(2)": by_sendfile, "send_file, pieces by a thread": in_pieces, "write_all": by_write_all}


def took(send, file, size):
    """Seconds of processor time, and of the clock, to send a file to a process that reads it."""
    near, far = tcp_pair()
    if not os.fork():
        near.close()
        buffer, left = bytearray(1 << 20), size
        while left and (got := far.recv_into(buffer)):
            left -= got
        os._exit(left != 0)
    far.close()
    begin, clock = time.process_time(), time.monotonic()
    with d.Socket(near) as sock:
        send(sock, file)
    spent = time.process_time() - begin, time.monotonic() - clock
    assert os.wait()[1] == 0
    return spent


def tcp_pair():
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        return client, server.accept()[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    size = options.megabytes << 20
    with tempfile.TemporaryFile() as file:
        for _ in range(options.megabytes):
            file.write(os.urandom(1 << 20))
        file.flush()
        times = {name: [] for name in WAYS}
        for _ in range(options.rounds):
            for name, send in WAYS.items():
                times[name].append(d.run(took, send, file, size))
    plain = statistics.median(cpu for cpu, _ in times["write_all"])
    for name, spent in times.items():
        cpu, clock = (statistics.median(column) for column in zip(*spent, strict=True))
        print(f"{name:32} {cpu * 1000:8.1f} ms of processor time, {cpu / plain:5.2f}, in {clock * 1000:8.1f} ms")


if __name__ == "__main__":
    main()
