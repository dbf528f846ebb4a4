"""The effect of each name of the `ssl` module, as a table: so nothing that a program says is silently ignored.

`SSLContext` reads its flags and options here. The names are those of Python 3.11 to 3.14.
"""

from __future__ import annotations

import ssl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

KEPT = "kept"  # as of `ssl`: it narrows the policy, holds in any case, or is none of TLS's affairs
REFUSED = "refused"  # an error that says what to do: NO_COUNTERPART, or POLICY_DENIED where it would loosen the policy
OVERRULED = "overruled"  # it has no effect, and is logged once where a socket is made with it
NO_MEANING = "no meaning"  # it has no effect, as what it is about does not exist here


class Meaning:
    """A row of the table: some names of one of `ssl`'s classes (or of the module), their fate, and why."""

    __slots__ = ("fate", "names", "owner", "why")

    def __init__(self, owner: str, fate: str, names: str, why: str = "") -> None:
        self.owner = owner
        self.fate = fate
        self.names = tuple(names.split())
        self.why = why


TABLE = (
    # Flags of SSLContext.verify_flags.
    Meaning("verify_flags", KEPT, "VERIFY_DEFAULT"),
    Meaning("verify_flags", KEPT, "VERIFY_X509_STRICT", "OpenSSL checks the path by RFC 5280 strictly"),
    Meaning("verify_flags", REFUSED, "VERIFY_ALLOW_PROXY_CERTS", "it would loosen the policy"),
    Meaning("verify_flags", REFUSED, "VERIFY_CRL_CHECK_LEAF VERIFY_CRL_CHECK_CHAIN", "no revocation list is looked at"),
    Meaning("verify_flags", NO_MEANING, "VERIFY_X509_TRUSTED_FIRST VERIFY_X509_PARTIAL_CHAIN", "ssad builds the paths"),
    # SSLContext.options.
    Meaning("options", KEPT, "OP_NO_TLSv1_2 OP_NO_TLSv1_3 OP_NO_TICKET"),
    Meaning("options", KEPT, "OP_NO_SSLv2 OP_NO_SSLv3 OP_NO_TLSv1 OP_NO_TLSv1_1", "they hold in any case"),
    Meaning(
        "options",
        KEPT,
        "OP_NO_COMPRESSION OP_NO_RENEGOTIATION OP_SINGLE_DH_USE OP_SINGLE_ECDH_USE",
        "they hold in any case",
    ),
    Meaning("options", OVERRULED, "OP_LEGACY_SERVER_CONNECT", "ssad refuses servers without RFC 5746"),
    Meaning("options", KEPT, "OP_IGNORE_UNEXPECTED_EOF", "unless the policy's truncation is error"),
    Meaning(
        "options",
        NO_MEANING,
        "OP_ALL OP_CIPHER_SERVER_PREFERENCE OP_ENABLE_KTLS OP_ENABLE_MIDDLEBOX_COMPAT",
        "OpenSSL's handshake is ssad's",
    ),
    # SSLContext's attributes and methods.
    Meaning("SSLContext", KEPT, "protocol minimum_version maximum_version set_ciphers get_ciphers set_alpn_protocols"),
    Meaning("SSLContext", KEPT, "load_verify_locations load_default_certs set_default_verify_paths load_cert_chain"),
    Meaning("SSLContext", KEPT, "options verify_flags sslsocket_class wrap_socket"),
    Meaning(
        "SSLContext", KEPT, "verify_mode", "but a client's CERT_NONE is overruled, a server's CERT_OPTIONAL refused"
    ),
    Meaning("SSLContext", KEPT, "check_hostname", "but a client's False is overruled"),
    Meaning(
        "SSLContext", OVERRULED, "post_handshake_auth", "a server that asks after the handshake gets no certificate"
    ),
    Meaning(
        "SSLContext",
        OVERRULED,
        "keylog_filename",
        "where it is SSLKEYLOGFILE of the environment; another file is refused, as the keys are the kernel's",
    ),
    Meaning("SSLContext", KEPT, "wrap_bio", "for trio and anyio; to any other caller it is refused"),
    Meaning("SSLContext", REFUSED, "_wrap_bio _wrap_socket", "TLS is on a socket, in the kernel"),
    Meaning("SSLContext", REFUSED, "sni_callback set_servername_callback", "a certificate is chosen by its names"),
    Meaning("SSLContext", REFUSED, "set_ecdh_curve load_dh_params", "the policy says which groups are used"),
    Meaning("SSLContext", REFUSED, "set_psk_client_callback set_psk_server_callback", "peers have certificates"),
    Meaning("SSLContext", REFUSED, "get_ca_certs cert_store_stats", "what is trusted is in /ssa/policy/trust_store"),
    Meaning("SSLContext", REFUSED, "session_stats num_tickets", "sessions are kept by ssad"),
    Meaning("SSLContext", REFUSED, "hostname_checks_common_name _host_flags", "names are in the subjectAltName"),
    Meaning("SSLContext", REFUSED, "set_npn_protocols _set_alpn_protocols _msg_callback", "the handshake is ssad's"),
    Meaning("SSLContext", NO_MEANING, "security_level sslobject_class"),
    Meaning("SSLContext", NO_MEANING, "_encode_hostname _load_windows_store_certs _windows_cert_stores"),
    # SSLSocket's, beside socket.socket's.
    Meaning("SSLSocket", KEPT, "cipher compression do_handshake getpeercert get_unverified_chain pending read write"),
    Meaning("SSLSocket", KEPT, "selected_alpn_protocol selected_npn_protocol session_reused version context"),
    Meaning("SSLSocket", KEPT, "unwrap", "but the socket can only be closed then"),
    Meaning("SSLSocket", REFUSED, "session shared_ciphers get_verified_chain get_channel_binding", "ssad's alone"),
    Meaning("SSLSocket", REFUSED, "verify_client_post_handshake", "clients are asked in the handshake"),
    Meaning("SSLSocket", NO_MEANING, "_checkClosed _check_connected _create _real_connect"),
    # What verify_mode can be.
    Meaning("ssl", KEPT, "CERT_REQUIRED CERT_OPTIONAL CERT_NONE", "as SSLContext.verify_mode says"),
    # The module's own.
    Meaning("ssl", KEPT, "SSLContext SSLSocket", "ssa's classes"),
    Meaning("ssl", KEPT, "create_default_context _create_default_https_context _create_unverified_context"),
    Meaning("ssl", KEPT, "_create_stdlib_context", "verified, unless the program says CERT_NONE"),
    Meaning("ssl", KEPT, "get_server_certificate", "of a server that the policy accepts"),
    Meaning("ssl", KEPT, "wrap_socket", "a server's; a client is refused, as it has no server_hostname"),
    Meaning("ssl", KEPT, "PROTOCOL_TLS PROTOCOL_TLS_CLIENT PROTOCOL_TLS_SERVER PROTOCOL_SSLv23 PROTOCOL_TLSv1_2"),
    Meaning("ssl", REFUSED, "PROTOCOL_TLSv1 PROTOCOL_TLSv1_1", "TLS begins with 1.2"),
    Meaning(
        "ssl",
        REFUSED,
        "MemoryBIO SSLObject SSLSession",
        "at `wrap_bio` (but for trio and anyio), and where a session is given",
    ),
    Meaning(
        "ssl", KEPT, "SSLError SSLErrorNumber CertificateError SSLCertVerificationError SSLEOFError SSLSyscallError"
    ),
    Meaning("ssl", KEPT, "SSLWantReadError SSLWantWriteError SSLZeroReturnError socket_error"),
    Meaning("ssl", KEPT, "SSL_ERROR_EOF SSL_ERROR_INVALID_ERROR_CODE SSL_ERROR_SSL SSL_ERROR_SYSCALL"),
    Meaning("ssl", KEPT, "SSL_ERROR_WANT_CONNECT SSL_ERROR_WANT_READ SSL_ERROR_WANT_WRITE SSL_ERROR_WANT_X509_LOOKUP"),
    Meaning("ssl", KEPT, "SSL_ERROR_ZERO_RETURN AlertDescription"),
    Meaning(
        "ssl", KEPT, "TLSVersion Options VerifyFlags VerifyMode Purpose DefaultVerifyPaths get_default_verify_paths"
    ),
    Meaning("ssl", KEPT, "DER_cert_to_PEM_cert PEM_cert_to_DER_cert PEM_HEADER PEM_FOOTER cert_time_to_seconds"),
    Meaning("ssl", KEPT, "match_hostname get_protocol_name create_connection SOCK_STREAM SOL_SOCKET SO_TYPE"),
    Meaning("ssl", KEPT, "RAND_add RAND_bytes RAND_pseudo_bytes RAND_status", "OpenSSL's own, in this process"),
    Meaning("ssl", NO_MEANING, "OPENSSL_VERSION OPENSSL_VERSION_INFO OPENSSL_VERSION_NUMBER", "ssad has its own"),
    Meaning(
        "ssl", NO_MEANING, "HAS_ALPN HAS_ECDH HAS_NEVER_CHECK_COMMON_NAME HAS_NPN HAS_PHA HAS_PSK HAS_SNI", "OpenSSL's"
    ),
    Meaning("ssl", NO_MEANING, "HAS_SSLv2 HAS_SSLv3 HAS_TLSv1 HAS_TLSv1_1 HAS_TLSv1_2 HAS_TLSv1_3", "OpenSSL's"),
    Meaning("ssl", NO_MEANING, "CHANNEL_BINDING_TYPES", "`get_channel_binding` is refused"),
)
NOT_ON_EACH_VERSION = {"OP_LEGACY_SERVER_CONNECT": 0x4, "OP_ENABLE_KTLS": 0x8}  # from Python 3.12 on


def flags_of(owner: str, value: int) -> Iterator[tuple[str, str, str]]:
    """The flags that are set in a value: each one's name, fate and why. What has no name is refused."""
    left = value
    for meaning in TABLE:
        if meaning.owner == owner:
            for name in meaning.names:
                number = int(getattr(ssl, name, NOT_ON_EACH_VERSION.get(name, 0)))
                left &= ~number
                if value & number:
                    yield name, meaning.fate, meaning.why
    if left:
        yield f"{left:#x}", REFUSED, "it has no name in the ssl module"
