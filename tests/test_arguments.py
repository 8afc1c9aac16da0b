"""What a call is given is checked at its entry: every public function and method is called with wrong kinds of things.

A call that is refused raises an error that says what was expected, and has changed nothing: nothing is registered, no
waiter is left, no descriptor, no task, no timer.
"""

import datetime
import gc
import inspect
import io
import math
import os
import signal
import socket
import warnings
from dataclasses import is_dataclass
from functools import partial

import pytest

import dangagreen as d
from dangagreen import bridge, metrics, testing
from dangagreen.testing import VirtualClock, VirtualPoller
from tests.certificates import client_context
from tests.connections import LOCAL
from tests.helpers import async_generator, coroutine_function, generator_function
from tests.inside import snapshot, waiting_for

HUGE = 10**400
NO_TIME = {
    "str": ("1", TypeError),
    "timedelta": (datetime.timedelta(1), TypeError),
    "list": ([1], TypeError),
    "complex": (1j, TypeError),
    "nan": (math.nan, ValueError),
    "huge": (HUGE, OverflowError),
}
NO_COUNT = {
    "str": ("1", TypeError),
    "float": (1.5, TypeError),
    "list": ([1], TypeError),
    "huge": (HUGE, OverflowError),
}
NEGATIVE = {"negative": (-1, ValueError)}
BELOW_ONE = {**NEGATIVE, "zero": (0, ValueError)}


class AsyncCallable:
    async def __call__(self):
        raise AssertionError("this never runs")


NO_FUNCTION = {
    "none": (None, TypeError),
    "int": (5, TypeError),
    "str": ("x", TypeError),
    "async": (coroutine_function, TypeError),
    "generator": (generator_function, TypeError),
    "async generator": (async_generator, TypeError),
    "partial": (partial(partial(coroutine_function)), TypeError),
    "method": (AsyncCallable().__call__, TypeError),
    "object": (AsyncCallable(), TypeError),
}
NOT_NONE = {name: case for name, case in NO_FUNCTION.items() if name != "none"}
NO_LOOP = {"int": (5, TypeError), "str": ("x", TypeError)}
NOT_A_LOOP = {**NO_LOOP, "none": (None, TypeError)}
NO_NAME = {"int": (5, TypeError), "bytes": (b"x", TypeError)}
NO_COROUTINE = {"int": (5, TypeError), "function": (coroutine_function, TypeError)}
NO_BYTES = {"str": ("x", TypeError), "int": (5, TypeError), "none": (None, TypeError), "list": ([1], TypeError)}
NO_CLASS = {
    "int": (5, TypeError),
    "class": (int, TypeError),
    "none": (None, TypeError),
    "partial": (partial(int), TypeError),
}
NO_TASKS = {"int": (5, TypeError), "list": ([5], TypeError)}
NO_ADDRESS = {
    "int": (5, TypeError),
    "none": (None, TypeError),
    "str": ("h:80", ValueError),
    "parts": (("h", "x"), TypeError),
}
NO_LOCAL_ADDRESS = {"int": (5, TypeError), "path": ("/path", ValueError), "name": (("a.host", 0), ValueError)}
NO_SIZE = {"str": ("1", TypeError), "float": (1.5, TypeError), **BELOW_ONE}
NO_BUFFER = {**NO_BYTES, "bytes": (b"x", TypeError)}
NO_FILE = {**NO_BYTES, "bytes": (b"x", TypeError), "text": (io.StringIO(), TypeError)}
NO_SIGNAL = {**NO_COUNT, **NEGATIVE, "none": (None, TypeError), "SIGKILL": (9, OSError), "large": (4711, ValueError)}
NO_FD = {"str": ("x", TypeError), "none": (None, TypeError), "closed": (-1, OSError), "huge": (HUGE, OverflowError)}
NO_CONTEXT = {"int": (5, TypeError), "str": ("x", TypeError), "list": ([1], TypeError)}
NO_FDS = {
    "int": (5, TypeError),
    "list": ([1], TypeError),
    "no function": ({0: 5}, TypeError),
    "async": ({0: coroutine_function}, TypeError),
    "no fd": ({0: print, "x": print}, TypeError),
    "negative": ({-1: print}, ValueError),
}


class World:
    """Objects of every kind, with a connection that has input in its buffer and one that has none."""

    def __init__(self, loop, wires):
        self.loop = loop
        self.wires = wires
        self.sock, self.full = (d.Socket(wires()[0]) for _ in range(2))
        self.full.push_back_read(b"some bytes")
        end, self.peer = socket.socketpair()
        self.real = d.Socket(end)
        self.task = d.spawn(d.sleep, 1000)
        self.listener = d.Listener(socket.create_server(LOCAL), lambda sock, listener: None)
        self.served = d.serve(LOCAL, d.Socket)
        self.lock, self.rlock, self.condition, self.event = d.Lock(), d.RLock(), d.Condition(), d.Event()
        self.semaphore, self.bounded, self.barrier = d.Semaphore(0), d.BoundedSemaphore(2), d.Barrier(2)
        self.bounded.acquire()
        self.queue, self.channel, self.result, self.full_queue = d.Queue(), d.Channel(), d.Future(), d.Queue(1)
        self.full_queue.put(1)
        d.sleep(0)  # the task runs up to its wait

    def held(self, call, *args):
        """Make the call with the condition's lock."""
        with self.condition:
            return call(*args)

    def waited(self, lock, timeout):
        """Acquire a lock that somebody else holds."""

        def hold():
            with lock:
                d.sleep(1000)

        holder = d.spawn(hold)
        d.sleep(0)
        try:
            return lock.acquire(timeout=timeout)
        finally:
            holder.cancel()
            holder.join()

    def state(self):
        """What a call might change: registrations, waiters, tasks, timers, descriptors, sizes."""
        loop = self.loop
        locks = (self.lock, self.rlock, self.condition, self.event, self.semaphore, self.bounded, self.barrier)
        handoffs = (self.queue, self.channel, self.full_queue, self.result)
        return {
            "handlers": list(loop.handlers),
            "slots": [snapshot(thing) for thing in (*loop.handlers.values(), *locks, *handoffs)],
            "tasks": list(loop.green.tasks),
            "timers": len(loop.timers),
            "queued": (len(loop.ready), len(loop.runnable), len(loop.pending_reads), len(loop.object_callbacks)),
            "loop": (loop.loop_timeout, loop.post_loop_callback, loop.deadlock_seconds, loop.other_fds()),
            "joiners": waiting_for(self.task),
            "items": [list(handoff.queue) for handoff in handoffs[:3]],
            "done": self.result.done,
            "sockets": [(s.closed, s.unsent, s.buffered) for s in (self.sock, self.full)],
            "listeners": [(one.closed, one.max_connections) for one in (self.listener, self.served)],
            "scopes": [task.scope for task in (loop.green.top_level, self.task) if task],
            "descriptors": len(os.listdir("/dev/fd")),
        }


def entered(scope):
    with scope:
        raise AssertionError("the block was entered")


def assign(thing, name, value):
    setattr(thing, name, value)


# (name, cases, call), for each parameter of each public function or method of which not every value makes sense
CALLS = [
    # times
    ("sleep", NO_TIME, lambda w, x: d.sleep(x)),
    ("sleep_until", NO_TIME, lambda w, x: d.sleep_until(x)),
    ("timeout", NO_TIME, lambda w, x: entered(d.timeout(x))),
    ("timeout_at", NO_TIME, lambda w, x: entered(d.timeout_at(x))),
    ("move_on_after", NO_TIME, lambda w, x: entered(d.move_on_after(x))),
    ("CancelScope", NO_TIME, lambda w, x: entered(d.CancelScope(x))),
    ("CancelScope.deadline", NO_TIME, lambda w, x: assign(d.shield(), "deadline", x)),
    ("CancelScope.reschedule", NO_TIME, lambda w, x: d.timeout(5).reschedule(x)),
    ("Task.join", NO_TIME, lambda w, x: w.task.join(x)),
    ("Future.wait", NO_TIME, lambda w, x: w.result.wait(x)),
    ("Event.wait", NO_TIME, lambda w, x: w.event.wait(x)),
    ("Condition.wait", NO_TIME, lambda w, x: w.held(w.condition.wait, x)),
    ("Condition.wait_for", NO_TIME, lambda w, x: w.held(w.condition.wait_for, bool, x)),
    ("Condition.acquire", NO_TIME, lambda w, x: w.condition.acquire(timeout=x)),
    ("Lock.acquire", NO_TIME, lambda w, x: w.waited(w.lock, x)),
    ("RLock.acquire", NO_TIME, lambda w, x: w.waited(w.rlock, x)),
    ("Lock.acquire, free", NO_TIME, lambda w, x: w.lock.acquire(timeout=x)),
    ("Semaphore.acquire", NO_TIME, lambda w, x: w.semaphore.acquire(timeout=x)),
    ("BoundedSemaphore.acquire", NO_TIME, lambda w, x: w.bounded.acquire(timeout=x)),
    ("Barrier.wait", NO_TIME, lambda w, x: w.barrier.wait(x)),
    ("Barrier, timeout", NO_TIME, lambda w, x: d.Barrier(2, timeout=x)),
    ("Queue.get", {**NO_TIME, **NEGATIVE}, lambda w, x: w.queue.get(timeout=x)),
    ("Queue.put", {**NO_TIME, **NEGATIVE}, lambda w, x: w.full_queue.put(2, timeout=x)),
    ("wait, timeout", NO_TIME, lambda w, x: d.wait([w.task], x)),
    ("connect, timeout", NO_TIME, lambda w, x: d.connect(("127.0.0.1", 1), x)),
    ("Socket.connect_to, timeout", NO_TIME, lambda w, x: d.Socket.connect_to(("127.0.0.1", 1), timeout=x)),
    ("Listener.drain", NO_TIME, lambda w, x: w.served.drain(x)),
    ("serve_forever, grace", NO_TIME, lambda w, x: d.serve_forever(w.served, grace=x)),
    ("wait_readable", NO_FD, lambda w, x: d.wait_readable(x)),
    ("wait_writable", NO_FD, lambda w, x: d.wait_writable(x)),
    ("add_timer", NO_TIME, lambda w, x: w.loop.add_timer(x, print)),
    ("Socket.add_timer", NO_TIME, lambda w, x: d.Socket.add_timer(x, print)),
    ("set_loop_timeout", NO_TIME, lambda w, x: w.loop.set_loop_timeout(x)),
    ("Socket.set_loop_timeout", NO_TIME, lambda w, x: d.Socket.SetLoopTimeout(x)),
    ("deadlock_seconds", {**NO_TIME, **NEGATIVE}, lambda w, x: assign(w.loop, "deadlock_seconds", x)),
    ("slow_seconds", {**NO_TIME, **NEGATIVE}, lambda w, x: assign(w.loop, "slow_seconds", x)),
    ("VirtualClock.jump", {**NO_TIME, **NEGATIVE}, lambda w, x: VirtualClock().jump(x)),
    ("VirtualClock", NO_TIME, lambda w, x: VirtualClock(x)),
    ("VirtualPoller", {**NO_TIME, **NEGATIVE}, lambda w, x: VirtualPoller(patience=x)),
    ("serve, handshake_timeout", NO_TIME, lambda w, x: d.serve(LOCAL, d.Socket, handshake_timeout=x)),
    ("serve_requests, handshake_timeout", NO_TIME, lambda w, x: d.serve_requests(LOCAL, print, handshake_timeout=x)),
    ("start_tls, timeout", NO_TIME, lambda w, x: w.sock.start_tls(client_context(), "localhost", timeout=x)),
    # counts
    ("Semaphore", {**NO_COUNT, **NEGATIVE}, lambda w, x: d.Semaphore(x)),
    ("BoundedSemaphore", {**NO_COUNT, **NEGATIVE}, lambda w, x: d.BoundedSemaphore(x)),
    ("Semaphore.release", {**NO_COUNT, **BELOW_ONE}, lambda w, x: w.semaphore.release(x)),
    ("BoundedSemaphore.release", {**NO_COUNT, **BELOW_ONE}, lambda w, x: w.bounded.release(x)),
    ("Condition.notify", NO_COUNT, lambda w, x: w.held(w.condition.notify, x)),
    ("Barrier", {**NO_COUNT, **BELOW_ONE}, lambda w, x: d.Barrier(x)),
    ("TaskGroup", {**NO_COUNT, **BELOW_ONE}, lambda w, x: d.TaskGroup(x)),
    ("Queue", NO_COUNT, lambda w, x: d.Queue(x)),
    ("LifoQueue", NO_COUNT, lambda w, x: d.LifoQueue(x)),
    ("PriorityQueue", NO_COUNT, lambda w, x: d.PriorityQueue(x)),
    ("Queue.maxsize", NO_COUNT, lambda w, x: assign(w.queue, "maxsize", x)),
    ("Channel", {**NO_COUNT, **NEGATIVE, "nan": (math.nan, ValueError)}, lambda w, x: d.Channel(x)),
    ("serve, max_connections", {**NO_COUNT, **BELOW_ONE}, lambda w, x: d.serve(LOCAL, d.Socket, max_connections=x)),
    ("serve_requests, max_connections", BELOW_ONE, lambda w, x: d.serve_requests(LOCAL, print, max_connections=x)),
    ("Listener.max_connections", {**NO_COUNT, **BELOW_ONE}, lambda w, x: assign(w.served, "max_connections", x)),
    ("Listener", {**NO_COUNT, **BELOW_ONE}, lambda w, x: d.Listener(w.listener.sock, print, max_connections=x)),
    ("serve, backlog", {"str": ("5", TypeError), **NEGATIVE}, lambda w, x: d.serve(LOCAL, d.Socket, backlog=x)),
    ("serve_requests, backlog", {"str": ("5", TypeError)}, lambda w, x: d.serve_requests(LOCAL, print, backlog=x)),
    ("serve, max_handshakes", {**NO_COUNT, **BELOW_ONE}, lambda w, x: d.serve(LOCAL, d.Socket, max_handshakes=x)),
    ("serve_requests, max_handshakes", BELOW_ONE, lambda w, x: d.serve_requests(LOCAL, print, max_handshakes=x)),
    ("task_table, most", {**NO_COUNT, **NEGATIVE}, lambda w, x: d.task_table(most=x)),
    # sizes and limits
    ("read_exactly", {**NO_COUNT, **NEGATIVE}, lambda w, x: w.sock.read_exactly(x)),
    ("read_exactly, with input", {**NO_COUNT, **NEGATIVE}, lambda w, x: w.full.read_exactly(x)),
    ("read_some", {**NO_COUNT, **BELOW_ONE}, lambda w, x: w.sock.read_some(x)),
    ("read_some, with input", {**NO_COUNT, **BELOW_ONE}, lambda w, x: w.full.read_some(x)),
    ("read_line", {**NO_COUNT, **NEGATIVE}, lambda w, x: w.sock.read_line(x)),
    ("read_to_end", {**NO_COUNT, **NEGATIVE}, lambda w, x: w.sock.read_to_end(x)),
    ("read", NO_SIZE, lambda w, x: w.real.read(x)),
    (
        "read, with input",
        {"str": ("1", TypeError), "float": (1.5, TypeError), **BELOW_ONE},
        lambda w, x: w.full.read(x),
    ),
    ("read_until, limit", {**NO_COUNT, **NEGATIVE}, lambda w, x: w.sock.read_until(b"x", x)),
    # bytes
    ("read_until", {**NO_BYTES, "empty": (b"", ValueError)}, lambda w, x: w.sock.read_until(x)),
    ("read_until, with input", NO_BYTES, lambda w, x: w.full.read_until(x)),
    ("read_some_into", NO_BUFFER, lambda w, x: w.sock.read_some_into(x)),
    ("read_into", NO_BUFFER, lambda w, x: w.sock.read_into(x)),
    ("read_into, with input", NO_BUFFER, lambda w, x: w.full.read_into(x)),
    ("push_back_read", NO_BYTES, lambda w, x: w.sock.push_back_read(x)),
    ("write", {k: v for k, v in NO_BYTES.items() if k != "none"}, lambda w, x: w.sock.write(x)),
    ("write_soon", NO_BYTES, lambda w, x: w.sock.write_soon(x)),
    ("write_all", NO_BYTES, lambda w, x: w.sock.write_all(x)),
    ("send_file", NO_FILE, lambda w, x: w.sock.send_file(x)),
    ("send_file, offset", {**NO_COUNT, **NEGATIVE}, lambda w, x: w.sock.send_file(io.BytesIO(), x)),
    ("send_file, count", {**NO_COUNT, **NEGATIVE}, lambda w, x: w.sock.send_file(io.BytesIO(), 0, x)),
    ("write_file", NO_FILE, lambda w, x: w.sock.write_file(x)),
    ("write_file, offset", {**NO_COUNT, **NEGATIVE}, lambda w, x: w.sock.write_file(io.BytesIO(), x)),
    ("write_file, count", {**NO_COUNT, **NEGATIVE}, lambda w, x: w.sock.write_file(io.BytesIO(), 0, x)),
    # functions
    ("on_signal", NO_SIGNAL, lambda w, x: d.on_signal(x, print)),
    ("on_signal, callback", NO_FUNCTION, lambda w, x: d.on_signal(signal.SIGUSR1, x)),
    ("signals", NO_SIGNAL, lambda w, x: d.signals(signal.SIGUSR1, x)),
    ("in_thread", NO_FUNCTION, lambda w, x: d.in_thread(x)),
    ("in_thread, limiter", {"int": (5, TypeError)}, lambda w, x: d.in_thread(int, limiter=x)),
    ("from_thread", NO_FUNCTION, lambda w, x: d.from_thread(x, loop=w.loop)),
    ("from_thread, loop", NO_LOOP, lambda w, x: d.from_thread(int, loop=x)),
    ("ThreadLimiter", {**NO_COUNT, **BELOW_ONE}, lambda w, x: d.ThreadLimiter(x)),
    ("spawn", NO_FUNCTION, lambda w, x: d.spawn(x)),
    ("run", NO_FUNCTION, lambda w, x: d.run(x)),
    ("call_soon", NO_FUNCTION, lambda w, x: w.loop.call_soon(x)),
    ("call_soon_threadsafe", NO_FUNCTION, lambda w, x: w.loop.call_soon_threadsafe(x)),
    ("add_timer, callback", NO_FUNCTION, lambda w, x: w.loop.add_timer(1, x)),
    ("Socket.add_timer, callback", NO_FUNCTION, lambda w, x: d.Socket.AddTimer(1, x)),
    ("serve", NO_FUNCTION, lambda w, x: d.serve(LOCAL, x)),
    ("serve, class", {"class": (int, TypeError), "partial": (partial(int), TypeError)}, lambda w, x: d.serve(LOCAL, x)),
    ("serve_requests", {**NO_FUNCTION, "class": (d.Socket, TypeError)}, lambda w, x: d.serve_requests(LOCAL, x)),
    ("Listener, connected", NO_FUNCTION, lambda w, x: d.Listener(w.listener.sock, x)),
    ("Loop.run", NOT_NONE, lambda w, x: w.loop.run(x)),
    ("Loop.on_error", NO_FUNCTION, lambda w, x: assign(w.loop, "on_error", x)),
    ("Loop, clock", NO_FUNCTION, lambda w, x: d.Loop(clock=x)),
    ("Loop, poller", NO_LOOP, lambda w, x: d.Loop(poller=x)),
    ("Socket.set_post_loop_callback", NOT_NONE, lambda w, x: d.Socket.set_post_loop_callback(x)),
    ("set_post_loop_callback", NOT_NONE, lambda w, x: w.sock.set_post_loop_callback(x)),
    ("set_writer_func", NOT_NONE, lambda w, x: w.sock.set_writer_func(x)),
    ("write, callable", {k: v for k, v in NOT_NONE.items() if callable(v[0])}, lambda w, x: w.sock.write(x)),
    ("wait_for", NO_FUNCTION, lambda w, x: w.held(w.condition.wait_for, x)),
    ("Barrier, action", NOT_NONE, lambda w, x: d.Barrier(2, x)),
    ("other_fds", NO_FDS, lambda w, x: w.loop.other_fds(x)),
    ("add_other_fds", NO_FDS, lambda w, x: w.loop.add_other_fds(x)),
    ("Socket.add_other_fds", NO_FDS, lambda w, x: d.Socket.AddOtherFds(x)),
    # names
    ("Task.name", {"none": (None, TypeError), **NO_NAME}, lambda w, x: assign(w.task, "name", x)),
    # TLS
    ("serve, tls", NO_CONTEXT, lambda w, x: d.serve(LOCAL, d.Socket, tls=x)),
    ("serve_requests, tls", NO_CONTEXT, lambda w, x: d.serve_requests(LOCAL, print, tls=x)),
    ("connect, tls", NO_CONTEXT, lambda w, x: d.connect(w.served.address, 5, tls=x)),
    ("start_tls", NO_CONTEXT, lambda w, x: w.sock.start_tls(x)),
    # objects
    ("Socket", {"int": (5, TypeError), "none": (None, TypeError), "str": ("x", TypeError)}, lambda w, x: d.Socket(x)),
    ("Socket, loop", NO_LOOP, lambda w, x: d.Socket(w.wires()[0], x)),
    ("Listener, sock", {"int": (5, TypeError), "wire": (object(), TypeError)}, lambda w, x: d.Listener(x, print)),
    ("serve, loop", NO_LOOP, lambda w, x: d.serve(LOCAL, d.Socket, loop=x)),
    ("serve_requests, loop", NO_LOOP, lambda w, x: d.serve_requests(LOCAL, print, loop=x)),
    ("Queue, loop", NO_LOOP, lambda w, x: d.Queue(loop=x)),
    ("Channel, loop", NO_LOOP, lambda w, x: d.Channel(loop=x)),
    ("Future, loop", NO_LOOP, lambda w, x: d.Future(loop=x)),
    ("task_table", NO_LOOP, lambda w, x: d.task_table(x)),
    ("Condition", {"int": (5, TypeError), "event": ("x", TypeError)}, lambda w, x: d.Condition(x)),
    (
        "Future.set_exception",
        {"int": (5, TypeError), "class": (ValueError, TypeError)},
        lambda w, x: w.result.set_exception(x),
    ),
    ("serve, address", NO_ADDRESS, lambda w, x: d.serve(x, d.Socket)),
    ("serve_requests, address", NO_ADDRESS, lambda w, x: d.serve_requests(x, print)),
    ("connect", NO_ADDRESS, lambda w, x: d.connect(x)),
    ("connect, local_address", NO_LOCAL_ADDRESS, lambda w, x: d.connect(("127.0.0.1", 1), local_address=x)),
    ("Socket.connect_to", NO_ADDRESS, lambda w, x: d.Socket.connect_to(x)),
    (
        "Socket.connect_to, local_address",
        NO_LOCAL_ADDRESS,
        lambda w, x: d.Socket.connect_to(("127.0.0.1", 1), local_address=x),
    ),
    ("Loop.resolver", {"none": (None, TypeError), "int": (5, TypeError)}, lambda w, x: assign(w.loop, "resolver", x)),
    (
        "Loop.add_instrument",
        {"int": (5, TypeError), "class": (d.Instrument, TypeError)},
        lambda w, x: w.loop.add_instrument(x),
    ),
    ("connect, socket_class", NO_CLASS, lambda w, x: d.connect(w.served.address, 5, socket_class=x)),
    ("serve, socket_class", NO_CLASS, lambda w, x: d.serve(LOCAL, print, socket_class=x)),
    ("serve_requests, socket_class", NO_CLASS, lambda w, x: d.serve_requests(LOCAL, print, socket_class=x)),
    ("serve_forever", {"int": (5, TypeError), "socket": ("x", TypeError)}, lambda w, x: d.serve_forever(w.served, x)),
    ("wait", NO_TASKS, lambda w, x: d.wait(x)),
    ("wait, until", {"int": (5, ValueError), "str": ("none", ValueError)}, lambda w, x: d.wait([w.task], until=x)),
    ("as_completed", NO_TASKS, lambda w, x: d.as_completed(x)),
    ("select", {"int": (5, TypeError), "list": ([1], TypeError)}, lambda w, x: d.select(w.task, x)),
    # other modules
    ("testing.LeakCheck", NOT_A_LOOP, lambda w, x: testing.LeakCheck(x)),
    ("testing.no_leaks", NO_LOOP, lambda w, x: entered(testing.no_leaks(x))),
    ("testing.random_order", NOT_A_LOOP, lambda w, x: testing.random_order(x, 1)),
    ("testing.virtual_loop", NO_LOOP, lambda w, x: testing.virtual_loop(x)),
    ("testing.virtual_loop, seed", {"list": ([1], TypeError)}, lambda w, x: testing.virtual_loop(seed=x)),
    ("testing.VirtualPoller, clock", {"int": (5, TypeError)}, lambda w, x: VirtualPoller(x)),
    ("testing.VirtualPoller, real", NO_LOOP, lambda w, x: VirtualPoller(real=x)),
    ("testing.wire", {**NO_COUNT, **NEGATIVE}, lambda w, x: testing.wire(x)),
    ("testing.wire, family", {"int": (5, ValueError), "str": ("x", ValueError)}, lambda w, x: testing.wire(family=x)),
    ("bridge.run", NO_COROUTINE, lambda w, x: bridge.run(x)),
    ("bridge.await_", NO_COROUTINE, lambda w, x: bridge.await_(x)),
    ("bridge.as_future", {**NO_COROUTINE, "none": (None, TypeError)}, lambda w, x: bridge.as_future(x)),
    ("metrics.LoopMetrics", NO_LOOP, lambda w, x: metrics.LoopMetrics(x)),
    ("metrics.LoopMetrics, name", NO_NAME, lambda w, x: metrics.LoopMetrics(name=x)),
    (
        "metrics.LoopMetrics, buckets",
        {"int": (5, TypeError), "str": (["x"], TypeError), "none": ([], ValueError), "falling": ([2, 1], ValueError)},
        lambda w, x: metrics.LoopMetrics(buckets=x),
    ),
]

# of these any value makes sense, or there is none to be given
FREE = set(
    """
    Loop.remove_other_fd Socket.remove_other_fd Barrier.abort Barrier.reset Channel.close Channel.receive
    Channel.receive_nowait Channel.send Channel.send_nowait Condition.acquire Condition.locked Condition.notify_all
    Condition.release
    Event.clear Event.is_set Event.set Listener.close Listener.acceptor_closed Listener.acceptor_failed
    Listener.is_shared Listener.maker Listener.set_up Listener.stop Listener.stop_accepting Listener.tell_of_connections
    Lock.locked Lock.release RLock.locked RLock.release Loop.abandon Loop.call Loop.check_thread Loop.close
    Loop.descriptor_map Loop.close_later Loop.handler_failed Loop.register Loop.report Loop.reset Loop.stop Loop.time
    Loop.begin Loop.close_with_thread Loop.look_for_a_stall Loop.post_loop_maps Loop.seems_stalled Loop.take_struck
    Loop.remove_instrument Loop.discard Loop.drop_instrument Loop.end_turn Task.in_words
    Loop.turn Task.set_hub Loop.call_took Loop.handler_took Loop.post_loop_calls Task.function Task.ended_by
    Task.outcome Task.start_next Loop.next_task
    Loop.unregister Queue.empty Queue.full Queue.get_nowait Queue.join Queue.put_nowait Queue.qsize Queue.shutdown
    Queue.task_done Future.result Future.set_result CancelScope.cancel Socket.as_string Socket.busy Socket.close
    Socket.debug_msg Socket.debugmsg Socket.descriptor_map Socket.disable_profiling Socket.drain Socket.dump_error
    Socket.enable_profiling Socket.event_connect Socket.event_connect_failed Socket.event_err Socket.event_hup
    Socket.event_loop Socket.event_read Socket.event_write
    Socket.finish Socket.have_epoll Socket.local_addr_string Socket.local_ip_string Socket.on_high_water
    Socket.on_incomplete_write Socket.on_low_water Socket.peer_addr_string Socket.peer_ip_string Socket.profiling_data
    Socket.reset Socket.steal_socket Socket.tcp_cork Socket.to_close Socket.watch_read Socket.watch_write
    Socket.watched_sockets Socket.write_eof Task.cancel Task.end Task.end_unstarted Task.result Task.run
    Task.resume_with Task.start Task.update_interrupt TaskGroup.cancel Timer Timer.cancel Timer.fire current_deadline
    current_loop current_task listen_fds no_parking shield BusyError Cancelled CannotParkError ChannelEnd
    ClosedChannelError
    ClosedError Deadlock ErrorContext ForeignThreadError IncompleteReadError LimitError ShortFileError ShutDown
    TaskCancelledError
    BrokenBarrierError Event HasFileno HasFileno.fileno Lock RLock Task TlsError TruncatedError
    Socket.event_secured Listener.may_accept Listener.pause_accepting Listener.go_on_accepting
    LoopThread LoopThread.call LoopThread.stop LoopThread.stop_at_exit start_in_thread thread_cancelled
    Instrument Instrument.turn_began Instrument.turn_ended Instrument.callback_began Instrument.callback_ended
    Instrument.run_began Instrument.run_ended Instrument.task_spawned Instrument.task_ended
    Instrument.connection_accepted Instrument.connection_closed
    SignalHandle SignalHandle.call SignalHandle.cancel signals.close
""".split()  # noqa: SIM905
)


def covered():
    """What CALLS covers, as Class.method or function."""
    names = {name.partition(",")[0] for name, _, _ in CALLS}
    owners = {
        "Loop": "call_soon call_soon_threadsafe add_timer set_loop_timeout add_other_fds other_fds run",
        "Socket": "read read_into read_exactly read_line read_until read_some read_some_into read_to_end start_tls"
        " push_back_read write write_soon write_all send_file write_file set_writer_func set_post_loop_callback"
        " add_timer set_loop_timeout"
        " add_other_fds other_fds",
        "TaskGroup": "spawn",
    }
    for owner, methods in owners.items():
        names.update(f"{owner}.{method}" for method in methods.split() if {method, f"{owner}.{method}"} & names)
    return names


def public():
    """Every public function, class and method, but for the aliases in CamelCase, as Class.method or function."""
    for name in d.__all__:
        thing = getattr(d, name)
        if name in ("Address", "Selectable", "SocketAddress", "SocketLike"):  # types
            continue
        yield name
        if isinstance(thing, type) and not issubclass(thing, (BaseException, tuple)):
            for method, value in inspect.getmembers(thing, callable):
                if not method.startswith("_") and not method[0].isupper():
                    if getattr(value, "__module__", "").startswith("dangagreen"):
                        yield f"{name}.{method}"


def test_every_public_call_is_covered():
    known = covered() | FREE
    inherited = {"BoundedSemaphore": "Semaphore", "LifoQueue": "Queue", "PriorityQueue": "Queue"}
    scopes = ("timeout", "timeout_at", "move_on_after", "shield")
    missing = []
    for name in public():
        owner, dot, method = name.partition(".")
        owner = "CancelScope" if owner in scopes and dot else inherited.get(owner, owner) if dot else owner
        if not {name, owner + dot + method} & known:
            missing.append(name)
    assert missing == []


# of these any value makes sense, there is none to be given, or it is checked where that makes sense
FREE_ELSEWHERE = "bridge.EventLoop bridge.guest bridge.to_task testing.TestCase testing.WireEnd testing.wait_until_idle"


def test_every_function_of_the_other_modules_is_covered():
    known = {name.partition(",")[0] for name, _, _ in CALLS} | set(FREE_ELSEWHERE.split())
    missing = []
    for module in (testing, bridge, metrics):
        for name in module.__all__:
            thing, whole = getattr(module, name), f"{module.__name__.partition('.')[2]}.{name}"
            is_data = isinstance(thing, type) and (is_dataclass(thing) or issubclass(thing, (BaseException, tuple)))
            if callable(thing) and not is_data and not {name, whole} & known:
                missing.append(whole)
    assert missing == []


@pytest.fixture
def world(loop, wires):
    gc.disable()  # what earlier tests have left behind is not to be closed meanwhile
    world = World(loop, wires)
    yield world
    gc.enable()
    world.peer.close()
    world.task.cancel()
    world.task.join()
    for owner in (world.sock, world.full, world.real, world.listener, world.served):
        owner.close()


@pytest.mark.parametrize(
    ("case", "error", "call"),
    [
        pytest.param(case, error, call, id=f"{name}-{kind}")
        for name, cases, call in CALLS
        for kind, (case, error) in cases.items()
    ],
)
def test_a_call_that_is_refused_has_changed_nothing(world, case, error, call):
    def attempt():
        with d.timeout(50), warnings.catch_warnings():
            warnings.simplefilter("error")
            before = world.state()
            try:
                call(world, case)
            except Exception as raised:
                after = world.state()
                assert [name for name in before if before[name] != after[name]] == []
                return raised

    task = d.spawn(attempt)
    task.join()
    for raised in (attempt(), task.result()):
        assert type(raised) is error, repr(raised)
        assert str(raised)


def test_a_refused_wait_wakes_nobody_later(loop):
    """What was left behind of `join("1")` used to wake its caller out of whatever it waited for later."""
    ended = d.spawn(d.sleep, 1)
    result = d.Future()
    loop.add_timer(1, lambda: result.set_result(None))

    def work():
        for call in (ended.join, result.wait):
            for bad in ("1", datetime.timedelta(1), HUGE, math.nan):
                with pytest.raises((TypeError, OverflowError, ValueError)):
                    call(bad)
        began = loop.time()
        d.sleep(9)
        return loop.time() - began

    task = d.spawn(work)
    task.join()
    assert task.result() == 9


# -- what is accepted


@pytest.mark.parametrize("milliseconds", [math.inf, 1e300, 10**12])
def test_a_loop_timeout_beyond_what_a_poller_takes_does_not_end_the_loop(real_loop, milliseconds):
    real_loop.set_loop_timeout(milliseconds)
    real_loop.deadlock_seconds = milliseconds
    real_loop.add_timer(0.01, real_loop.stop)
    real_loop.run()


def test_max_connections_may_be_assigned(loop, run_turns):
    with d.serve(LOCAL, lambda sock: d.sleep(1000), max_connections=1) as listener:
        clients = [socket.create_connection(listener.address) for _ in range(3)]
        run_turns(5)
        assert listener.connections == 1
        listener.max_connections = 2
        run_turns(5)
        assert listener.connections == 2
        listener.max_connections = None
        run_turns(5)
        assert listener.connections == 3
        for client in clients:
            client.close()
        loop.reset()


# -- sockets, classes and factories


@pytest.mark.parametrize("name", ["accept_backoff", "new_connection_grace", "linger_seconds", "clean_up_seconds"])
def test_the_class_attributes_of_a_listener_are_checked_when_one_is_made(loop, monkeypatch, name):
    before = len(os.listdir("/dev/fd"))
    for bad, error in (("5", TypeError), (None, TypeError), (math.nan, ValueError), (HUGE, OverflowError)):
        monkeypatch.setattr(d.Listener, name, bad)
        with pytest.raises(error, match=f"Listener.{name}"):
            d.serve(LOCAL, d.Socket)
    monkeypatch.undo()
    for bad, error in (("5", TypeError), (0, ValueError), (1.5, TypeError)):
        monkeypatch.setattr(d.Listener, "accepts_per_turn", bad)
        with pytest.raises(error, match=r"Listener\.accepts_per_turn"):
            d.serve(LOCAL, d.Socket)
    assert len(os.listdir("/dev/fd")) == before


def test_a_datagram_socket_is_no_connection(loop):
    for made in (socket.socket(socket.AF_INET, socket.SOCK_DGRAM), *socket.socketpair(type=socket.SOCK_DGRAM)):
        with made, pytest.raises(TypeError, match="datagram"):
            d.Socket(made)
    assert d.Socket.watched_sockets() == 0


def test_a_class_and_a_socket_class_are_refused_together(loop):
    class Other(d.Socket):
        __slots__ = ()

    for handler in (d.Socket, partial(d.Socket)):
        with pytest.raises(TypeError, match="socket_class"):
            d.serve(LOCAL, handler, socket_class=Other)
    assert d.Socket.watched_sockets() == 0


class Greeter(d.Socket):
    __slots__ = ("greeting",)

    def __init__(self, sock, greeting, loop=None):
        super().__init__(sock, loop)
        self.greeting = greeting

    def event_read(self):
        self.write(self.greeting + (self.read(100) or b""))
        self.finish()


def test_a_partial_of_a_class_configures_the_connections(real_loop):
    with d.serve(LOCAL, partial(Greeter, greeting=b"hello ")) as listener, d.connect(listener.address, 5) as client:
        client.write_all(b"there")
        assert client.read_to_end() == b"hello there"


@pytest.mark.parametrize("serve", [d.serve, d.serve_requests])
def test_a_partial_of_a_class_configures_the_connections_of_functions_and_of_clients(real_loop, serve):
    def handler(sock):
        sock.write_all(sock.greeting + sock.read_exactly(5))
        sock.finish()

    with serve(LOCAL, handler, socket_class=partial(Greeter, greeting=b"hello ")) as listener:
        if serve is d.serve_requests:
            listener.close()
            return  # Greeter has an event_read of its own
        with d.connect(listener.address, 5, socket_class=partial(Greeter, greeting=b"x")) as client:
            client.write_all(b"there")
            assert (client.greeting, client.read_to_end()) == (b"x", b"hello there")
