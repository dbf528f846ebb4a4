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
_LINGERING = 0.05  # seconds between two looks: a close that is under way at both counts as lingering
_ROOMY = 1024  # descriptors: a process with fewer gathers none before it closes them
_TOGETHER = 4  # descriptors that are closed by one job: to wake a thread costs more than a close
_INTERRUPT = signal.SIGRTMIN

Kind = tuple[int, bool]  # the user; True for connections to us, which must not wait for files


class Job:
    """Descriptors that a thread closes, one after the other, and what it does then.

    Attributes:
        closers: who knows the thread's next job.
        kind: whose they are.
        descriptors: those that are open still.
        done: it is over: all are closed, and `then` has returned.
        thread: the identifier of the thread that does it; None before.
        waits: it was under way when somebody last looked.
    """

    __slots__ = ("_close", "_tell", "_then", "closers", "descriptors", "done", "kind", "thread", "waits")

    def __init__(
        self,
        closers: Closers,
        kind: Kind,
        descriptors: Sequence[int],
        close: Callable[[int], None],
        then: Callable[[], None] | None = None,
    ) -> None:
        self.closers = closers
        self.kind = kind
        self.descriptors = deque(descriptors)
        self.done = False
        self.thread: int | None = None
        self.waits = False
        self._close = close
        self._then = then
        self._tell: Callable[[], None] | None = None

    def run(self) -> None:
        """Do it. A thread of `Closers` calls this."""
        self.thread = threading.get_ident()
        while self.descriptors:
            fd = self.descriptors.popleft()  # its number is free as soon as close(2) has begun
            try:
                self._close(fd)
            except OSError as exc:
                _log.debug("closing what an application passed: %s", exc.strerror)
        if self._then is not None:
            try:
                self._then()
            except Exception:  # noqa: BLE001 - logged whole, and the thread serves on
                _log.exception("a fault of ssad's own")
        self.done = True  # before `_tell` is looked at: `wait` looks the other way round
        if (tell := self._tell) is not None:
            tell()

    async def wait(self) -> None:
        """Wait until it is done."""
        if self.done:
            return
        closed, token = trio.Event(), trio.lowlevel.current_trio_token()

        def tell() -> None:
            with contextlib.suppress(trio.RunFinishedError):
                token.run_sync_soon(closed.set)

        self._tell = tell
        if not self.done:  # between the two
            await closed.wait()


class _Pool:
    """The threads of a `Closers` that are idle. The lock is for all that the Closers have, too.

    A thread waits in read(2) of a pipe, and not for a lock: for that, Python 3.11 asks for the time twice. And while
    write(2) wakes the thread, Python's own lock is free for it.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.idle = 0  # threads that have no job
        self._handed: deque[Job] = deque()  # to threads that have woken up, or will
        self._reading, self._writing = os.pipe()

    def take(self, job: Job) -> bool:
        """Hand a job to an idle thread, which `wake` wakes. False where there is none. The caller has the lock."""
        if not self.idle:
            return False
        self.idle -= 1
        self._handed.append(job)
        return True

    def wake(self) -> None:
        """Wake an idle thread."""
        os.write(self._writing, b"!")

    def wait(self) -> Job:
        """Wait, as an idle thread, for a job."""
        os.read(self._reading, 1)
        return self._handed.popleft()


class Closers:
    """A process's threads that close, for all its users. To hand something over takes no time, from whatever thread."""

    def __init__(self) -> None:
        self._pool = _Pool()
        self._lock = self._pool.lock
        self._jobs: set[Job] = set()  # that threads have
        self._threads: Counter[Kind] = Counter()
        self._waiting: defaultdict[Kind, deque[Job]] = defaultdict(deque)
        self._later: dict[tuple[Kind, Callable[[int], None]], list[int]] = {}
        self._late: Counter[int | None] = Counter()  # how many those are, by user; at None those of all
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

    def hand(
        self,
        kind: Kind,
        descriptors: Sequence[int],
        close: Callable[[int], None],
        then: Callable[[], None] | None = None,
    ) -> Job:
        """Have descriptors closed by a thread of their kind, which calls `then` when they are closed."""
        job = Job(self, kind, descriptors, close, then)
        with self._lock:
            if self._threads[job.kind] >= _MOST:
                self._waiting[job.kind].append(job)
                return job
            self._threads[job.kind] += 1
            self._jobs.add(job)
            has_thread = self._pool.take(job)
        if has_thread:
            self._pool.wake()
        else:
            self._start(job)
        if not self._stirred.is_set():
            self._stirred.set()
        return job

    def close_soon(self, kind: Kind, fd: int, close: Callable[[int], None]) -> None:
        """Close a user's descriptor in a thread: together with a few others, or in a moment."""
        key = kind, close
        with self._lock:
            gathered = self._later.setdefault(key, [])
            gathered.append(fd)
            self._count_late(kind[0], 1)
            if self._watching and len(gathered) < self._together:
                gathered = []
            else:
                del self._later[key]
                self._count_late(kind[0], -len(gathered))
        if gathered:
            self.hand(kind, gathered, close)
        elif not self._stirred.is_set():
            self._stirred.set()

    def _close_all_gathered(self) -> None:
        with self._lock:
            later, self._later = self._later, {}
            self._late.clear()
        for (kind, close), gathered in later.items():
            self.hand(kind, gathered, close)

    def _start(self, job: Job) -> None:
        try:
            threading.Thread(target=self._work, args=(job,), name="closer", daemon=True).start()
        except RuntimeError as exc:  # there are too many threads: the next one that is spare does it
            _log.error(
                "no thread can be started to close an application's descriptors, so they stay open for now: %s", exc
            )
            with self._lock:
                self._jobs.discard(job)
                self._threads[job.kind] -= 1
                self._waiting[job.kind].appendleft(job)

    @staticmethod
    def _work(job: Job | None) -> None:
        """One thread, which begins with a job."""
        while job is not None:
            job.run()
            job = job.closers.next_after(job)

    def next_after(self, job: Job) -> Job | None:
        """The next job for the thread that has done this one, when there is one; None: the thread has to end."""
        with self._lock:
            self._jobs.discard(job)
            self._leave(job.kind)
            if (following := self._next(job.kind) or self._gathered(job.kind[0])) is not None:
                self._threads[following.kind] += 1
                self._jobs.add(following)
                return following
            if self._pool.idle >= _SPARE:
                return None
            self._pool.idle += 1
        return self._pool.wait()

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

    def _gathered(self, uid: int) -> Job | None:
        """A job for a thread that is awake: to close what was gathered of the user; None if nothing was."""
        for kind, close in self._later:
            if kind[0] == uid and self._threads[kind] < _MOST:
                gathered = self._later.pop((kind, close))
                self._count_late(uid, -len(gathered))
                return Job(self, kind, gathered, close)
        return None

    def _count_late(self, uid: int, number: int) -> None:
        self._late[uid] += number
        self._late[None] += number

    def open(self, uid: int | None) -> int:
        """The number of descriptors of a user, or of all users, that are not closed yet."""
        late = self._late.get(uid, 0)
        if not (self._jobs or self._waiting):
            return late
        jobs = [*self._jobs.copy()]  # at one go, without the lock, which would cost a system call
        if self._waiting:
            with self._lock:
                jobs += itertools.chain.from_iterable(self._waiting.values())
        return late + sum(len(job.descriptors) for job in jobs if uid in {None, job.kind[0]})

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
        """Interrupt threads that were closing at the last look already. True while a thread is busy."""
        with self._lock:  # under which no thread with a job ends
            for job in self._jobs:
                if job.waits and job.thread is not None:
                    with contextlib.suppress(ProcessLookupError):
                        signal.pthread_kill(job.thread, _INTERRUPT)
                job.waits = True
            return bool(self._jobs)


def _nothing(*_: object) -> None:
    return


class Closer:
    """Closes what one user's applications have opened, in threads: whoever makes them wait makes that user wait."""

    def __init__(self, closers: Closers, uid: int) -> None:
        self._closers = closers
        self._uid = uid

    def close(
        self,
        descriptors: Sequence[int],
        close: Callable[[int], None] = os.close,
        then: Callable[[], None] | None = None,
    ) -> Job:
        """Have a thread close descriptors that an application has passed, and then call `then`."""
        return self._closers.hand((self._uid, False), descriptors, close, then)

    def drop(self, sock: socket.socket) -> Job | None:
        """Have a thread close a socket; None where it is closed already."""
        fd = sock.detach()
        return None if fd < 0 else self.close([fd])

    def drop_soon(self, sock: socket.socket) -> None:
        """Have a thread close a socket, in a moment. The close(2) must be nothing that its peer waits for."""
        if (fd := sock.detach()) >= 0:
            self._closers.close_soon((self._uid, False), fd, os.close)

    def give_up(self, connections: Sequence[int]) -> None:
        """Have a thread close connections to us whose applications have gone."""
        self._closers.hand((self._uid, True), connections, os.close)

    def hang_up(self, sock: socket.socket, close: Callable[[int], None] = os.close) -> None:
        """End a connection to an application and close it, with the descriptors in packets that nobody has read."""
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)  # so that nothing more can come, and the application knows
        if (fd := sock.detach()) >= 0:
            self._closers.close_soon((self._uid, True), fd, close)

    def end_requests(self, connection: socket.socket, *, has_ended: bool) -> None:
        """Hang up on an application. If it has sent more requests, it finds our last reply, and no error for them.

        `has_ended`: the daemon has read the end of the stream, so there are no more requests.
        """
        self.hang_up(connection, os.close if has_ended else _read_and_close)

    def open(self) -> int:
        """The number of the user's descriptors that wait to be closed."""
        return self._closers.open(self._uid)


def _read_and_close(fd: int) -> None:
    """Read the queue empty and close. The kernel closes the queued descriptors in this thread: recvmsg has no room."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fd) as connection, contextlib.suppress(OSError):
        for _ in range(_MOST_PACKETS):
            data, _, flags, _ = connection.recvmsg(1, 0, socket.MSG_DONTWAIT)
            if not (data or flags & socket.MSG_CTRUNC):  # the end: a packet has its sender's credentials at least
                return


_MOST_PACKETS = 4096  # more than a queue has room for
