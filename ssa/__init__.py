"""TLS as a service of the operating system: the public API, and nothing else.

    fd = ssa.connect_tls("example.com", 443)

gives a plain descriptor: the daemon has made the handshake and judged the server, the kernel does the records.
"""

from ssa._version import __version__ as __version__
from ssa.errors import (
    CertificateError,
    ConnectRefused,
    HandshakeError,
    HandshakeReset,
    HandshakeTimeout,
    PolicyError,
    SSAError,
)
from ssa.library.api import create_connection, create_server, socket, upgrade
from ssa.library.bare import close, connect_tls, recv, send
from ssa.library.tlssocket import TLSSocket
from ssa.protocol.options import (
    AF_HOSTNAME,
    IPPROTO_TLS,
    TLS_ALPN,
    TLS_CERTIFICATE_CHAIN,
    TLS_CHOSEN_CIPHER,
    TLS_DISABLE_CIPHER,
    TLS_ERROR,
    TLS_HOSTNAME,
    TLS_ID,
    TLS_PEER_CERTIFICATE_CHAIN,
    TLS_PEER_IDENTITY,
    TLS_PRIVATE_KEY,
    TLS_REMOTE_HOSTNAME,
    TLS_REQUEST_PEER_AUTH,
    TLS_RESUMED_SESSION,
    TLS_SESSION_TTL,
    TLS_TRUSTED_PEER_CERTIFICATES,
    TLS_UPGRADE,
    TLS_VERSION_CONN,
    TLS_VERSION_MAX,
    TLS_VERSION_MIN,
)


def inject_into_ssl() -> None:
    """Make the sockets of the standard `ssl` module TLS sockets under the administrator's policy. See `ssa.inject`."""
    from ssa.inject import inject  # late: it loads `ssl`

    inject()


def extract_from_ssl() -> None:
    """Take `inject_into_ssl` back."""
    from ssa.inject import extract

    extract()


__all__ = [
    "AF_HOSTNAME",
    "IPPROTO_TLS",
    "TLS_ALPN",
    "TLS_CERTIFICATE_CHAIN",
    "TLS_CHOSEN_CIPHER",
    "TLS_DISABLE_CIPHER",
    "TLS_ERROR",
    "TLS_HOSTNAME",
    "TLS_ID",
    "TLS_PEER_CERTIFICATE_CHAIN",
    "TLS_PEER_IDENTITY",
    "TLS_PRIVATE_KEY",
    "TLS_REMOTE_HOSTNAME",
    "TLS_REQUEST_PEER_AUTH",
    "TLS_RESUMED_SESSION",
    "TLS_SESSION_TTL",
    "TLS_TRUSTED_PEER_CERTIFICATES",
    "TLS_UPGRADE",
    "TLS_VERSION_CONN",
    "TLS_VERSION_MAX",
    "TLS_VERSION_MIN",
    "CertificateError",
    "ConnectRefused",
    "HandshakeError",
    "HandshakeReset",
    "HandshakeTimeout",
    "PolicyError",
    "SSAError",
    "TLSSocket",
    "close",
    "connect_tls",
    "create_connection",
    "create_server",
    "extract_from_ssl",
    "inject_into_ssl",
    "recv",
    "send",
    "socket",
    "upgrade",
]
