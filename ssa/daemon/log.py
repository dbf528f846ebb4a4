"""The daemon's log: lines on standard error that nobody waits for.

Nothing that logs may wait: who reads the log may be slow, stopped or gone, and the event loop has others to serve. So
a line goes into a queue, and a thread of its own writes it. What the queue has no room for is dropped, counted
(``/ssa/stats/log_lines_dropped``), and said as soon as somebody reads again.

What a user can cause again and again is bounded: a worker's lines carry its user (`ssa.logfmt.charged`), who may cause
so many lines a second, and one line then says how many were left out. Lines of a kind that comes in numbers (streams
that were cut) are counted apart from the others, so they cannot hide a refusal. Lines of the daemon's own, such as
those about a written policy, are not counted, nor is what ``--log-level debug`` asks for.

In the foreground a line is ``2026-11-28T13:42:25.123Z ssad info: text key=value key="a value"``. Where standard
error is the journal's (sd-daemon(3)) it is ``<6>text key=value``: the journal has the time. A traceback follows in
lines of its own, which begin with a bar, so that no text in it can pass for another line.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import select
import sys
import threading
import time
import traceback
from datetime import UTC, datetime

from ssa.errors import printable
from ssa.logfmt import Lines, fields

_log = logging.getLogger("ssa.daemon")

_STANDARD_ERROR = 2
_ROOM = 1000  # lines that wait to be written
_AT_ONCE = 100  # lines in one write
_LONGEST = 4000  # characters of a line
_PATIENCE = 1.0  # seconds that the end waits for the last lines
_A_SECOND = 10  # lines that a user may cause

_PRIORITIES = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}  # of syslog(3)


def start(level: str) -> Log:
    """Log to standard error from now on, also what Python itself has to say there."""
    log = Log(_STANDARD_ERROR)
    root = logging.getLogger()
    root.addHandler(log)
    root.setLevel(level.upper())
    sys.stderr = Lines(_log)
    return log


def open_standard_streams() -> None:
    """Open each that is closed: else another file would get its number, and what is written to the stream."""
    for number in range(_STANDARD_ERROR + 1):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free


def dropped() -> int:
    """The number of lines that were lost, as nobody read the log."""
    return sum(handler.dropped for handler in logging.getLogger().handlers if isinstance(handler, Log))


Payer = tuple[int, str]  # whose lines are counted together: a uid, and a kind of lines or ""


class Bounds:
    """Counts the lines that each user has caused within a second, by kind. Values in, values out."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._seconds: dict[Payer, tuple[float, int]] = {}  # when it began, how many lines
        self._left_out: list[tuple[Payer, int]] = []

    def admit(self, payer: Payer, now: float) -> bool:
        """True where the user may have one more line of that kind. Else the line is counted as left out."""
        self._end(payer, now)
        began, lines = self._seconds.get(payer, (now, 0))
        self._seconds[payer] = began, lines + 1
        return lines < self._most

    def left_out(self, now: float) -> list[tuple[Payer, int]]:
        """The users who had too many lines in a second that is over, and how many were left out; each once."""
        for payer in list(self._seconds):
            self._end(payer, now)
        found, self._left_out = self._left_out, []
        return found

    def __bool__(self) -> bool:
        return bool(self._seconds or self._left_out)

    def _end(self, payer: Payer, now: float) -> None:
        began, lines = self._seconds.get(payer, (now, 0))
        if now - began >= 1:
            del self._seconds[payer]
            if lines > self._most:
                self._left_out.append((payer, lines - self._most))


class Log(logging.Handler):
    """Writes lines to a descriptor, in a thread.

    Attributes:
        dropped: lines that could not be written.
    """

    def __init__(self, fd: int) -> None:
        super().__init__()
        self.dropped = 0
        self._unsaid = 0  # of these, what no line has told of yet
        self._fd = fd
        self._in_journal = _is_journal(fd)
        self._bounds = Bounds(_A_SECOND)
        self._counting = threading.Lock()  # of the bounds and the numbers, which the thread needs too
        self._lines: queue.Queue[bytes | threading.Event] = queue.Queue(_ROOM)
        threading.Thread(target=self._run, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Put a record into the queue."""
        try:
            if self._is_admitted(record):
                self._lines.put_nowait(self._written(record))
        except queue.Full:
            self._drop(1)
        except Exception:  # noqa: BLE001 - there is nobody to tell
            self._drop(1)

    def flush(self) -> None:
        """Wait for what was logged to be written, but not for long."""
        reached = threading.Event()
        deadline = time.monotonic() + _PATIENCE
        with contextlib.suppress(queue.Full):
            self._lines.put(reached, timeout=_PATIENCE)
            reached.wait(deadline - time.monotonic())

    def _is_admitted(self, record: logging.LogRecord) -> bool:
        uid: int = getattr(record, "uid", -1)
        if uid < 0 or record.levelno <= logging.DEBUG:
            return True
        with self._counting:
            return self._bounds.admit((uid, getattr(record, "kind", "")), time.monotonic())

    def _drop(self, lines: int) -> None:
        with self._counting:
            self.dropped += lines
            self._unsaid += lines

    def _written(self, record: logging.LogRecord) -> bytes:
        texts = [printable(record.getMessage(), _LONGEST)]
        if record.exc_info:
            raised = "".join(traceback.format_exception(*record.exc_info))
            texts += [f"  | {printable(line, _LONGEST)}" for line in raised.splitlines()]
        texts += [f"  | {printable(line, _LONGEST)}" for line in getattr(record, "trace", "").splitlines()]
        before = self._prefix(record)
        return "".join(f"{before}{text}\n" for text in texts).encode("utf-8", "backslashreplace")

    def _prefix(self, record: logging.LogRecord) -> str:
        if self._in_journal:
            return f"<{_PRIORITIES.get(record.levelname, 6)}>"
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        return f"{moment.removesuffix('+00:00')}Z ssad {record.levelname.lower()}: "

    # --- the thread ---

    def _run(self) -> None:
        while True:
            try:
                self._write(self._next())
                self._say_what_is_missing(time.monotonic())
            except queue.Empty:
                self._say_what_is_missing(time.monotonic())
            except Exception:  # noqa: BLE001 - there is nobody to tell, and the next line may go
                self._drop(1)

    def _next(self) -> list[bytes | threading.Event]:
        """The lines that are to be written now. Raises `queue.Empty` when a second has passed without anything."""
        batch = [self._lines.get(timeout=1 if self._bounds or self._unsaid else None)]
        with contextlib.suppress(queue.Empty):
            while len(batch) < _AT_ONCE:
                batch.append(self._lines.get_nowait())
        return batch

    def _write(self, batch: list[bytes | threading.Event]) -> None:
        lines = [entry for entry in batch if isinstance(entry, bytes)]
        if not self._put(b"".join(lines)):
            self._drop(len(lines))
        events = [entry for entry in batch if isinstance(entry, threading.Event)]
        if events:
            self._say_what_is_missing(float("inf"))
        for event in events:
            event.set()

    def _say_what_is_missing(self, now: float) -> None:
        with self._counting:
            left_out, unsaid = self._bounds.left_out(now), self._unsaid
        text = f"lines left out: one user may cause {_A_SECOND} in a second"
        said = [
            f"{text} {fields(uid=uid, lines=lines, **({'of': kind} if kind else {}))}"
            for (uid, kind), lines in left_out
        ]
        if unsaid:
            said.append(f"lines dropped, as nobody read the log {fields(lines=unsaid)}")
        if said and self._put(b"".join(map(self._warning, said))):
            with self._counting:
                self._unsaid -= unsaid

    def _warning(self, text: str) -> bytes:
        return self._written(_log.makeRecord(_log.name, logging.WARNING, "", 0, text, (), None))

    def _put(self, data: bytes) -> bool:
        """Write all of it, however long that takes; False where it could not be written."""
        try:
            while data:
                data = data[self._write_some(data) :]
        except OSError:
            return False
        return True

    def _write_some(self, data: bytes) -> int:
        try:
            return os.write(self._fd, data)
        except BlockingIOError:  # another process with this open file has set O_NONBLOCK
            select.select([], [self._fd], [])
            return 0


def _is_journal(fd: int) -> bool:
    """True where a descriptor is the stream to the journal that the service manager has made (systemd.exec(5))."""
    status = os.fstat(fd)
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
