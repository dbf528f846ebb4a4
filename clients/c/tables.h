/* tables.h: made by tools/make-header from the Python tables. */

/* ssa/protocol/messages.py and attributes.py: kinds of messages, and types of attributes */
enum {
    KIND_CONNECT = 1,
    KIND_REPLY = 2,
    KIND_ACCEPT = 3,
    KIND_LISTEN = 4,
    KIND_CHECK = 5,
    KIND_DESCRIBE = 6,
    KIND_REKEY = 7,
    KIND_TICKET = 8,
    KIND_PLUG = 9,
    KIND_GATHER = 10,
    KIND_CLOSE = 11,
    KIND_FALLBACK = 12,
};
enum { LAST_KIND = 12 };
enum { MAX_REQUEST = 65536, MAX_REPLY = 131072 };
enum {
    ATTRIBUTE_HOSTNAME = 85,
    ATTRIBUTE_SERVER_NAME = 86,
    ATTRIBUTE_TRUSTED = 87,
    ATTRIBUTE_CERTIFICATES = 88,
    ATTRIBUTE_KEYS = 89,
    ATTRIBUTE_ALPN = 90,
    ATTRIBUTE_SESSION_TTL = 91,
    ATTRIBUTE_DISABLED = 92,
    ATTRIBUTE_PEER_IDENTITY = 93,
    ATTRIBUTE_PEER_AUTH = 94,
    ATTRIBUTE_CHAIN = 95,
    ATTRIBUTE_SOCKET_ID = 96,
    ATTRIBUTE_CIPHER = 98,
    ATTRIBUTE_DETAIL = 100,
    ATTRIBUTE_RESUMED = 109,
    ATTRIBUTE_VERSION_MIN = 111,
    ATTRIBUTE_VERSION_MAX = 112,
    ATTRIBUTE_VERSION = 113,
    ATTRIBUTE_UPGRADE = 114,
    ATTRIBUTE_TIMEOUT_MS = 512,
    ATTRIBUTE_REASON = 513,
    ATTRIBUTE_ALERT = 514,
    ATTRIBUTE_CONTROL = 515,
    ATTRIBUTE_BACKLOG = 516,
    ATTRIBUTE_RECEIVING = 517,
    ATTRIBUTE_SENDING = 518,
    ATTRIBUTE_TICKET = 519,
    ATTRIBUTE_PADDING = 520,
    ATTRIBUTE_REKEYABLE = 521,
    ATTRIBUTE_REMOTE = 522,
    ATTRIBUTE_LARGEST = 523,
    ATTRIBUTE_PEER = 524,
    ATTRIBUTE_LOCAL = 525,
    ATTRIBUTE_ERRNO = 526,
    ATTRIBUTE_WITH_CHAIN = 527,
    ATTRIBUTE_RELAY = 528,
    ATTRIBUTE_AHEAD = 529,
    ATTRIBUTE_RELAYED = 530,
    ATTRIBUTE_ENDED = 531,
    ATTRIBUTE_STRICT = 540,
    ATTRIBUTE_UNFINISHED = 541,
    ATTRIBUTE_ABORT = 542,
    ATTRIBUTE_TRUNCATED = 543,
    ATTRIBUTE_CUT_IS_ERROR = 544,
    ATTRIBUTE_LENIENT = 550,
    ATTRIBUTE_HALF = 551,
    ATTRIBUTE_EARLY = 560,
};

/* ssa/protocol/attributes.py: number, form of the value */
#define ATTRIBUTE_ROWS \
    X(85, WRITTEN_TEXT) \
    X(86, WRITTEN_TEXT) \
    X(87, WRITTEN_U32) \
    X(88, WRITTEN_U32) \
    X(89, WRITTEN_U32) \
    X(90, WRITTEN_NAMES) \
    X(91, WRITTEN_U32) \
    X(92, WRITTEN_NAMES) \
    X(93, WRITTEN_TEXT) \
    X(94, WRITTEN_U32) \
    X(95, WRITTEN_BYTES) \
    X(96, WRITTEN_U64) \
    X(98, WRITTEN_TEXT) \
    X(100, WRITTEN_TEXT) \
    X(109, WRITTEN_U32) \
    X(111, WRITTEN_U32) \
    X(112, WRITTEN_U32) \
    X(113, WRITTEN_TEXT) \
    X(114, WRITTEN_U32) \
    X(512, WRITTEN_U32) \
    X(513, WRITTEN_TEXT) \
    X(514, WRITTEN_TEXT) \
    X(515, WRITTEN_U32) \
    X(516, WRITTEN_U32) \
    X(517, WRITTEN_U32) \
    X(518, WRITTEN_U32) \
    X(519, WRITTEN_BYTES) \
    X(520, WRITTEN_BYTES) \
    X(521, WRITTEN_U32) \
    X(522, WRITTEN_TEXT) \
    X(523, WRITTEN_U32) \
    X(524, WRITTEN_BYTES) \
    X(525, WRITTEN_BYTES) \
    X(526, WRITTEN_U32) \
    X(527, WRITTEN_U32) \
    X(528, WRITTEN_U32) \
    X(529, WRITTEN_BYTES) \
    X(530, WRITTEN_U32) \
    X(531, WRITTEN_TEXT) \
    X(540, WRITTEN_U32) \
    X(541, WRITTEN_U32) \
    X(542, WRITTEN_U32) \
    X(543, WRITTEN_U32) \
    X(544, WRITTEN_U32) \
    X(550, WRITTEN_U32) \
    X(551, WRITTEN_U32) \
    X(560, WRITTEN_U32) \

/* ssa/protocol/options.py: number, name, attribute, form, settable, readable */
#define OPTION_ROWS \
    X(85, "TLS_REMOTE_HOSTNAME", ATTRIBUTE_HOSTNAME, FORM_TEXT, 1, READ_ALWAYS) \
    X(86, "TLS_HOSTNAME", ATTRIBUTE_SERVER_NAME, FORM_TEXT, 1, READ_ALWAYS) \
    X(87, "TLS_TRUSTED_PEER_CERTIFICATES", ATTRIBUTE_TRUSTED, FORM_FILES, 1, READ_ALWAYS) \
    X(88, "TLS_CERTIFICATE_CHAIN", ATTRIBUTE_CERTIFICATES, FORM_FILES, 1, READ_ALWAYS) \
    X(89, "TLS_PRIVATE_KEY", ATTRIBUTE_KEYS, FORM_FILES, 1, READ_NEVER) \
    X(90, "TLS_ALPN", ATTRIBUTE_ALPN, FORM_NAMES, 1, READ_ALWAYS) \
    X(91, "TLS_SESSION_TTL", ATTRIBUTE_SESSION_TTL, FORM_NUMBER, 1, READ_ALWAYS) \
    X(92, "TLS_DISABLE_CIPHER", ATTRIBUTE_DISABLED, FORM_NAMES, 1, READ_ALWAYS) \
    X(93, "TLS_PEER_IDENTITY", ATTRIBUTE_PEER_IDENTITY, FORM_TEXT, 0, READ_CONNECTED) \
    X(94, "TLS_REQUEST_PEER_AUTH", ATTRIBUTE_PEER_AUTH, FORM_FLAG, 1, READ_ALWAYS) \
    X(95, "TLS_PEER_CERTIFICATE_CHAIN", ATTRIBUTE_CHAIN, FORM_FILES, 0, READ_CONNECTED) \
    X(96, "TLS_ID", ATTRIBUTE_SOCKET_ID, FORM_NUMBER, 0, READ_CONNECTED) \
    X(98, "TLS_CHOSEN_CIPHER", ATTRIBUTE_CIPHER, FORM_TEXT, 0, READ_CONNECTED) \
    X(100, "TLS_ERROR", ATTRIBUTE_DETAIL, FORM_TEXT, 0, READ_ALWAYS) \
    X(109, "TLS_RESUMED_SESSION", ATTRIBUTE_RESUMED, FORM_FLAG, 0, READ_CONNECTED) \
    X(111, "TLS_VERSION_MIN", ATTRIBUTE_VERSION_MIN, FORM_VERSION, 1, READ_ALWAYS) \
    X(112, "TLS_VERSION_MAX", ATTRIBUTE_VERSION_MAX, FORM_VERSION, 1, READ_ALWAYS) \
    X(113, "TLS_VERSION_CONN", ATTRIBUTE_VERSION, FORM_VERSION, 0, READ_CONNECTED) \
    X(114, "TLS_UPGRADE", ATTRIBUTE_UPGRADE, FORM_NUMBER, 1, READ_ALWAYS) \

/* ssa/suites.py: IANA's number and name, and the version's number */
#define SUITE_ROWS \
    X(0x1302, "TLS_AES_256_GCM_SHA384", 0x0304) \
    X(0x1303, "TLS_CHACHA20_POLY1305_SHA256", 0x0304) \
    X(0x1301, "TLS_AES_128_GCM_SHA256", 0x0304) \
    X(0x1304, "TLS_AES_128_CCM_SHA256", 0x0304) \
    X(0xc02c, "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", 0x0303) \
    X(0xc030, "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", 0x0303) \
    X(0x009f, "TLS_DHE_RSA_WITH_AES_256_GCM_SHA384", 0x0303) \
    X(0xcca9, "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", 0x0303) \
    X(0xcca8, "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", 0x0303) \
    X(0xccaa, "TLS_DHE_RSA_WITH_CHACHA20_POLY1305_SHA256", 0x0303) \
    X(0xc02b, "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", 0x0303) \
    X(0xc02f, "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", 0x0303) \
    X(0x009e, "TLS_DHE_RSA_WITH_AES_128_GCM_SHA256", 0x0303) \
    X(0xc0ac, "TLS_ECDHE_ECDSA_WITH_AES_128_CCM", 0x0303) \
    X(0xc09e, "TLS_DHE_RSA_WITH_AES_128_CCM", 0x0303) \

/* ssa/errors.py: reason, errno, alert, words */
#define REASON_ROWS \
    X("CERTIFICATE_EXPIRED", 127, "certificate has expired") \
    X("CERTIFICATE_NOT_YET_VALID", 129, "certificate is not valid yet") \
    X("SELF_SIGNED_CERTIFICATE", 129, "certificate is self-signed and not a trust anchor") \
    X("UNKNOWN_CA", 129, "no path from the certificate to a trust anchor") \
    X("HOSTNAME_MISMATCH", 129, "certificate is for another name") \
    X("WRONG_PURPOSE", 129, "certificate is for another purpose") \
    X("NOT_A_CA", 129, "certificate's issuer is not a CA") \
    X("NAME_CONSTRAINT", 129, "certificate breaks its CA's name constraints") \
    X("PATH_LENGTH", 129, "chain is longer than a CA in it allows") \
    X("CHAIN_TOO_LONG", 129, "chain is longer than the policy allows") \
    X("WEAK_KEY", 129, "key is weaker than the policy demands") \
    X("WEAK_SIGNATURE", 129, "signature is weaker than the policy demands") \
    X("KEY_NOT_PINNED", 129, "host has none of the keys that the policy pins for it") \
    X("BAD_SIGNATURE", 129, "certificate's signature is wrong") \
    X("BAD_CERTIFICATE", 129, "certificate is not acceptable") \
    X("NO_CERTIFICATE", 126, "peer sent no certificate") \
    X("PEER_ALERT", 71, "peer refused the handshake") \
    X("UNSUPPORTED_VERSION", 71, "peer offers no TLS version that the policy allows") \
    X("NO_COMMON_CIPHER", 71, "peer offers no cipher suite that the policy allows") \
    X("NO_COMMON_GROUP", 71, "peer offers no key exchange group that the policy allows") \
    X("NO_COMMON_SIGNATURE", 71, "peer offers no signature algorithm that can be used here") \
    X("NO_COMMON_PROTOCOL", 71, "peer offers no application protocol (ALPN) that this side accepts") \
    X("NOT_SERVED", 71, "client asked for a name that is not served here") \
    X("PLAINTEXT_PENDING", 71, "peer sent plain text after TLS was agreed on: an attacker may have put it there") \
    X("NOT_TLS", 71, "peer does not speak TLS") \
    X("PROTOCOL_VIOLATION", 71, "peer broke the TLS protocol") \
    X("RECORD_OVERFLOW", 71, "peer sent an oversized record") \
    X("HANDSHAKE_TOO_LONG", 71, "peer sent more data than a handshake can need") \
    X("HANDSHAKE_TIMEOUT", 110, "peer did not complete the handshake in time") \
    X("CONNECTION_CLOSED", 104, "peer closed the connection in the middle of the handshake") \
    X("PEER_CLOSED", 107, "peer closed the connection before the handshake") \
    X("CONNECTION_RESET", 104, "connection was reset in the middle of the handshake") \
    X("NETWORK", 5, "connection failed in the middle of the handshake") \
    X("CONNECTION_REFUSED", 111, "connection refused") \
    X("CONNECT_TIMEOUT", 110, "host does not answer") \
    X("UNREACHABLE", 113, "host cannot be reached") \
    X("POLICY_DENIED", 13, "policy does not allow this") \
    X("CREDENTIAL_DENIED", 13, "this user may not serve with the administrator's certificate") \
    X("BAD_REQUEST", 22, "request is malformed") \
    X("VERSION_MISMATCH", 93, "the program's ssa library and ssad are of different versions") \
    X("BAD_VALUE", 22, "value is not valid") \
    X("BAD_CREDENTIALS", 22, "certificate or key cannot be used") \
    X("KEY_MISMATCH", 22, "private key does not belong to the certificate") \
    X("NO_CREDENTIALS", 126, "there is no certificate to serve with") \
    X("NO_DESCRIPTOR", 22, "request lacks a descriptor, or carries others than it announces") \
    X("NOT_TCP", 88, "descriptor is not a TCP socket") \
    X("NOT_UDP", 88, "descriptor is not a UDP socket") \
    X("NOT_CONNECTED", 107, "socket is not connected") \
    X("NOT_LISTENING", 22, "descriptor is not a listening TCP socket") \
    X("UNKNOWN_SOCKET", 107, "this ssad does not know the TLS socket: another ssad made it, or it is closed") \
    X("WOULD_BLOCK", 11, "send buffer is full") \
    X("CONNECTION_LOST", 32, "connection has ended") \
    X("ALREADY_TLS", 17, "socket is a TLS socket already") \
    X("NO_COUNTERPART", 95, "ssa does not support this part of the ssl module") \
    X("NO_KERNEL_TLS", 93, "this kernel has no TLS") \
    X("NO_REKEY", 93, "the keys of this connection cannot be changed") \
    X("KERNEL_REFUSED", 93, "the kernel refused the keys, so the connection is closed") \
    X("TRUST_STORE", 5, "the trust store cannot be read") \
    X("OVERLOADED", 11, "ssad has no resources left for this request") \
    X("DAEMON_FAULT", 5, "ssad failed: its log has the details") \

#define ALERT_ROWS \
    X(0, "close_notify") \
    X(10, "unexpected_message") \
    X(20, "bad_record_mac") \
    X(21, "decryption_failed") \
    X(22, "record_overflow") \
    X(30, "decompression_failure") \
    X(40, "handshake_failure") \
    X(41, "no_certificate") \
    X(42, "bad_certificate") \
    X(43, "unsupported_certificate") \
    X(44, "certificate_revoked") \
    X(45, "certificate_expired") \
    X(46, "certificate_unknown") \
    X(47, "illegal_parameter") \
    X(48, "unknown_ca") \
    X(49, "access_denied") \
    X(50, "decode_error") \
    X(51, "decrypt_error") \
    X(60, "export_restriction") \
    X(70, "protocol_version") \
    X(71, "insufficient_security") \
    X(80, "internal_error") \
    X(86, "inappropriate_fallback") \
    X(90, "user_canceled") \
    X(100, "no_renegotiation") \
    X(109, "missing_extension") \
    X(110, "unsupported_extension") \
    X(111, "certificate_unobtainable") \
    X(112, "unrecognized_name") \
    X(113, "bad_certificate_status_response") \
    X(114, "bad_certificate_hash_value") \
    X(115, "unknown_psk_identity") \
    X(116, "certificate_required") \
    X(120, "no_application_protocol") \

/* ssa/library/flags.py: what can be said with what is sent, and what no read can do */
#define FLAGS_SENT 0xc040
#define FLAGS_NOT_RECEIVED 0x2001
