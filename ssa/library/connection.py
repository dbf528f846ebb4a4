"""The connection to the daemon, and the requests that the library makes on it. Nothing else here talks to it."""

from __future__ import annotations

import errno
import os
import socket
import struct
import time

from ssa import errors
from ssa._version import __version__
from ssa.library import deadlines
from ssa.protocol import paths, wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

_GRACE = 0.5  # seconds for the daemon to say that time is up; one that is stopped never will


class DaemonConnection:
    """A connection to ssad. Made before the TCP connection, so that its absence is told at once."""

    def __init__(self, deadline: float | None = None) -> None:
        """Connect to the daemon of the run directory, until a time on `time.monotonic`'s clock.

        Where that time has come already (``time.monotonic()``) nothing is waited for, as an event loop needs it.

        Raises ConnectionRefusedError where none runs, TimeoutError where its queue of connections is full until then.
        """
        self._deadline = deadline
        path = paths.socket_path()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(None)  # the daemon keeps the deadline, whatever setdefaulttimeout() says
        try:
            self._connect(path)
        except (FileNotFoundError, ConnectionRefusedError) as exc:
            self._socket.close()
            raise ConnectionRefusedError(
                errno.ECONNREFUSED,
                f"no ssad listens at {path}; start it with `ssad` (as root); for your own "
                'daemon: `ssad --user`, then eval "$(ssa env)"',
            ) from exc
        except BlockingIOError as exc:
            self._socket.close()
            raise TimeoutError(errno.ETIMEDOUT, f"the ssad at {path} takes no request in time") from exc
        except OSError:
            self._socket.close()
            raise

    def _connect(self, path: str) -> None:
        """Connect. Raises BlockingIOError where there is no room in the daemon's queue in time (unix(7))."""
        left = None if self._deadline is None else self._deadline - time.monotonic()
        if left is not None and left <= 0:
            self._socket.setblocking(False)
        elif left is not None:
            # Not settimeout(), which makes the socket non-blocking: a full queue gives that EAGAIN at once.
            interval = struct.pack("ll", int(left), max(int(left % 1 * 1e6), 1))  # 0 is for ever
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, interval)
        self._socket.connect(path)
        self._socket.setblocking(True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    def fileno(self) -> int:
        """The descriptor of the connection."""
        return self._socket.fileno()

    def ask(self, request: wire.Message, sock: socket.socket | None = None, files: Sequence[int] = ()) -> wire.Reply:
        """Send a request and return its reply. Raises `ssa.SSAError` if it was refused or has failed.

        The daemon enforces a handshake's deadline. This waits a little longer than that, to read the daemon's error.
        """
        if self._deadline is not None:
            self._socket.settimeout(max(self._deadline - time.monotonic(), 0) + _GRACE)
        self.tell(request, sock, files)
        try:
            data = self._socket.recv(wire.MAX_REPLY)
        except TimeoutError as exc:
            raise TimeoutError(errno.ETIMEDOUT, "the ssad that was asked does not answer; is it stopped?") from exc
        return reply_of(data)

    def ask_for_socket(
        self, request: wire.Message, sock: socket.socket, files: Sequence[int] = ()
    ) -> tuple[wire.Reply, int]:
        """Send a request and return its reply, and the descriptor that comes with it, which the caller owns.

        Raises as `ask`.
        """
        if self._deadline is not None:
            self._socket.settimeout(max(self._deadline - time.monotonic(), 0) + _GRACE)
        self.tell(request, sock, files)
        reply, fds = reply_with_sockets(self._socket, always=True)
        return reply, fds[0]

    def ask_for_tls(
        self, request: wire.Message, sock: socket.socket, files: Sequence[int] = ()
    ) -> tuple[wire.Reply, list[int]]:
        """Ask for a handshake. Returns the reply, and one end of the pair if the daemon relays, which the caller owns.

        Raises as `ask`.
        """
        if self._deadline is not None:
            self._socket.settimeout(max(self._deadline - time.monotonic(), 0) + _GRACE)
        self.tell(request, sock, files)
        return reply_with_sockets(self._socket)

    def reply_now(self) -> tuple[wire.Reply, list[int]]:
        """The reply to what `tell` has sent, and one end of the pair if the daemon relays, which the caller owns.

        Raises BlockingIOError where it has not come yet.
        """
        return reply_with_sockets(self._socket, socket.MSG_DONTWAIT)

    def tell(self, request: wire.Message, sock: socket.socket | None = None, files: Sequence[int] = ()) -> None:
        """Send a request, without waiting for its answer.

        Raises ConnectionError if the daemon has gone; the `ssa.SSAError` in its last reply, if it has hung up with one.
        """
        descriptors = [*([] if sock is None else [sock.fileno()]), *files]
        try:
            socket.send_fds(self._socket, [wire.pack(request)], descriptors)
        except BrokenPipeError:
            if last_words := self._socket.recv(wire.MAX_REPLY, socket.MSG_DONTWAIT):
                reply_of(last_words)
            raise

    def start(self, request: wire.Message, sock: socket.socket, files: Sequence[int] = ()) -> None:
        """Send a request, and let this connection not be writable until it is answered."""
        self.tell(request, sock, files)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # as small as there are
        self._socket.send(wire.pack(wire.Plug(bytes(_PLUG))))


_PLUG = 2048  # bytes: more than a quarter of the smallest send buffer, see unix_writable() of net/unix/af_unix.c


def reply_with_sockets(
    connection: socket.socket, flags: int = 0, *, always: bool = False
) -> tuple[wire.Reply, list[int]]:
    """The next reply, and the descriptors that come with it; `always` one, or where the reply is of a relayed socket.

    Raises as `reply_of`, and what recvmsg does.
    """
    try:
        # Not socket.recv_fds(), which takes flags and ignores them.
        packet, ancillary, told, _ = connection.recvmsg(wire.MAX_REPLY, ROOM, flags | socket.MSG_CMSG_CLOEXEC)
    except TimeoutError as exc:  # not the daemon's word on the peer, which is one too
        raise TimeoutError(errno.ETIMEDOUT, "the ssad that was asked does not answer; is it stopped?") from exc
    fds = descriptors_of(ancillary)
    check_room(fds, told)
    try:
        reply = reply_of(packet)
        if (always or reply.relayed) and not fds:
            raise errors.error("DAEMON_FAULT", "its reply lacks the descriptor")
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise
    return reply, fds


ROOM = socket.CMSG_SPACE(2 * 4)  # bytes: for two descriptors


def descriptors_of(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    """The descriptors in what recvmsg(2) gives beside a packet."""
    return [fd for _, _, value in ancillary for (fd,) in struct.iter_unpack("=i", value)]


def check_room(fds: list[int], flags: int) -> None:
    """Raise OSError EMFILE where recvmsg(2) had no numbers for all descriptors of a packet: the connection is lost."""
    if flags & socket.MSG_CTRUNC:
        for fd in fds:
            os.close(fd)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def reply_of(data: bytes) -> wire.Reply:
    """The reply in a packet of the daemon's. Raises `ssa.SSAError` for an error's reply, and for what is no reply."""
    if not data:
        raise errors.error("DAEMON_FAULT", "it went away in the middle of the handshake")
    try:
        reply = wire.parse_untrusted(data, wire.Reply)
    except wire.OtherVersion as exc:
        words = f"ssad answers with {exc}, where this library, {__version__}, speaks {wire.SPOKEN}"
        raise errors.error("VERSION_MISMATCH", words) from exc
    except wire.WireError as exc:
        raise errors.error("DAEMON_FAULT", f"its reply: {exc}") from exc
    if reply.reason is None:
        return reply
    if reply.reason not in errors.REASONS:
        raise _unknown(reply.reason, reply)
    detail = reply.detail or ""
    if reply.reason == "VERSION_MISMATCH":
        detail += f"; this library is {__version__}"
    raise errors.error(reply.reason, detail, reply.alert)


def _unknown(reason: str, reply: wire.Reply) -> errors.SSAError:
    """The error for a reason that a later daemon has: with that daemon's errno and words."""
    words = f"its reply has a reason that this library, {__version__}, does not know: {reason}: {reply.detail}"
    failure = errors.error("DAEMON_FAULT", words)
    failure.errno = reply.errno or failure.errno
    return failure


# --- of a socket's life after its handshake -------------------------------------------------------------------------


def serve_handshake(sock: socket.socket) -> tuple[bool, bool]:
    """Have the daemon take the handshake messages that are next in the socket, and follow the peer's KeyUpdates.

    Returns two answers: the peer asks for a KeyUpdate of ours before the next data; a message continues in a record
    that has not come yet. Raises `ssa.SSAError`: NO_REKEY where this kernel can't change keys, and
    PROTOCOL_VIOLATION with the alert that the peer has to be sent; what caused it stays where it is.
    """
    with DaemonConnection(deadlines.local()) as daemon:
        reply = daemon.ask(wire.Rekey(receiving=1), sock)
    return bool(reply.sending), bool(reply.unfinished)


def change_sending_key(sock: socket.socket) -> bool:
    """Have the daemon send a KeyUpdate, and change the key for writing; False where the send buffer has no room.

    Raises `ssa.SSAError` NO_REKEY, BrokenPipeError where the connection has ended.
    """
    with DaemonConnection(deadlines.local()) as daemon:
        try:
            daemon.ask(wire.Rekey(sending=1), sock)
        except errors.SSAError as exc:
            if exc.errno == errno.EPIPE:
                raise BrokenPipeError(errno.EPIPE, exc.strerror) from None
            if exc.reason != "WOULD_BLOCK":
                raise
            return False
    return True


def hand_in_ticket(sock: socket.socket, messages: bytes) -> None:
    """Give session tickets to the daemon, which resumes with them. Without a daemon they are lost: no harm."""
    try:
        with DaemonConnection(time.monotonic()) as daemon:
            daemon.tell(wire.Ticket(messages), sock)
    except OSError:
        return


def end_later(sock: socket.socket, *, abort: bool = False) -> bool:
    """Have the daemon end the stream in order once the send buffer has room; False where no daemon takes it on.

    With `abort` the daemon lets go of a stream that it was asked to end before.
    """
    try:
        with DaemonConnection(time.monotonic()) as daemon:
            daemon.tell(wire.Close(1 if abort else None), sock)
    except OSError:
        return False
    return True


def tell_truncated(sock: socket.socket) -> None:
    """Tell the daemon, which counts it, that the peer's stream has ended without close_notify."""
    try:
        with DaemonConnection(time.monotonic()) as daemon:
            daemon.tell(wire.Describe(1), sock)
    except OSError:
        return


def describe(sock: socket.socket) -> wire.Reply:
    """All that the daemon knows about a TLS socket. Raises `ssa.SSAError` UNKNOWN_SOCKET."""
    with DaemonConnection(deadlines.local()) as daemon:
        return daemon.ask(wire.Describe(), sock)


def describe_relayed(sock: socket.socket) -> tuple[wire.Reply, list[int]]:
    """All that the daemon knows about a relayed socket, and a descriptor of its TCP socket while there is one."""
    with DaemonConnection(deadlines.local()) as daemon:
        return daemon.ask_for_tls(wire.Describe(), sock)
