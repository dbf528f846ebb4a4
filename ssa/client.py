"""The application's side of a request: blocking, small, and all that talks to the daemon."""

from __future__ import annotations

import errno
import socket
import struct
import time

from ssa import errors, paths, wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

_GRACE = 0.5  # seconds for the daemon to say that time is up; one that is stopped never will


class Daemon:
    """A connection to ssad. Made before the TCP connection, so that its absence is told at once."""

    def __init__(self, deadline: float | None = None) -> None:
        """Connect to the daemon of the run directory, until a time on `time.monotonic`'s clock.

        Raises ConnectionRefusedError where none runs, TimeoutError where it does not answer.
        """
        path = paths.socket_path()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(None)  # the daemon keeps the deadline, whatever setdefaulttimeout() says
        if deadline is not None:
            # Not settimeout(): a full queue gives a non-blocking connect() EAGAIN at once (unix(7)).
            left = max(deadline - time.monotonic(), 0.001)
            interval = struct.pack("ll", int(left), int(left % 1 * 1e6))
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, interval)
        try:
            self._socket.connect(path)
        except (FileNotFoundError, ConnectionRefusedError) as exc:
            self._socket.close()
            raise ConnectionRefusedError(
                errno.ECONNREFUSED,
                f"no ssad listens at {path}; start it with `ssad` (as root), or `ssad --user` and set SSA_RUN_DIR",
            ) from exc
        except BlockingIOError as exc:
            self._socket.close()
            raise TimeoutError(errno.ETIMEDOUT, f"the ssad at {path} takes no request in time") from exc
        except OSError:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._socket.close()

    def handshake(self, request: wire.Connect, sock: socket.socket) -> wire.Reply:
        """Have the daemon handshake on the connected TCP socket. Raises `ssa.SSAError` for what went wrong.

        The daemon keeps the deadline; this waits for its word, and a little longer than that.
        """
        if request.timeout_ms is not None:
            self._socket.settimeout(request.timeout_ms / 1000 + _GRACE)
        socket.send_fds(self._socket, [wire.pack(request)], [sock.fileno()])
        try:
            data = self._socket.recv(wire.MAX_MESSAGE)
        except TimeoutError as exc:
            raise TimeoutError(errno.ETIMEDOUT, "the ssad that was asked does not answer; is it stopped?") from exc
        if not data:
            raise errors.error("DAEMON_FAULT", "it went away in the middle of the handshake")
        try:
            reply = wire.parse_untrusted(data, wire.Reply)
        except wire.WireError as exc:
            raise errors.error("DAEMON_FAULT", f"its reply: {exc}") from exc
        if reply.reason is None:
            return reply
        if reply.reason not in errors.REASONS:
            raise errors.error("DAEMON_FAULT", f"its reply has the unknown reason {reply.reason}: {reply.detail}")
        raise errors.error(reply.reason, reply.detail or "", reply.alert)
