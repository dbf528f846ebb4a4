"""`ssl.SSLContext`, whose settings can only narrow the administrator's policy."""

# ruff: noqa: SLF001 - to stand in for `ssl` is to know what it is made of

from __future__ import annotations

import os
import ssl
import time
import warnings

from ssa import client, wire
from ssa.inject.failures import Absent, Fixed, as_ssl, denied, error
from ssa.inject.locations import certificates_alone, hashed_certificates, pem, stand_for_the_system
from ssa.settings import File, Settings
from ssa.suites import BY_OPENSSL_NAME, SUITES, TLSVersion

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Any

    from ssa.inject.sslsocket import SSLSocket

_Context = ssl.SSLContext
_C_Context: Any = _Context.__base__  # what OpenSSL's is wrapped in


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

    wrap_bio = Absent("TLS is on a socket, in the kernel; asyncio: pass `sock=` instead of `ssl=`")
    set_npn_protocols = Absent("NPN is no more, ALPN is")
    set_ecdh_curve = Absent("the policy says which groups are used")
    load_dh_params = Absent("the policy says which groups are used")
    session_stats = Absent("sessions are kept by ssad, for all programs")
    get_ca_certs = Absent("what is trusted is in /ssa/policy/trust_store")
    cert_store_stats = Absent("what is trusted is in /ssa/policy/trust_store")

    post_handshake_auth = Fixed(None, "a client's certificate is asked for in the handshake, or not at all")
    keylog_filename = Fixed(None, "the keys are the kernel's")
    sni_callback = Fixed(None, "a certificate is chosen by its names, here and in /ssa/credentials")
    num_tickets = Fixed(2, "ssad says how many there are")
    hostname_checks_common_name = Fixed(False, "a certificate's names are in its subjectAltName")
    _msg_callback = Fixed(None, "the handshake is ssad's")

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
            denied("verify_mode = CERT_NONE: servers are verified, whoever asks")
        if self._protocol != ssl.PROTOCOL_TLS_CLIENT and mode == ssl.CERT_OPTIONAL:
            raise error("NO_COUNTERPART", "verify_mode = CERT_OPTIONAL: clients have to present one, or are not asked")
        self._peer_auth = mode != ssl.CERT_NONE

    @property
    def check_hostname(self) -> bool:
        """True for a client, always."""
        return bool(self._protocol != ssl.PROTOCOL_TLS_SERVER)

    @check_hostname.setter
    def check_hostname(self, value: bool) -> None:
        if self.check_hostname and not value:
            denied("check_hostname = False: a server's certificate has to be for its name")
        if value and not self.check_hostname:
            raise error("NO_COUNTERPART", "check_hostname = True: a server's clients have no host name")

    @property
    def verify_flags(self) -> ssl.VerifyFlags:
        """How OpenSSL would build paths: here the policy's validators do. Revocation lists have no counterpart."""
        return self._verify_flags

    @verify_flags.setter
    def verify_flags(self, value: int) -> None:
        flags = ssl.VerifyFlags(value)
        if flags & ssl.VERIFY_ALLOW_PROXY_CERTS:
            denied("verify_flags: VERIFY_ALLOW_PROXY_CERTS")
        if flags & ssl.VERIFY_CRL_CHECK_CHAIN:
            raise error("NO_COUNTERPART", "verify_flags: no revocation list is looked at")
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
        if stand_for_the_system(cafile, capath):
            self._default_trust = True
            return
        found = [] if cafile is None else [File.of(cafile)]
        found_pem = (b"" if capath is None else hashed_certificates(capath)) + pem(cadata)
        if found_pem:
            found.append(File(found_pem))
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
            raise error("NO_COUNTERPART", "load_cert_chain: ssad reads the key, and it knows no password")
        if keyfile is None:
            self._have(certificates=[certificates_alone(certfile)], keys=[File.of(certfile)])
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
            raise as_ssl(exc) from None
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
            denied(f"maximum_version = {self._maximum.name}: TLS begins with 1.2")
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
            raise error("NO_COUNTERPART", "session: sessions are kept by ssad, for all programs")
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
