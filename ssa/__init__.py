"""TLS as a service of the operating system: the public API, and nothing else.

    fd = ssa.connect_tls("example.com", 443)

gives a plain descriptor: the daemon has made the handshake and judged the server, the kernel does the records.
"""

from ssa.errors import (
    CertificateError,
    HandshakeError,
    HandshakeReset,
    HandshakeTimeout,
    PolicyError,
    SSAError,
)
from ssa.sockets import close, connect_tls, recv, send

__version__ = "0.1.0"

__all__ = [
    "CertificateError",
    "HandshakeError",
    "HandshakeReset",
    "HandshakeTimeout",
    "PolicyError",
    "SSAError",
    "close",
    "connect_tls",
    "recv",
    "send",
]
