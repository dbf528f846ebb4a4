"""The standard `ssl` module's contexts and sockets as ssa's, for programs that know nothing of ssa.

After `inject` the name `ssl.SSLContext` means the class here, and so does every function that makes a context, and
every module that has imported the class by its name. Its `wrap_socket` gives a `TLSSocket` with the methods that
`ssl.SSLSocket` has. So the policy is the administrator's, and what a program says is taken in one of four ways:

    it narrows, or adds   passed on: load_verify_locations, load_cert_chain, versions, suites, ALPN
    it holds anyway       nothing to do: OP_NO_SSLv3, check_hostname = True
    it loosens            POLICY_DENIED, at the line that says it: CERT_NONE, check_hostname = False
    no counterpart        NO_COUNTERPART, at that line too: wrap_bio, callbacks, keylog_filename

An error is of ssa's class and of ssl's, whichever a program looks out for. Contexts that were made before are as they
were: the injection belongs at the start of a program.
"""

# ruff: noqa: SLF001 - to stand in for `ssl` is to know what it is made of

from __future__ import annotations

import errno
import os
import re
import ssl
import sys
import time
import types
import warnings

from ssa import client, errors, wire
from ssa.endpoint import FRESH, LIVE, PLAIN
from ssa.options import (
    IPPROTO_TLS,
    TLS_CHOSEN_CIPHER,
    TLS_PEER_CERTIFICATE_CHAIN,
    TLS_RESUMED_SESSION,
    TLS_VERSION_CONN,
)
from ssa.options import TLS_ALPN as _ALPN
from ssa.settings import File, Settings
from ssa.suites import BY_OPENSSL_NAME, SUITES, TLSVersion
from ssa.tlssocket import TLSSocket
from ssa.values import der_certificates

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from typing import Any, NoReturn

_Context, _Socket = ssl.SSLContext, ssl.SSLSocket
_create_stdlib_context: Any = ssl._create_stdlib_context  # type: ignore[attr-defined]
_C_Context: Any = _Context.__base__  # what OpenSSL's is wrapped in


# --- errors of both kinds ---------------------------------------------------------------------------------------------


class SSLError(errors.SSAError, ssl.SSLError):
    """An `ssa.SSAError` that is an `ssl.SSLError` too; so are the classes below, each of its own."""

    library = "SSA"

    def __reduce__(self) -> tuple[Any, ...]:
        return (_error, (self.reason, self.detail, self.alert))


class HandshakeError(SSLError, errors.HandshakeError):
    """The handshake did not complete."""


class PolicyError(SSLError, errors.PolicyError):
    """The administrator's policy does not allow what was asked."""


class CertificateError(SSLError, errors.CertificateError, ssl.SSLCertVerificationError):
    """The peer's certificate was refused."""

    def __init__(self, reason: str, detail: str = "", *, alert: str | None = None) -> None:
        super().__init__(reason, detail, alert=alert)
        self.verify_code = _VERIFY_CODES.get(reason, 1)
        self.verify_message = self.strerror or ""


class StreamCut(ssl.SSLEOFError, ConnectionAbortedError):
    """The stream ended without close_notify: what came may not be all. `suppress_ragged_eofs` does not hide it."""


class WantRead(ssl.SSLWantReadError, BlockingIOError):
    """Nothing is there to read."""


class WantWrite(ssl.SSLWantWriteError, BlockingIOError):
    """There is no room to write, or the handshake is under way: the descriptor is writable when it is done."""


# A timeout and a reset are TimeoutError and ConnectionResetError in `ssl` too, and no SSLError.
_TWINS: dict[type[OSError], type[SSLError]] = {
    errors.SSAError: SSLError,
    errors.HandshakeError: HandshakeError,
    errors.PolicyError: PolicyError,
    errors.CertificateError: CertificateError,
}
_VERIFY_CODES = {  # X509_V_ERR_* of OpenSSL's x509_vfy.h
    "UNKNOWN_CA": 20,
    "BAD_SIGNATURE": 7,
    "CERTIFICATE_NOT_YET_VALID": 9,
    "CERTIFICATE_EXPIRED": 10,
    "SELF_SIGNED_CERTIFICATE": 18,
    "NOT_A_CA": 79,
    "PATH_LENGTH": 25,
    "WRONG_PURPOSE": 26,
    "NAME_CONSTRAINT": 47,
    "HOSTNAME_MISMATCH": 62,
    "WEAK_KEY": 66,
}
_OF_TLS = (errno.EPROTO, errno.EBADMSG, errno.EKEYEXPIRED)  # alerts, forged records, keys


def _error(reason: str, detail: str = "", alert: str | None = None) -> OSError:
    return _as_ssl(errors.error(reason, detail, alert))


def _as_ssl(exc: OSError, want: type[ssl.SSLError] | None = None) -> OSError:
    """The same error as programs that know `ssl` expect it; `want` is what would block."""
    if isinstance(exc, ssl.SSLError):
        return exc
    if isinstance(exc, errors.SSAError):
        twin = _TWINS.get(type(exc))
        return exc if twin is None else twin(exc.reason, exc.detail, alert=exc.alert)
    if want is not None and isinstance(exc, BlockingIOError):
        number = ssl.SSL_ERROR_WANT_READ if issubclass(want, ssl.SSLWantReadError) else ssl.SSL_ERROR_WANT_WRITE
        return want(number, exc.strerror)
    if exc.errno == errno.ECONNABORTED:
        return StreamCut(ssl.SSL_ERROR_EOF, exc.strerror)
    if exc.errno in _OF_TLS:
        return ssl.SSLError(exc.errno, exc.strerror)
    return exc


def _denied(words: str) -> NoReturn:
    raise _error("POLICY_DENIED", words)


class _Absent:
    """A method that has no counterpart: it says so when it is called."""

    def __init__(self, words: str) -> None:
        self._words = words

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: object, owner: type) -> Callable[..., NoReturn]:
        def refuse(*_args: object, **_kwargs: object) -> NoReturn:
            raise _error("NO_COUNTERPART", f"{self._name}: {self._words}")

        return refuse


class _Fixed(_Absent):
    """A setting that has no counterpart: it can be set to what it is, and to nothing else."""

    def __init__(self, value: object, words: str) -> None:
        super().__init__(words)
        self._value = value

    def __get__(self, instance: object, owner: type) -> Any:
        return self._value

    def __set__(self, instance: object, value: object) -> None:
        if value != self._value and (value or self._value):
            raise _error("NO_COUNTERPART", f"{self._name} = {value!r}: {self._words}")


# --- contexts ---------------------------------------------------------------------------------------------------------


class _Older:
    """What contexts made before the injection need: `ssl.SSLContext` finds these by its name, which is ours then."""

    options = _C_Context.options
    minimum_version = _C_Context.minimum_version
    maximum_version = _C_Context.maximum_version
    verify_flags = _C_Context.verify_flags
    verify_mode = _C_Context.verify_mode
    _msg_callback = _C_Context._msg_callback


class SSLContext(_Older):
    """`ssl.SSLContext`, whose settings can only narrow the administrator's policy."""

    sslsocket_class: type[SSLSocket]
    sslobject_class = ssl.SSLObject

    wrap_bio = _Absent("TLS is on a socket, in the kernel; asyncio: pass `sock=` instead of `ssl=`")
    set_npn_protocols = _Absent("NPN is no more, ALPN is")
    set_ecdh_curve = _Absent("the policy says which groups are used")
    load_dh_params = _Absent("the policy says which groups are used")
    session_stats = _Absent("sessions are kept by ssad, for all programs")
    get_ca_certs = _Absent("what is trusted is in /ssa/policy/trust_store")
    cert_store_stats = _Absent("what is trusted is in /ssa/policy/trust_store")

    post_handshake_auth = _Fixed(None, "a client's certificate is asked for in the handshake, or not at all")
    keylog_filename = _Fixed(None, "the keys are the kernel's")
    sni_callback = _Fixed(None, "a certificate is chosen by its names, here and in /ssa/credentials")
    num_tickets = _Fixed(2, "ssad says how many there are")
    hostname_checks_common_name = _Fixed(False, "a certificate's names are in its subjectAltName")
    _msg_callback = _Fixed(None, "the handshake is ssad's")

    def __new__(cls, protocol: int | None = None, *_args: Any, **_kwargs: Any) -> SSLContext:  # noqa: PYI034
        """As of `ssl.SSLContext`."""
        if protocol is None:
            warnings.warn("ssl.SSLContext() without protocol argument is deprecated.", DeprecationWarning, stacklevel=2)
            protocol = ssl.PROTOCOL_TLS
        self = super().__new__(cls)
        self._begin(protocol)
        return self

    def _begin(self, protocol: int) -> None:
        self._protocol: Any = ssl._SSLMethod(protocol)
        self._peer_auth = False
        self._default_trust = False
        self._files: dict[str, tuple[File, ...]] = {"certificates": (), "keys": (), "trusted": ()}
        self._alpn: tuple[str, ...] | None = None
        self._disabled: tuple[str, ...] = ()
        self._ciphers = _Context(ssl.PROTOCOL_TLS_CLIENT)  # knows what OpenSSL's words for suites mean
        self._options = self._ciphers.options
        self._verify_flags = self._ciphers.verify_flags
        self._minimum: ssl.TLSVersion
        self._maximum: ssl.TLSVersion
        self._minimum, self._maximum = _PROTOCOLS.get(protocol, _ANY_VERSION)
        self._version_max()  # there are protocols that are no more

    @property
    def protocol(self) -> Any:
        """As of `ssl.SSLContext`."""
        return self._protocol

    # Who is verified.

    @property
    def verify_mode(self) -> ssl.VerifyMode:
        """A server's: whether clients have to present a certificate. A client's is always CERT_REQUIRED."""
        if self._protocol == ssl.PROTOCOL_TLS_SERVER and not self._peer_auth:
            return ssl.CERT_NONE
        return ssl.CERT_REQUIRED

    @verify_mode.setter
    def verify_mode(self, value: int) -> None:
        mode = ssl.VerifyMode(value)
        if self._protocol != ssl.PROTOCOL_TLS_SERVER and mode == ssl.CERT_NONE:
            _denied("verify_mode = CERT_NONE: servers are verified, whoever asks")
        if self._protocol != ssl.PROTOCOL_TLS_CLIENT and mode == ssl.CERT_OPTIONAL:
            raise _error("NO_COUNTERPART", "verify_mode = CERT_OPTIONAL: clients have to present one, or are not asked")
        self._peer_auth = mode != ssl.CERT_NONE

    @property
    def check_hostname(self) -> bool:
        """True for a client, always."""
        return bool(self._protocol != ssl.PROTOCOL_TLS_SERVER)

    @check_hostname.setter
    def check_hostname(self, value: bool) -> None:
        if self.check_hostname and not value:
            _denied("check_hostname = False: a server's certificate has to be for its name")
        if value and not self.check_hostname:
            raise _error("NO_COUNTERPART", "check_hostname = True: a server's clients have no host name")

    @property
    def verify_flags(self) -> ssl.VerifyFlags:
        """How OpenSSL would build paths: here the policy's validators do. Revocation lists have no counterpart."""
        return self._verify_flags

    @verify_flags.setter
    def verify_flags(self, value: int) -> None:
        flags = ssl.VerifyFlags(value)
        if flags & ssl.VERIFY_ALLOW_PROXY_CERTS:
            _denied("verify_flags: VERIFY_ALLOW_PROXY_CERTS")
        if flags & ssl.VERIFY_CRL_CHECK_CHAIN:
            raise _error("NO_COUNTERPART", "verify_flags: no revocation list is looked at")
        self._verify_flags = flags

    def load_verify_locations(
        self,
        cafile: str | bytes | os.PathLike[str] | None = None,
        capath: str | bytes | os.PathLike[str] | None = None,
        cadata: str | bytes | None = None,
    ) -> None:
        """As of `ssl.SSLContext`: the peer has to satisfy one of these, and the policy.

        The system's own authorities, and certifi's, which stand for them, are the administrator's to choose: they
        narrow nothing, and nor does what is added to them.
        """
        if cafile is None and capath is None and not cadata:
            raise TypeError("cafile, capath and cadata cannot be all omitted")
        if _stand_for_the_system(cafile, capath):
            self._default_trust = True
            return
        found = [] if cafile is None else [File.of(cafile)]
        pem = (b"" if capath is None else _hashed_certificates(capath)) + _pem(cadata)
        if pem:
            found.append(File(pem))
        self._have(trusted=found)

    def load_default_certs(self, purpose: ssl.Purpose = ssl.Purpose.SERVER_AUTH) -> None:
        """As of `ssl.SSLContext`: SSL_CERT_FILE and SSL_CERT_DIR narrow, if they are set."""
        if not isinstance(purpose, ssl._ASN1Object):
            raise TypeError(purpose)
        file, directory = (os.environ.get(name) or None for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"))
        if file or directory:
            self.load_verify_locations(file, directory)
        else:
            self._default_trust = True

    def set_default_verify_paths(self) -> None:
        """As `load_default_certs`."""
        self.load_default_certs()

    # Who we are.

    def load_cert_chain(
        self,
        certfile: str | bytes | os.PathLike[str],
        keyfile: str | bytes | os.PathLike[str] | None = None,
        password: object = None,
    ) -> None:
        """As of `ssl.SSLContext`. The key is read by ssad alone; one with a password has no counterpart."""
        if password is not None:
            raise _error("NO_COUNTERPART", "load_cert_chain: ssad reads the key, and it knows no password")
        if keyfile is None:
            self._have(certificates=[_certificates_alone(certfile)], keys=[File.of(certfile)])
        else:
            self._have(certificates=[File.of(certfile)], keys=[File.of(keyfile)])

    def _have(self, **files: list[File]) -> None:
        """Take files on, after ssad has looked at them."""
        more: dict[str, tuple[File, ...]] = {
            **self._files,
            **{field: (*self._files[field], *added) for field, added in files.items()},
        }
        settings = Settings().having(**{field: value for field, value in more.items() if value})
        try:
            with client.Daemon(time.monotonic() + _LOCAL) as daemon:
                daemon.ask(wire.Check(**settings.request()), files=settings.descriptors())
        except OSError as exc:
            raise _as_ssl(exc) from None
        self._files = more

    # What is spoken.

    @property
    def minimum_version(self) -> ssl.TLSVersion:
        """As of `ssl.SSLContext`; the policy may say more."""
        return self._minimum

    @minimum_version.setter
    def minimum_version(self, value: int) -> None:
        self._minimum = ssl.TLSVersion(value)

    @property
    def maximum_version(self) -> ssl.TLSVersion:
        """As of `ssl.SSLContext`."""
        return self._maximum

    @maximum_version.setter
    def maximum_version(self, value: int) -> None:
        before, self._maximum = self._maximum, ssl.TLSVersion(value)
        try:
            self._version_max()
        except OSError:
            self._maximum = before
            raise

    @property
    def options(self) -> ssl.Options:
        """As of `ssl.SSLContext`. What is not about a version or tickets holds anyway, or is OpenSSL's own affair."""
        return self._options

    @options.setter
    def options(self, value: int) -> None:
        self._options = ssl.Options(value)

    def set_ciphers(self, ciphers: str) -> None:
        """As of `ssl.SSLContext`: of TLS 1.2's suites, those that are not in the list are disabled."""
        self._ciphers.set_ciphers(ciphers)
        allowed = {cipher["name"] for cipher in self._ciphers.get_ciphers()}
        of_12 = [suite for suite in BY_OPENSSL_NAME.values() if suite.version is TLSVersion.TLSv1_2]
        self._disabled = tuple(suite.name for suite in of_12 if suite.openssl not in allowed)

    def get_ciphers(self) -> list[Any]:
        """As of `ssl.SSLContext`: the suites that can be used, where the policy says nothing else."""
        disabled = {SUITES[name].openssl for name in self._disabled}
        return [
            cipher
            for cipher in self._ciphers.get_ciphers()
            if cipher["name"] in BY_OPENSSL_NAME and cipher["name"] not in disabled
        ]

    def set_alpn_protocols(self, alpn_protocols: list[str]) -> None:
        """As of `ssl.SSLContext`."""
        if any(not name.isascii() or not 1 <= len(name) <= 255 for name in alpn_protocols):
            raise ssl.SSLError("ALPN protocols must be 1 to 255 in length")
        self._alpn = tuple(alpn_protocols) or None

    def set_servername_callback(self, server_name_callback: object) -> None:
        """As `sni_callback`."""
        self.sni_callback = server_name_callback

    def _version_min(self) -> int | None:
        only_13 = self._minimum == ssl.TLSVersion.TLSv1_3 or self._options & ssl.OP_NO_TLSv1_2
        return TLSVersion.TLSv1_3 if only_13 or self._minimum == ssl.TLSVersion.MAXIMUM_SUPPORTED else None

    def _version_max(self) -> int | None:
        if self._maximum not in (ssl.TLSVersion.MAXIMUM_SUPPORTED, *_VERSIONS):
            _denied(f"maximum_version = {self._maximum.name}: TLS begins with 1.2")
        only_12 = self._maximum == ssl.TLSVersion.TLSv1_2 or self._options & ssl.OP_NO_TLSv1_3
        return TLSVersion.TLSv1_2 if only_12 else None

    def settings(self, *, server_side: bool, server_hostname: str | None) -> Settings:
        """What a socket of this context is told."""
        files = {field: value for field, value in self._files.items() if value}
        if self._default_trust:
            files.pop("trusted", None)
        return Settings().having(
            **files,
            hostname=server_hostname,
            alpn=self._alpn,
            disabled=self._disabled or None,
            version_min=self._version_min(),
            version_max=self._version_max(),
            session_ttl=0 if self._options & ssl.OP_NO_TICKET else None,
            peer_auth=1 if server_side and self._peer_auth else None,
        )

    def wrap_socket(  # noqa: PLR0913, PLR0917 - as ssl has it
        self,
        sock: socket.socket,
        server_side: bool = False,  # noqa: FBT001, FBT002 - the same
        do_handshake_on_connect: bool = True,  # noqa: FBT001, FBT002
        suppress_ragged_eofs: bool = True,  # noqa: FBT001, FBT002
        server_hostname: str | bytes | None = None,
        session: object = None,
    ) -> SSLSocket:
        """As of `ssl.SSLContext`; the socket is an `SSLSocket` of this module.

        `suppress_ragged_eofs` has no effect: a stream that was cut never looks like one that has ended.
        """
        del suppress_ragged_eofs
        if session is not None:
            raise _error("NO_COUNTERPART", "session: sessions are kept by ssad, for all programs")
        name = _checked_name(server_hostname, server_side=server_side)
        return self.sslsocket_class.wrap(self, sock, name, server_side=server_side, handshake=do_handshake_on_connect)


_LOCAL = 5  # seconds for what the daemon does at once, and waits for nobody
_VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
_ANY_VERSION = (ssl.TLSVersion.MINIMUM_SUPPORTED, ssl.TLSVersion.MAXIMUM_SUPPORTED)
_PROTOCOLS = {getattr(ssl, f"PROTOCOL_{name}"): (ssl.TLSVersion[name],) * 2 for name in ("TLSv1", "TLSv1_1", "TLSv1_2")}


def _checked_name(name: str | bytes | None, *, server_side: bool) -> str | None:
    """The arguments as `ssl` checks them."""
    if server_side:
        if name is not None:
            raise ValueError("server_hostname can only be specified in client mode")
        return None
    if name is None:
        raise ValueError("check_hostname requires server_hostname")
    text = name.decode("ascii") if isinstance(name, bytes) else name
    if not text or text.startswith("."):
        raise ValueError("server_hostname cannot be an empty string or start with a leading dot.")
    return text


def _real(path: str | bytes | os.PathLike[str]) -> str:
    return os.path.realpath(os.fsdecode(path))


def _stand_for_the_system(*locations: str | bytes | os.PathLike[str] | None) -> bool:
    """Whether one of the files and directories is what stands for all that the system trusts."""
    paths = ssl.get_default_verify_paths()
    known = {paths.openssl_cafile, paths.openssl_capath, "/etc/ssl/certs/ca-certificates.crt"}
    if certifi := sys.modules.get("certifi"):
        known.add(certifi.where())
    return not {_real(path) for path in known}.isdisjoint(_real(path) for path in locations if path is not None)


def _certificates_alone(path: str | bytes | os.PathLike[str]) -> File:
    """The certificates of a file that has their key too: what ssad takes for certificates is shown to everyone."""
    with open(path, "rb") as file:  # noqa: PTH123 - of bytes too
        blocks = re.findall(rb"-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----\n?", file.read())
    return File(b"".join(blocks)) if blocks else File.of(path)


def _hashed_certificates(directory: str | bytes | os.PathLike[str]) -> bytes:
    """The certificates of a directory as `openssl rehash` makes them."""
    found = []
    with os.scandir(os.fsdecode(directory)) as entries:
        for entry in entries:
            if re.fullmatch(r"[0-9a-f]{8}\.\d+", entry.name):
                with open(entry.path, "rb") as file:  # noqa: PTH123 - as entries have it
                    found.append(file.read())
    return b"\n".join(found)


def _pem(cadata: str | bytes | None) -> bytes:
    if isinstance(cadata, str):
        return cadata.encode("ascii")
    return b"".join(ssl.DER_cert_to_PEM_cert(der).encode() for der in der_certificates(bytes(cadata or b"")))


# --- sockets ----------------------------------------------------------------------------------------------------------


class SSLSocket(TLSSocket):
    """A `TLSSocket` with the methods of `ssl.SSLSocket`."""

    __slots__ = ("_context", "_server_hostname", "_server_side")

    _context: SSLContext
    _server_hostname: str | None
    _server_side: bool

    get_channel_binding = _Absent("what it would be bound to is known to ssad only")
    verify_client_post_handshake = _Absent("a client's certificate is asked for in the handshake, or not at all")
    shared_ciphers = _Absent("what the client offered is known to ssad only")

    def __init__(self, *_args: object, **_kwargs: object) -> None:
        raise TypeError("SSLSocket does not have a public constructor: SSLContext.wrap_socket() makes them")

    @classmethod
    def wrap(
        cls,
        context: SSLContext,
        sock: socket.socket,
        server_hostname: str | None,
        *,
        server_side: bool,
        handshake: bool,
    ) -> SSLSocket:
        """A socket of a context, in the place of a plain one."""
        settings = context.settings(server_side=server_side, server_hostname=server_hostname)
        timeout, connected = sock.gettimeout(), _is_connected(sock)
        if connected and handshake and timeout == 0:
            raise ValueError("do_handshake_on_connect should not be specified for non-blocking sockets")
        listening = bool(sock.getsockopt(_SOL_SOCKET, _SO_ACCEPTCONN))
        self = cls.adopt(sock.detach(), sock.family, settings, PLAIN if connected else FRESH)
        self.settimeout(timeout)
        self._context, self._server_hostname, self._server_side = context, server_hostname, server_side
        try:
            if listening:
                self.listen()
            elif connected and handshake:
                self.do_handshake()
        except BaseException:
            self.close()
            raise
        return self

    def _like(self, other: SSLSocket) -> SSLSocket:
        self._context, self._server_hostname = other._context, other._server_hostname
        self._server_side = other._server_side
        return self

    context = property(lambda self: self._context, doc="As of `ssl.SSLSocket`.")
    server_side = property(lambda self: self._server_side, doc="As of `ssl.SSLSocket`.")
    server_hostname = property(lambda self: self._server_hostname, doc="As of `ssl.SSLSocket`.")
    session = _Fixed(None, "sessions are kept by ssad, for all programs")

    def _accepted(self, *args: Any, **kwargs: Any) -> SSLSocket:
        return super()._accepted(*args, **kwargs)._like(self)

    def dup(self) -> SSLSocket:
        """As of `ssa.TLSSocket`."""
        return super().dup()._like(self)

    def _check_live(self) -> None:
        if self._phase == PLAIN:
            self.do_handshake()  # reading and writing make the handshake where none was made before
        super()._check_live()

    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002 - as ssl has it
        """As of `ssl.SSLSocket`; nothing where it is done. On a non-blocking socket: SSLWantWriteError until it is."""
        timeout = self.gettimeout()
        if timeout == 0 and block:
            self.settimeout(None)
        try:
            if self._phase != LIVE:
                self.upgrade(server_side=self._server_side)
        except OSError as exc:
            raise _as_ssl(exc, WantWrite) from None
        finally:
            if timeout == 0 and block:
                self.settimeout(timeout)

    def read(self, len: int = 1024, buffer: Any = None) -> Any:  # noqa: A002 - as ssl has it
        """As of `ssl.SSLSocket`."""
        return self.recv(len) if buffer is None else self.recv_into(buffer, len)

    def write(self, data: Any) -> int:
        """As of `ssl.SSLSocket`."""
        return self.send(data)

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """As of `ssa.TLSSocket`."""
        return _recv(self, buflen, flags)  # type: ignore[no-any-return]

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        """As of `ssa.TLSSocket`."""
        return _recv_into(self, buffer, nbytes or 0, flags)  # type: ignore[no-any-return]

    def pending(self) -> int:
        """0: nothing that was decrypted waits outside the kernel, and poll(2) tells the truth."""
        return 0

    def unwrap(self) -> SSLSocket:
        """End the stream, and wait for the peer's end. What comes back can only be closed.

        The kernel has no way back to plain text. Raises OSError where data comes instead of the end.
        """
        self.shutdown(_SHUT_WR)
        if self.recv(1):
            raise ssl.SSLError(errno.EPROTO, "application data after close notify")
        return self

    def getpeercert(self, binary_form: bool = False) -> dict[str, Any] | bytes | None:  # noqa: FBT001, FBT002
        """As of `ssl.SSLSocket`. What is shown was verified."""
        pem = self.getsockopt(IPPROTO_TLS, TLS_PEER_CERTIFICATE_CHAIN).partition(_END)
        if not pem[0]:
            return None
        if binary_form:
            return ssl.PEM_cert_to_DER_cert((pem[0] + pem[1]).decode())
        file = File(pem[0] + pem[1] + b"\n")
        decoded: dict[str, Any] = ssl._ssl._test_decode_cert(f"/proc/self/fd/{file.fd}")  # type: ignore[attr-defined]
        return decoded

    def version(self) -> str | None:
        """As of `ssl.SSLSocket`."""
        if self._phase != LIVE:
            return None
        return str(self.getsockopt(IPPROTO_TLS, TLS_VERSION_CONN, 16).decode())

    def cipher(self) -> tuple[str, str, int] | None:
        """As of `ssl.SSLSocket`."""
        if self._phase != LIVE:
            return None
        suite = SUITES[self.getsockopt(IPPROTO_TLS, TLS_CHOSEN_CIPHER).decode()]
        return suite.openssl, suite.version.label, suite.aead.key * 8

    def selected_alpn_protocol(self) -> str | None:
        """As of `ssl.SSLSocket`."""
        if self._phase != LIVE:
            return None
        return self.getsockopt(IPPROTO_TLS, _ALPN).decode() or None

    def selected_npn_protocol(self) -> None:
        """As of `ssl.SSLSocket`: NPN is no more."""

    def compression(self) -> None:
        """As of `ssl.SSLSocket`: there is none."""

    @property
    def session_reused(self) -> bool | None:
        """As of `ssl.SSLSocket`."""
        return bool(self.getsockopt(IPPROTO_TLS, TLS_RESUMED_SESSION)) if self._phase == LIVE else None


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
            raise _as_ssl(exc, want) from None

    method.__name__ = method.__qualname__ = name
    method.__doc__ = inherited.__doc__
    return method


_recv, _recv_into = _translating("recv", WantRead), _translating("recv_into", WantRead)
for _name, _want in {
    "recvmsg_into": WantRead,
    "send": WantWrite,
    "sendall": WantWrite,
    "sendmsg": WantWrite,
    "sendfile": WantWrite,
    "shutdown": WantWrite,
    "connect": None,  # one that is under way says so in the words of connect(2)
    "listen": None,
}.items():
    setattr(SSLSocket, _name, _translating(_name, _want))

_SOL_SOCKET, _SO_ACCEPTCONN, _SHUT_WR = 1, 30, 1
_END = b"-----END CERTIFICATE-----"
SSLContext.sslsocket_class = SSLSocket


# --- injection --------------------------------------------------------------------------------------------------------


def _stdlib_context(protocol: int | None = None, *, cert_reqs: int | None = None, **options: Any) -> Any:
    """What ftplib, imaplib, poplib and smtplib use where they are given no context: verified by nobody, until now."""
    purpose = options.get("purpose", ssl.Purpose.SERVER_AUTH)
    if cert_reqs is None and purpose == ssl.Purpose.SERVER_AUTH:
        cert_reqs, options["check_hostname"] = ssl.CERT_REQUIRED, True
    return _create_stdlib_context(protocol, cert_reqs=cert_reqs, **options)


_PAIRS: list[tuple[Any, Any]] = [
    (_Context, SSLContext),
    (_Socket, SSLSocket),
    (_create_stdlib_context, _stdlib_context),
]


def inject() -> None:
    """Put these classes in the place of the `ssl` module's, wherever a module has a name for them."""
    _exchange({id(theirs): ours for theirs, ours in _PAIRS})
    ssl._create_unverified_context = _create_stdlib_context  # who asks for it by this name is told


def extract() -> None:
    """Take `inject` back. What it has made meanwhile goes on."""
    _exchange({id(ours): theirs for theirs, ours in _PAIRS})


def _exchange(others: dict[int, Any]) -> None:
    for name, module in list(sys.modules.items()):
        if isinstance(module, types.ModuleType) and name != __name__:
            for attribute, value in list(vars(module).items()):
                if id(value) in others:
                    setattr(module, attribute, others[id(value)])
