"""`ssl.SSLSocket` as a `TLSSocket`."""

# ruff: noqa: SLF001 - to stand in for `ssl` is to know what it is made of

from __future__ import annotations

import errno
import os
import socket
import ssl
import time

from ssa.inject import plaintext
from ssa.inject.failures import Absent, Fixed, as_ssl, error
from ssa.library import connection, relay_end
from ssa.library.control_records import Truncated
from ssa.library.datapath import RELAYED
from ssa.library.option_values import File
from ssa.library.phases import BORROWED, FAILED, FRESH, LISTENING, LIVE, PLAIN
from ssa.library.tlssocket import TLSSocket
from ssa.protocol import wire
from ssa.protocol.attributes import TRUNCATED
from ssa.protocol.options import (
    IPPROTO_TLS,
    TLS_CHOSEN_CIPHER,
    TLS_PEER_CERTIFICATE_CHAIN,
    TLS_RESUMED_SESSION,
    TLS_VERSION_CONN,
)
from ssa.protocol.options import TLS_ALPN as _ALPN
from ssa.suites import SUITES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Self

    from ssa.inject.parameters import Parameters


_socket = socket.socket
_PEM = 1  # _ssl.ENCODING_PEM


class SSLSocket(TLSSocket):
    """A `TLSSocket` with the methods of `ssl.SSLSocket`."""

    __slots__ = ("_parameters",)

    _parameters: Parameters

    get_verified_chain = Absent("ssad's path is in /ssa/sockets/ID/verdicts, and its certificates are not passed on")
    get_channel_binding = Absent("what it would be bound to is known to ssad only")
    verify_client_post_handshake = Absent("a client's certificate is asked for in the handshake, or not at all")
    shared_ciphers = Absent("what the client offered is known to ssad only")

    def __init__(self, *_args: object, **_kwargs: object) -> None:
        raise TypeError("SSLSocket does not have a public constructor: SSLContext.wrap_socket() makes them")

    @classmethod
    def wrap(cls, parameters: Parameters, sock: socket.socket, *, handshake: bool) -> SSLSocket:
        """Put an `SSLSocket` in the place of a plain socket, which is detached.

        A listening socket is served from then on. A connected one makes the handshake now if `handshake` is true.
        Raises `ssa.SSAError` NO_COUNTERPART for a socket that is not TCP's.
        """
        if sock.family not in (socket.AF_INET, socket.AF_INET6):
            raise error("NO_COUNTERPART", "wrap_socket: TLS runs over TCP here, not over a Unix socket")
        timeout, connected = sock.gettimeout(), _is_connected(sock)
        if connected and handshake and timeout == 0:
            raise ValueError("do_handshake_on_connect should not be specified for non-blocking sockets")
        listening = bool(sock.getsockopt(_SOL_SOCKET, _SO_ACCEPTCONN))
        phase = PLAIN if connected else FRESH
        self = cls.adopt(sock.detach(), sock.family, parameters.settings, phase).having(parameters)
        self.settimeout(timeout)
        try:
            if listening:
                self.listen()
            elif connected and handshake:
                self.do_handshake()
        except BaseException:
            self.close()
            raise
        return self

    def having(self, parameters: Parameters) -> Self:
        """The socket, after it was told its parameters."""
        self._parameters = parameters
        return self

    @property
    def _sslobj(self) -> SSLSocket | None:
        """The TLS of the socket, by the name that `ssl` has for it: httpcore and ftplib's test server ask for it."""
        over = self._read_ended and self._write_ended
        return None if over or self._phase in (FRESH, LISTENING, BORROWED, FAILED) else self

    @property
    def context(self) -> Any:
        """Does what `ssl.SSLSocket` documents. It cannot be changed: ssad has chosen the certificate."""
        return self._parameters.context

    @context.setter
    def context(self, value: Any) -> None:
        if value is not self._parameters.context:
            raise error("NO_COUNTERPART", "context: a certificate is chosen by its names, here and in /ssa/credentials")

    server_side = property(lambda self: self._parameters.server_side, doc="As of `ssl.SSLSocket`.")
    server_hostname = property(lambda self: self._parameters.server_hostname, doc="As of `ssl.SSLSocket`.")
    session = Fixed(None, "sessions are kept by ssad, for all programs")

    def _accepted(self, *args: Any, **kwargs: Any) -> SSLSocket:
        return super()._accepted(*args, **kwargs).having(self._parameters)

    def dup(self) -> SSLSocket:
        """Does what `ssa.TLSSocket` documents."""
        return super().dup().having(self._parameters)

    def _check_live(self) -> int:
        if self._phase == PLAIN:
            self.do_handshake()  # reading and writing make the handshake where none was made before
        return super()._check_live()

    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002 - as ssl has it
        """Wait until the handshake is done. On a non-blocking socket: SSLWantWriteError until then."""
        timeout = self.gettimeout()
        if timeout == 0 and block:
            self.settimeout(None)
        try:
            if self._phase != LIVE:
                self.upgrade(server_side=self._parameters.server_side)
        except BlockingIOError as exc:
            raise as_ssl(exc, ssl.SSLWantWriteError) from None
        except OSError as exc:
            raise self._parameters.explained(exc) from None
        finally:
            if timeout == 0 and block:
                self.settimeout(timeout)

    def _upgrade_request(self, *, server_side: bool, timeout_ms: int | None) -> wire.Request:
        """Does what `Endpoint` documents; the connection is said to have been used as plain text only where it was."""
        request = super()._upgrade_request(server_side=server_side, timeout_ms=timeout_ms)
        with self._plain() as plain:
            request.upgrade = 1 if plaintext.was_used(plain) else None
        return request

    def send_part_of_file(self, fd: int, offset: int, count: int) -> int:
        """sendfile(2) on a kernel TLS socket that does not wait, under the key that is due. Raises BlockingIOError."""
        if self._phase:
            self._check_live()
        with self._turns.turn:
            if self._sendable < 0:
                self._serve_what_is_due()
            try:
                sent = os.sendfile(self.fileno(), fd, offset, count)
            except BlockingIOError:
                raise
            except OSError as exc:
                raise as_ssl(self._cannot_write(exc)) from None
        self._sendable -= 1 + (sent >> 10)
        return sent

    @property
    def policy_refuses_cuts(self) -> bool:
        """A stream that ends without close_notify is an error by the policy, whatever the program asks for."""
        return self._info is not None and bool(self._info.cut_is_error)

    def _is_over(self, wanted: int) -> bool:
        """Tell if the stream is at its end, as a cut stream is if the program's context has it so in `ssl`."""
        try:
            return super()._is_over(wanted)
        except Truncated:
            if self._parameters.cut_is_error or self.policy_refuses_cuts:
                raise
        self._read_ended = True
        return True

    # What an event loop needs to wait for nobody at the end of a relayed stream (`ssa.inject.ending`).

    def recv_now(self, size: int) -> bytes | None:
        """Read what is there. None: a relayed stream is at its end, and `ask_end` has to ask how it has ended."""
        if self._path is not RELAYED or self._phase or self._read_ended:
            return self.recv(size)
        try:
            return _socket.recv(self, size) or None
        except ConnectionResetError:
            return None

    def recv_into_now(self, buffer: Any) -> int | None:
        """Read into a buffer. None: a relayed stream is at its end, and `ask_end` has to ask how it has ended."""
        if self._path is not RELAYED or self._phase or self._read_ended:
            return self.recv_into(buffer)
        try:
            return _socket.recv_into(self, buffer) or None
        except ConnectionResetError:
            return None

    def ask_end(self) -> connection.DaemonConnection:
        """Ask ssad how the stream has ended. The connection, readable when `end_told` has its answer, is the caller's.

        Raises TimeoutError where ssad's queue is full, else the OSError that reading raises without an ssad.
        """
        try:
            daemon = connection.DaemonConnection(time.monotonic())
            try:
                daemon.tell(wire.Describe(), self)
            except BaseException:
                daemon.close()
                raise
        except TimeoutError:
            raise
        except OSError as exc:
            raise as_ssl(relay_end.has_gone(exc)) from None
        return daemon

    def end_told(self, daemon: connection.DaemonConnection) -> None:
        """Take ssad's answer. Raises BlockingIOError where there is none yet, and else as `recv` at such an end."""
        try:
            reply, passed = daemon.reply_now()
        except BlockingIOError:
            raise
        except OSError as exc:
            raise as_ssl(relay_end.has_gone(exc)) from None
        for fd in passed:
            os.close(fd)
        try:
            relay_end.check(reply.ended or TRUNCATED)
        except Truncated as exc:
            if self._parameters.cut_is_error or self.policy_refuses_cuts:
                raise as_ssl(exc) from None
        except OSError as exc:
            raise as_ssl(self._ended_by(exc)) from None
        self._read_ended = True

    def read(self, len: int = 1024, buffer: Any = None) -> Any:  # noqa: A002 - as ssl has it
        """Does what `ssl.SSLSocket` documents."""
        return self.recv(len) if buffer is None else self.recv_into(buffer, len)

    def write(self, data: Any) -> int:
        """Does what `ssl.SSLSocket` documents."""
        return self.send(data)

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """Does what `ssa.TLSSocket` documents."""
        return _recv(self, buflen, flags)  # type: ignore[no-any-return]  # of Any

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        """Does what `ssa.TLSSocket` documents."""
        return _recv_into(self, buffer, nbytes or 0, flags)  # type: ignore[no-any-return]  # of Any

    def pending(self) -> int:
        """0: nothing that was decrypted waits outside the kernel, and poll(2) tells the truth."""
        return 0

    def unwrap(self) -> SSLSocket:
        """End the stream, and wait for the peer's end. What comes back can only be closed.

        The kernel has no way back to plain text. Raises OSError where data comes instead of the end, ValueError where
        there is no TLS, or no more.
        """
        if self._sslobj is None:
            raise ValueError(f"No SSL wrapper around {self}")
        self.shutdown(_SHUT_WR)
        if self.recv(1):
            raise ssl.SSLError(errno.EPROTO, "application data after close notify")
        self._read_ended = True
        return self

    def getpeercert(self, binary_form: bool = False) -> dict[str, Any] | bytes | None:  # noqa: FBT001, FBT002 - as in ssl
        """Does what `ssl.SSLSocket` documents. What is shown was verified."""
        pem = self.getsockopt(IPPROTO_TLS, TLS_PEER_CERTIFICATE_CHAIN).partition(_END)
        if not pem[0]:
            return None
        if binary_form:
            return ssl.PEM_cert_to_DER_cert((pem[0] + pem[1]).decode())
        file = File(pem[0] + pem[1] + b"\n")
        decoded: dict[str, Any] = ssl._ssl._test_decode_cert(f"/proc/self/fd/{file.fd}")  # type: ignore[attr-defined]  # private
        return decoded

    def get_unverified_chain(self) -> list[bytes]:
        """Give the peer's certificates as it sent them, in DER, its own first (as Python 3.13)."""
        blocks = self.getsockopt(IPPROTO_TLS, TLS_PEER_CERTIFICATE_CHAIN).decode().split(_END.decode())[:-1]
        return [_Certificate(ssl.PEM_cert_to_DER_cert(block.strip() + "\n" + _END.decode())) for block in blocks]

    def version(self) -> str | None:
        """Does what `ssl.SSLSocket` documents."""
        if self._phase != LIVE:
            return None
        return str(self.getsockopt(IPPROTO_TLS, TLS_VERSION_CONN, 16).decode())

    def cipher(self) -> tuple[str, str, int] | None:
        """Does what `ssl.SSLSocket` documents."""
        if self._phase != LIVE:
            return None
        suite = SUITES[self.getsockopt(IPPROTO_TLS, TLS_CHOSEN_CIPHER).decode()]
        return suite.openssl, suite.version.label, suite.aead.key * 8

    def selected_alpn_protocol(self) -> str | None:
        """Does what `ssl.SSLSocket` documents."""
        if self._phase != LIVE:
            return None
        return self.getsockopt(IPPROTO_TLS, _ALPN).decode() or None

    def selected_npn_protocol(self) -> None:
        """Does what `ssl.SSLSocket` documents: NPN is no more."""

    def compression(self) -> None:
        """Does what `ssl.SSLSocket` documents: there is none."""

    @property
    def session_reused(self) -> bool | None:
        """Does what `ssl.SSLSocket` documents."""
        return bool(self.getsockopt(IPPROTO_TLS, TLS_RESUMED_SESSION)) if self._phase == LIVE else None


class _Certificate(bytes):
    """A certificate, DER, that is one of `_ssl.Certificate`'s kind too: so Python before 3.13 has them."""

    __slots__ = ()

    def public_bytes(self, encoding: int = _PEM) -> str | bytes:
        """Does what `_ssl.Certificate` documents."""
        return ssl.DER_cert_to_PEM_cert(self) if encoding == _PEM else bytes(self)


def _is_connected(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError as exc:
        if exc.errno != errno.ENOTCONN:
            raise
        return False
    return True


def _translating(name: str, want: type[ssl.SSLError] | None) -> Callable[..., Any]:
    """A method of `TLSSocket` whose errors are ssl's too."""
    inherited: Callable[..., Any] = getattr(TLSSocket, name)

    def method(self: SSLSocket, *args: Any, **kwargs: Any) -> Any:
        try:
            return inherited(self, *args, **kwargs)
        except OSError as exc:
            raise as_ssl(exc, want) from None

    method.__name__ = method.__qualname__ = name
    method.__doc__ = inherited.__doc__
    return method


_recv, _recv_into = _translating("recv", ssl.SSLWantReadError), _translating("recv_into", ssl.SSLWantReadError)
for _name, _want in {
    "recvmsg_into": ssl.SSLWantReadError,
    "send": ssl.SSLWantWriteError,
    "sendall": ssl.SSLWantWriteError,
    "sendmsg": ssl.SSLWantWriteError,
    "sendfile": ssl.SSLWantWriteError,
    "shutdown": ssl.SSLWantWriteError,
    "connect": None,  # one that is under way says so in the words of connect(2)
    "listen": None,
}.items():
    setattr(SSLSocket, _name, _translating(_name, _want))

_SOL_SOCKET, _SO_ACCEPTCONN, _SHUT_WR = 1, 30, 1
_END = b"-----END CERTIFICATE-----"
