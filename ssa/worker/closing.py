"""Closes what applications have opened, in threads: close(2) can block for as long as an application likes.

A socket with SO_LINGER waits for its peer, a file on a user's own FUSE mount for that user's program, a Unix socket for
all sockets in its queue. An application can set SO_LINGER between a look at it and the close. Linux before 6.10
collects the garbage of all Unix sockets, other users' too, in whatever thread closes one. So every descriptor that an
application has passed, and every socket that it has a part in, is closed in a thread. Each user has some threads: a
user that makes them wait makes only the user's own descriptors wait.

A signal ends a close that lingers, after a moment (inet_release in net/ipv4/af_inet.c: the wait is interruptible). TCP
goes on by itself with what is unsent. So a user cannot keep many threads for long.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import resource
import signal
import socket
import threading
import time
from collections import Counter, defaultdict, deque
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_log = logging.getLogger("ssa.daemon")

_MOST = 64  # threads of a user, for each of the two kinds
_SPARE = 8  # idle threads that are kept
_SOON = 0.001  # seconds that a close takes at most, as a rule
_LINGERING = 0.05  # seconds after which a close counts as lingering
_ROOMY = 1024  # descriptors: a process with fewer gathers no connections before it closes them
_TOGETHER = 4  # connections to us that are closed by one job: to wake a thread costs more than a close
_INTERRUPT = signal.SIGRTMIN

Kind = tuple[int, bool]  # the user; True for connections to us, which must not wait for files


class Job:
    """Descriptors that a thread closes, one after the other."""

    __slots__ = ("_done", "_then", "close", "descriptors", "kind")

    def __init__(self, kind: Kind, descriptors: Sequence[int], close: Callable[[int], None]) -> None:
        self.kind = kind
        self.descriptors = deque(descriptors)  # those that are open still
        self.close = close
        self._done = threading.Lock()
        self._done.acquire()
        self._then: Callable[[], None] | None = None

    def run(self) -> None:
        """Close them. A thread of `Closers` calls this."""
        while self.descriptors:
            fd = self.descriptors.popleft()  # its number is free as soon as close(2) has begun
            try:
                self.close(fd)
            except OSError as exc:
                _log.debug("closing what an application passed: %s", exc.strerror)
        self._done.release()
        if (then := self._then) is not None:
            then()

    async def wait(self) -> None:
        """Wait until all are closed."""
        if self._done.acquire(timeout=_SOON):
            return
        closed, token = trio.Event(), trio.lowlevel.current_trio_token()

        def tell() -> None:
            with contextlib.suppress(trio.RunFinishedError):
                token.run_sync_soon(closed.set)

        self._then = tell
        if self._done.acquire(blocking=False):  # between the two
            return
        await closed.wait()


class _Worker(threading.Thread):
    """One thread. `job` is the last job that it was given."""

    def __init__(self, closers: Closers, job: Job) -> None:
        super().__init__(name="closer", daemon=True)
        self._closers = closers
        self._go = threading.Lock()
        self._go.acquire()
        self.job = job
        self.since = time.monotonic()

    def hand(self, job: Job) -> None:
        """Have the thread, which waits, run a job."""
        self.job, self.since = job, time.monotonic()
        self._go.release()

    def run(self) -> None:
        self.job.run()
        while (has_job := self._closers.next_for(self)) is not None:
            if not has_job:
                self._go.acquire()
            self.job.run()


class Closers:
    """A process's threads that close, for all its users. To hand something over takes no time, from whatever thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spare: list[_Worker] = []
        self._busy: set[_Worker] = set()
        self._threads: Counter[Kind] = Counter()
        self._waiting: defaultdict[Kind, deque[Job]] = defaultdict(deque)
        self._later: dict[tuple[int, Callable[[int], None]], list[int]] = {}  # by user
        self._stirred = threading.Event()
        self._watching = False
        self._together = _TOGETHER if resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= _ROOMY else 1

    def end_lingering(self) -> None:
        """From now on interrupt closes that linger. The main thread has to call this: signals are handled there."""
        signal.signal(_INTERRUPT, _nothing)
        if not self._watching:
            self._watching = True
            threading.Thread(target=self._watch, name="closers", daemon=True).start()

    def of(self, uid: int) -> Closer:
        """The closer of one user."""
        return Closer(self, uid)

    def hand(self, kind: Kind, descriptors: Sequence[int], close: Callable[[int], None]) -> Job:
        """Have descriptors closed by a thread of their kind."""
        job = Job(kind, descriptors, close)
        with self._lock:
            if self._threads[job.kind] >= _MOST:
                self._waiting[job.kind].append(job)
                return job
            self._threads[job.kind] += 1
            worker = self._spare.pop() if self._spare else None
            if worker is not None:
                self._busy.add(worker)
                worker.hand(job)
        if worker is None:
            self._start(job)
        if not self._stirred.is_set():
            self._stirred.set()
        return job

    def close_connection(self, uid: int, fd: int, close: Callable[[int], None]) -> None:
        """Have a user's connection to us closed: together with a few others, or in a moment."""
        key = uid, close
        with self._lock:
            gathered = self._later.setdefault(key, [])
            gathered.append(fd)
            if self._watching and len(gathered) < self._together:
                gathered = []
            else:
                del self._later[key]
        if gathered:
            self.hand((uid, True), gathered, close)
        elif not self._stirred.is_set():
            self._stirred.set()

    def _close_all_gathered(self) -> None:
        with self._lock:
            later, self._later = self._later, {}
        for (uid, close), gathered in later.items():
            self.hand((uid, True), gathered, close)

    def _start(self, job: Job) -> None:
        worker = _Worker(self, job)
        with self._lock:
            self._busy.add(worker)
        try:
            worker.start()
        except RuntimeError as exc:  # there are too many threads: the next one that is spare does it
            _log.error("what an application passed stays open for now: %s", exc)
            with self._lock:
                self._busy.discard(worker)
                self._threads[job.kind] -= 1
                self._waiting[job.kind].appendleft(job)

    def next_for(self, worker: _Worker) -> bool | None:
        """What a thread does that has run its job: True for another job, False to wait for one, None to end."""
        with self._lock:
            kind = worker.job.kind
            self._leave(kind)
            if (job := self._next(kind)) is not None:
                self._threads[job.kind] += 1
                worker.job, worker.since = job, time.monotonic()
                return True
            self._busy.discard(worker)
            if len(self._spare) >= _SPARE:
                return None
            self._spare.append(worker)
            return False

    def _leave(self, kind: Kind) -> None:
        self._threads[kind] -= 1
        if not self._threads[kind]:
            del self._threads[kind]

    def _next(self, kind: Kind) -> Job | None:
        for candidate in (kind, *self._waiting):
            if (jobs := self._waiting.get(candidate)) and self._threads[candidate] < _MOST:
                job = jobs.popleft()
                if not jobs:
                    del self._waiting[candidate]
                return job
        return None

    def open(self, uid: int | None) -> int:
        """How many descriptors of a user, or of all, are not closed yet."""
        if not (self._busy or self._waiting or self._later):
            return 0
        with self._lock:
            waiting = itertools.chain.from_iterable(self._waiting.values())
            jobs = [*(worker.job for worker in self._busy), *waiting]
            return sum(len(job.descriptors) for job in jobs if uid in {None, job.kind[0]}) + sum(
                len(gathered) for (owner, _), gathered in self._later.items() if uid in {None, owner}
            )

    def _watch(self) -> None:
        while True:
            self._stirred.wait()
            self._stirred.clear()
            time.sleep(_LINGERING)
            self._close_all_gathered()
            while self._interrupt():  # a close in a user's own file system may hang: the others go on
                time.sleep(_LINGERING)
                self._close_all_gathered()

    def _interrupt(self) -> bool:
        """Interrupt threads whose close lingers. True while a thread is busy."""
        with self._lock:
            now = time.monotonic()
            for worker in self._busy:
                if worker.ident is not None and now - worker.since > _LINGERING:
                    with contextlib.suppress(ProcessLookupError):
                        signal.pthread_kill(worker.ident, _INTERRUPT)
            return bool(self._busy)


def _nothing(*_: object) -> None:
    return


class Closer:
    """Closes what one user's applications have opened, in threads: whoever makes them wait makes that user wait."""

    def __init__(self, closers: Closers, uid: int) -> None:
        self._closers = closers
        self._uid = uid

    def close(self, descriptors: Sequence[int], close: Callable[[int], None] = os.close) -> Job:
        """Have a thread close descriptors that an application has passed."""
        return self._closers.hand((self._uid, False), descriptors, close)

    def drop(self, sock: socket.socket) -> Job | None:
        """Have a thread close a socket; None where it is closed already."""
        fd = sock.detach()
        return None if fd < 0 else self.close([fd])

    def give_up(self, connections: Sequence[int]) -> None:
        """Have a thread close connections to us whose applications have gone."""
        self._closers.hand((self._uid, True), connections, os.close)

    def hang_up(self, sock: socket.socket, close: Callable[[int], None] = os.close) -> None:
        """End a connection to an application and close it, with the descriptors in packets that nobody has read."""
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)  # so that nothing more can come, and the application knows
        if (fd := sock.detach()) >= 0:
            self._closers.close_connection(self._uid, fd, close)

    def end_requests(self, connection: socket.socket) -> None:
        """Hang up on an application. If it has sent more requests, it finds our last reply, and no error for them."""
        self.hang_up(connection, _read_and_close)

    def open(self) -> int:
        """How many of the user's descriptors wait to be closed."""
        return self._closers.open(self._uid)


def _read_and_close(fd: int) -> None:
    """Descriptors in what is read are closed by the kernel here, as there is no room for them."""
    with socket.socket(fileno=fd) as connection, contextlib.suppress(OSError):
        for _ in range(_MOST_PACKETS):
            data, _, flags, _ = connection.recvmsg(1, 0, socket.MSG_DONTWAIT)
            if not (data or flags & socket.MSG_CTRUNC):  # the end: a packet has its sender's credentials at least
                return


_MOST_PACKETS = 4096  # more than a queue has room for
