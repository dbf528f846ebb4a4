"""The numbers of TLS and DTLS, as the RFCs and IANA's registries give them. What the kernel numbers is in `ssa.ktls`.

Alert descriptions are in `ssa.errors`, cipher suites in `ssa.suites`. Applications load this: it imports nothing.
"""

from __future__ import annotations

# Protocol versions (RFC 5246 section 6.2.1, RFC 8446 section 4.1.2, RFC 6347 section 4.1)
TLS_1_2 = 0x0303
TLS_1_3 = 0x0304
DTLS_1_2 = 0xFEFD
DTLS_1_2_NAME = "DTLSv1.2"  # as sockets, log lines and the file system have it
VERSIONS = {"TLSv1.2": TLS_1_2, "TLSv1.3": TLS_1_3}  # by the names in the policy and the file system
OTHER_VERSIONS = {0x0300: "SSLv3", 0x0301: "TLSv1.0", 0x0302: "TLSv1.1"}  # that a client may offer and nobody accepts

# Records (RFC 8446 section 5.1). Sizes are in bytes.
CHANGE_CIPHER_SPEC = 20
ALERT = 21
HANDSHAKE = 22
APPLICATION_DATA = 23
RECORD_HEADER = 5
RECORD_VERSION = b"\x03\x03"  # in the header of every record, of TLS 1.3 too
MAX_CONTENT = 2**14  # plain text of a record
MAX_SEALED = MAX_CONTENT + 2048  # what follows the header, in TLS 1.2 (RFC 5246 section 6.2.3); TLS 1.3 allows less
TAG = 16  # of each AEAD in `ssa.suites`
NONCE = 12  # of each AEAD in `ssa.suites` (RFC 8446 section 5.3)

# Handshake messages (RFC 8446 section 4, RFC 5246 section 7.4)
HELLO_REQUEST = 0
CLIENT_HELLO = 1
SERVER_HELLO = 2
NEW_SESSION_TICKET = 4
CERTIFICATE = 11
KEY_UPDATE = 24
MESSAGE_HEADER = 4  # bytes: type and length
RANDOM = 32  # bytes of a hello

# Alert levels (RFC 8446 section 6)
WARNING = 1
FATAL = 2

# Extensions (RFC 6066 section 4, RFC 8446 section 4.2)
MAX_FRAGMENT_LENGTH = 1
SUPPORTED_GROUPS = 10
SIGNATURE_ALGORITHMS = 13
SUPPORTED_VERSIONS = 43

# Numbers that stand among the cipher suites of a ClientHello and are none (RFC 5746 section 3.3, RFC 7507 section 2)
SIGNALLING_SUITES = frozenset({0x00FF, 0x5600})

# Named groups (RFC 8446 section 4.2.7; those with MLKEM are in IANA's registry "TLS Supported Groups")
GROUPS = {
    23: "secp256r1",
    24: "secp384r1",
    25: "secp521r1",
    29: "x25519",
    30: "x448",
    256: "ffdhe2048",
    257: "ffdhe3072",
    258: "ffdhe4096",
    259: "ffdhe6144",
    260: "ffdhe8192",
    0x0201: "MLKEM768",
    0x0202: "MLKEM1024",
    0x11EB: "SecP256r1MLKEM768",
    0x11EC: "X25519MLKEM768",
    0x11ED: "SecP384r1MLKEM1024",
}
# Signature algorithms (RFC 8446 section 4.2.3)
SIGNATURES = {
    0x0401: "rsa_pkcs1_sha256",
    0x0403: "ecdsa_secp256r1_sha256",
    0x0501: "rsa_pkcs1_sha384",
    0x0503: "ecdsa_secp384r1_sha384",
    0x0601: "rsa_pkcs1_sha512",
    0x0603: "ecdsa_secp521r1_sha512",
    0x0804: "rsa_pss_rsae_sha256",
    0x0805: "rsa_pss_rsae_sha384",
    0x0806: "rsa_pss_rsae_sha512",
    0x0807: "ed25519",
    0x0808: "ed448",
    0x0809: "rsa_pss_pss_sha256",
    0x080A: "rsa_pss_pss_sha384",
    0x080B: "rsa_pss_pss_sha512",
}

_LONGEST_PROTOCOL_NAME = 255  # bytes


def is_protocol_name(name: str) -> bool:
    """True for what can name an application protocol: 1 to 255 bytes (RFC 7301 section 3.1), of ASCII as IANA's are."""
    return name.isascii() and 1 <= len(name) <= _LONGEST_PROTOCOL_NAME
