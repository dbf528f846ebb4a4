"""`ssl.SSLContext`, whose settings can only narrow the administrator's policy."""

# ruff: noqa: SLF001 - to stand in for `ssl` is to know what it is made of

from __future__ import annotations

import os
import ssl
import warnings

from ssa.errors import SSAError
from ssa.inject import bio, callers, locations, wrapping
from ssa.inject.base import Base
from ssa.inject.failures import Absent, Fixed, as_ssl, denied, error, log_once
from ssa.inject.meaning import REFUSED, flags_of
from ssa.inject.sslsocket import SSLSocket
from ssa.inject.standard import Context
from ssa.library import connection, deadlines
from ssa.library.option_values import File, Settings
from ssa.protocol import wire
from ssa.protocol.options import MAX_ANCHORS
from ssa.suites import BY_OPENSSL_NAME, SUITES, TLSVersion
from ssa.tls import is_protocol_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Any

    from ssa.inject.parameters import Parameters

_OPENSSL_S = "this is OpenSSL in the process, in ssa's place; gevent: leave ssl as it is, monkey.patch_all(ssl=False)"
_NO_COMMON_NAME = 0x20  # X509_CHECK_FLAG_NEVER_CHECK_SUBJECT
_SESSIONS = "sessions are kept by ssad, for all programs"
_ASKED_OR_NOT = "clients have to present a certificate, or are not asked"


class SSLContext(Base):
    """`ssl.SSLContext`, whose settings can only narrow the administrator's policy."""

    sslsocket_class: type[SSLSocket] = SSLSocket
    sslobject_class = ssl.SSLObject

    _wrap_bio = Absent(_OPENSSL_S)
    _wrap_socket = Absent(_OPENSSL_S)
    set_npn_protocols = Absent("NPN is no more, ALPN is")
    _set_alpn_protocols = Absent("call set_alpn_protocols")
    set_ecdh_curve = Absent("the policy says which groups are used")
    load_dh_params = Absent("the policy says which groups are used")
    set_psk_client_callback = Absent("peers prove who they are by certificates")
    set_psk_server_callback = Absent("peers prove who they are by certificates")
    session_stats = Absent("sessions are kept by ssad, for all programs")
    get_ca_certs = Absent("what is trusted is in /ssa/policy/trust_store")
    cert_store_stats = Absent("what is trusted is in /ssa/policy/trust_store")

    sni_callback = Fixed(None, "a certificate is chosen by its names, here and in /ssa/credentials")
    num_tickets = Fixed(2, "ssad says how many there are")
    hostname_checks_common_name = Fixed(False, "a certificate's names are in its subjectAltName")
    _host_flags = Fixed(_NO_COMMON_NAME, "a certificate's names are in its subjectAltName")
    _msg_callback = Fixed(None, "the handshake is ssad's")

    def __new__(cls, protocol: int | None = None, *_args: Any, **_kwargs: Any) -> SSLContext:  # noqa: PYI034 - as in ssl
        """Does what `ssl.SSLContext` documents."""
        if protocol is None:
            warnings.warn("ssl.SSLContext() without protocol argument is deprecated.", DeprecationWarning, stacklevel=2)
            protocol = ssl.PROTOCOL_TLS
        self = super().__new__(cls)
        self._begin(protocol)
        return self

    def _begin(self, protocol: int) -> None:
        self._protocol: Any = ssl._SSLMethod(protocol)
        self._ciphers: ssl.SSLContext = Context(ssl.PROTOCOL_TLS_CLIENT)  # knows what OpenSSL's words for suites mean
        self._options: ssl.Options = self._ciphers.options
        self._verify_flags: ssl.VerifyFlags = self._ciphers.verify_flags
        self._check_hostname = self._protocol == ssl.PROTOCOL_TLS_CLIENT
        self._verify_mode = ssl.CERT_REQUIRED if self._check_hostname else ssl.CERT_NONE
        self._post_handshake_auth = False
        self._anchors = locations.Anchors()
        self._pairs: dict[str, tuple[File, ...]] = {"certificates": (), "keys": ()}
        self._alpn: tuple[str, ...] | None = None
        self._disabled: tuple[str, ...] = ()
        self._minimum: ssl.TLSVersion
        self._maximum: ssl.TLSVersion
        self._minimum, self._maximum = _PROTOCOLS.get(protocol, _ANY_VERSION)
        self._check_maximum()  # there are protocols that are no more

    @property
    def protocol(self) -> Any:
        """Does what `ssl.SSLContext` documents."""
        return self._protocol

    @property
    def security_level(self) -> int:
        """OpenSSL's level in this process. It has no effect: the policy says which keys are strong enough."""
        return self._ciphers.security_level

    # Who is verified. What a program says is kept, and judged where a socket is wrapped.

    @property
    def verify_mode(self) -> ssl.VerifyMode:
        """As it was set. A client's server is verified whatever it is; a server's clients where it is CERT_REQUIRED."""
        return self._verify_mode

    @verify_mode.setter
    def verify_mode(self, value: int) -> None:
        mode = ssl.VerifyMode(value)
        if mode == ssl.CERT_NONE and self._check_hostname:
            raise ValueError("Cannot set verify_mode to CERT_NONE when check_hostname is enabled.")
        if mode == ssl.CERT_OPTIONAL and self._protocol == ssl.PROTOCOL_TLS_SERVER:
            raise error("NO_COUNTERPART", f"verify_mode = CERT_OPTIONAL: {_ASKED_OR_NOT}")
        self._verify_mode = mode

    @property
    def check_hostname(self) -> bool:
        """As it was set. A client's server is verified to be `server_hostname`, whatever it is."""
        return self._check_hostname

    @check_hostname.setter
    def check_hostname(self, value: bool) -> None:
        if value and self._protocol == ssl.PROTOCOL_TLS_SERVER:
            raise error("NO_COUNTERPART", "check_hostname = True: a server's clients have no host name")
        self._check_hostname = bool(value)
        if value and self._verify_mode == ssl.CERT_NONE:
            self._verify_mode = ssl.CERT_REQUIRED

    @property
    def verify_flags(self) -> ssl.VerifyFlags:
        """Does what `ssl.SSLContext` documents. `ssa.inject.meaning` says what each flag does."""
        return self._verify_flags

    @verify_flags.setter
    def verify_flags(self, value: int) -> None:
        _refuse_flags("verify_flags", value)
        self._verify_flags = ssl.VerifyFlags(value)

    @property
    def post_handshake_auth(self) -> bool:
        """As it was set. It has no effect: a client's certificate is asked for in the handshake, or not at all."""
        return self._post_handshake_auth

    @post_handshake_auth.setter
    def post_handshake_auth(self, value: bool) -> None:
        self._post_handshake_auth = bool(value)

    @property
    def keylog_filename(self) -> None:
        """None: the keys are the kernel's, and ssad writes them to no file."""

    @keylog_filename.setter
    def keylog_filename(self, value: str | None) -> None:
        if value is None:
            return
        asked = os.environ.get("SSLKEYLOGFILE")
        if asked is None or os.fspath(value) not in (asked, os.path.expandvars(asked)):
            raise error("NO_COUNTERPART", f"keylog_filename = {value!r}: the keys are the kernel's")
        log_once("warning", f"SSLKEYLOGFILE={asked} is ignored: the keys are the kernel's, and are not logged")

    def load_verify_locations(
        self,
        cafile: str | bytes | os.PathLike[str] | None = None,
        capath: str | bytes | os.PathLike[str] | None = None,
        cadata: str | bytes | None = None,
    ) -> None:
        """Does what `ssl.SSLContext` documents: the peer has to satisfy one of these authorities, and the policy.

        The system's own authorities, and certifi's, which stand for them, are the administrator's to choose: they
        narrow nothing, and nor does what is added to them. `capath` is read now, not in the handshake.
        """
        if cafile is None and capath is None and cadata is None:
            raise TypeError("cafile, capath and cadata cannot be all omitted")
        self._anchors.named = True  # and are so when this fails
        found = [] if cadata is None else locations.of_data(cadata)
        if cafile is not None:
            found += locations.of_file(cafile)
        system = locations.stand_for_the_system(cafile, capath)
        if found and not system:
            self._check(Settings().having(trusted=(locations.joined(found),)))
        if not system and capath is not None:
            found += locations.of_directories(capath)
        self._anchors.system |= system
        self._anchors.add(found)

    def load_default_certs(self, purpose: ssl.Purpose = ssl.Purpose.SERVER_AUTH) -> None:
        """Does what `ssl.SSLContext` documents: SSL_CERT_FILE and SSL_CERT_DIR narrow, if they are set."""
        if not isinstance(purpose, ssl._ASN1Object):
            raise TypeError(purpose)
        locations.of_environment(self._anchors)

    def set_default_verify_paths(self) -> None:
        """Load the default certificates: it does what `load_default_certs` does."""
        self.load_default_certs()

    # Who we are.

    def load_cert_chain(
        self,
        certfile: str | bytes | os.PathLike[str],
        keyfile: str | bytes | os.PathLike[str] | None = None,
        password: object = None,
    ) -> None:
        """Does what `ssl.SSLContext` documents. The key is used by ssad alone; an encrypted one has no counterpart.

        Programs call it again when a certificate has been renewed: of several for one name and kind of key the last
        counts.
        """
        key = certfile if keyfile is None else keyfile
        if password is not None and _is_encrypted(key):
            raise error("NO_COUNTERPART", "load_cert_chain: ssad reads the key, and it knows no password")
        certificates = locations.joined(locations.of_file(certfile))  # alone: ssad shows them to everyone
        more = {"certificates": certificates, "keys": File.of(key)}
        pairs = {field: (*self._pairs[field], file)[-_MAX_PAIRS:] for field, file in more.items()}
        self._check(Settings().having(**pairs))
        self._pairs = pairs

    @staticmethod
    def _check(settings: Settings) -> None:
        """Ask ssad to check files. Raises its error."""
        try:
            with connection.DaemonConnection(deadlines.local()) as daemon:
                daemon.ask(wire.Check(**settings.request()), files=settings.descriptors())
        except OSError as exc:
            raise as_ssl(exc) from None

    # What is spoken.

    @property
    def minimum_version(self) -> ssl.TLSVersion:
        """Does what `ssl.SSLContext` documents; the policy may say more."""
        return self._minimum

    @minimum_version.setter
    def minimum_version(self, value: int) -> None:
        self._minimum = ssl.TLSVersion(value)

    @property
    def maximum_version(self) -> ssl.TLSVersion:
        """Does what `ssl.SSLContext` documents."""
        return self._maximum

    @maximum_version.setter
    def maximum_version(self, value: int) -> None:
        before, self._maximum = self._maximum, ssl.TLSVersion(value)
        try:
            self._check_maximum()
        except OSError:
            self._maximum = before
            raise

    @property
    def options(self) -> ssl.Options:
        """Does what `ssl.SSLContext` documents. `ssa.inject.meaning` says what each option does."""
        return self._options

    @options.setter
    def options(self, value: int) -> None:
        _refuse_flags("options", value)
        self._options = ssl.Options(value)

    def _check_maximum(self) -> None:
        if self._maximum not in (ssl.TLSVersion.MAXIMUM_SUPPORTED, *_VERSIONS):
            denied(f"maximum_version = {self._maximum.name}: TLS begins with 1.2")

    def set_ciphers(self, ciphers: str) -> None:
        """Does what `ssl.SSLContext` documents: of TLS 1.2's suites, those that are not in the list are disabled."""
        self._ciphers.set_ciphers(ciphers)
        allowed = {cipher["name"] for cipher in self._ciphers.get_ciphers()}
        of_12 = [suite for suite in BY_OPENSSL_NAME.values() if suite.version is TLSVersion.TLSv1_2]
        self._disabled = tuple(suite.name for suite in of_12 if suite.openssl not in allowed)

    def get_ciphers(self) -> list[Any]:
        """Does what `ssl.SSLContext` documents: the suites that can be used, where the policy says nothing else."""
        disabled = {SUITES[name].openssl for name in self._disabled}
        return [
            cipher
            for cipher in self._ciphers.get_ciphers()
            if cipher["name"] in BY_OPENSSL_NAME and cipher["name"] not in disabled
        ]

    def set_alpn_protocols(self, alpn_protocols: list[str]) -> None:
        """Does what `ssl.SSLContext` documents."""
        if not all(map(is_protocol_name, alpn_protocols)):
            raise ssl.SSLError("ALPN protocols must be 1 to 255 in length")
        self._alpn = tuple(alpn_protocols) or None

    def set_servername_callback(self, server_name_callback: object) -> None:
        """Set `sni_callback`, which refuses any callback."""
        self.sni_callback = server_name_callback

    # What a connection is wrapped with.

    def parameters(
        self, *, server_side: bool, server_hostname: str | bytes | None = None, cut_is_error: bool = False
    ) -> Parameters:
        """The parameters of a connection, by the context as it is now.

        `cut_is_error` is whether the calling interface reports a stream that was cut: `ssl` does so where
        OP_IGNORE_UNEXPECTED_EOF is not set either.

        Raises `ssa.SSAError` for what the context cannot mean, ValueError and TypeError as `ssl` does.
        """
        if server_side and self._verify_mode == ssl.CERT_OPTIONAL:
            raise error("NO_COUNTERPART", f"verify_mode = CERT_OPTIONAL: {_ASKED_OR_NOT}")
        return wrapping.parameters(
            self, server_side=server_side, server_hostname=server_hostname, cut_is_error=cut_is_error
        )

    def wrap_socket(  # noqa: PLR0913, PLR0917 - as ssl has it
        self,
        sock: socket.socket,
        server_side: bool = False,  # noqa: FBT001, FBT002 - the same
        do_handshake_on_connect: bool = True,  # noqa: FBT001, FBT002 - as in ssl
        suppress_ragged_eofs: bool = True,  # noqa: FBT001, FBT002 - as in ssl
        server_hostname: str | bytes | None = None,
        session: object = None,
    ) -> SSLSocket:
        """Does what `ssl.SSLContext` documents; the socket is an `SSLSocket` of `ssa.inject`."""
        try:
            if session is not None:
                raise error("NO_COUNTERPART", f"session: {_SESSIONS}")
            if server_hostname is None and not server_side and not self._check_hostname:
                server_hostname = wrapping.address_on_this_machine(sock)
            parameters = self.parameters(
                server_side=server_side, server_hostname=server_hostname, cut_is_error=not suppress_ragged_eofs
            )
            return self.sslsocket_class.wrap(parameters, sock, handshake=do_handshake_on_connect)
        except SSAError:
            if _is_connected(sock):
                sock.close()  # as after a handshake that failed: nothing can be written to it in plain text any more
            raise

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,  # noqa: FBT001, FBT002 - the same
        server_hostname: str | bytes | None = None,
        session: object = None,
    ) -> bio.SSLObject:
        """Serve trio and anyio, whose streams have a socket, and refuse all others. See `ssa.inject.bio`.

        Raises `ssa.SSAError` NO_COUNTERPART for any other caller.
        """
        del incoming, outgoing
        callers.allow()
        if session is not None:
            raise error("NO_COUNTERPART", f"session: {_SESSIONS}")
        return bio.SSLObject(
            self.parameters(server_side=server_side, server_hostname=server_hostname, cut_is_error=True)
        )


def _is_connected(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


def _refuse_flags(owner: str, value: int) -> None:
    """Raise `ssa.SSAError` for flags that cannot be had."""
    for name, fate, why in flags_of(owner, value):
        if name == "VERIFY_ALLOW_PROXY_CERTS":
            denied(f"{owner}: {name}")
        if fate == REFUSED:
            raise error("NO_COUNTERPART", f"{owner}: {name}: {why}")


def _is_encrypted(path: str | bytes | os.PathLike[str]) -> bool:
    """True if a key's file is encrypted. Programs pass a password for files that need none, too."""
    with open(path, "rb") as file:  # noqa: PTH123 - of bytes too
        return b"ENCRYPTED" in file.read(MAX_ANCHORS)


_MAX_PAIRS = 8  # certificates with their keys
_VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
_ANY_VERSION = (ssl.TLSVersion.MINIMUM_SUPPORTED, ssl.TLSVersion.MAXIMUM_SUPPORTED)
_PROTOCOLS = {getattr(ssl, f"PROTOCOL_{name}"): (ssl.TLSVersion[name],) * 2 for name in ("TLSv1", "TLSv1_1", "TLSv1_2")}
