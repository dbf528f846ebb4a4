<?php

declare(strict_types=1);

namespace Ssa;

/** Made by tools/make-tables from the Python tables. */
final class Tables
{
    public const IPPROTO_TLS = 205;
    public const TLS_REMOTE_HOSTNAME = 85;
    public const TLS_HOSTNAME = 86;
    public const TLS_TRUSTED_PEER_CERTIFICATES = 87;
    public const TLS_CERTIFICATE_CHAIN = 88;
    public const TLS_PRIVATE_KEY = 89;
    public const TLS_ALPN = 90;
    public const TLS_SESSION_TTL = 91;
    public const TLS_DISABLE_CIPHER = 92;
    public const TLS_PEER_IDENTITY = 93;
    public const TLS_REQUEST_PEER_AUTH = 94;
    public const TLS_PEER_CERTIFICATE_CHAIN = 95;
    public const TLS_ID = 96;
    public const TLS_CHOSEN_CIPHER = 98;
    public const TLS_ERROR = 100;
    public const TLS_RESUMED_SESSION = 109;
    public const TLS_VERSION_MIN = 111;
    public const TLS_VERSION_MAX = 112;
    public const TLS_VERSION_CONN = 113;
    public const TLS_UPGRADE = 114;
    public const EAGAIN = 11;
    public const EBADF = 9;
    public const EINTR = 4;
    public const ENOSYS = 38;
    public const ETIMEDOUT = 110;

    /** Each reason: its errno, whose fault it is, its words, and what can be done. */
    public const REASONS = [
        'CERTIFICATE_EXPIRED' => ['errno' => 127, 'fault' => 'peer', 'text' => 'certificate has expired', 'advice' => 'Its operator has to renew it. Check that this machine\'s clock is right'],
        'CERTIFICATE_NOT_YET_VALID' => ['errno' => 129, 'fault' => 'peer', 'text' => 'certificate is not valid yet', 'advice' => 'Check that this machine\'s clock is right'],
        'SELF_SIGNED_CERTIFICATE' => ['errno' => 129, 'fault' => 'peer', 'text' => 'certificate is self-signed and not a trust anchor', 'advice' => 'If you do trust it, add its CA to the policy\'s trust_store (`ssa policy get trust_store`)'],
        'UNKNOWN_CA' => ['errno' => 129, 'fault' => 'peer', 'text' => 'no path from the certificate to a trust anchor', 'advice' => 'If you do trust it, add its CA to the policy\'s trust_store (`ssa policy get trust_store`)'],
        'HOSTNAME_MISMATCH' => ['errno' => 129, 'fault' => 'peer', 'text' => 'certificate is for another name', 'advice' => 'Connect by a name that the certificate is for'],
        'WRONG_PURPOSE' => ['errno' => 129, 'fault' => 'peer', 'text' => 'certificate is for another purpose', 'advice' => ''],
        'NOT_A_CA' => ['errno' => 129, 'fault' => 'peer', 'text' => 'certificate\'s issuer is not a CA', 'advice' => ''],
        'NAME_CONSTRAINT' => ['errno' => 129, 'fault' => 'peer', 'text' => 'certificate breaks its CA\'s name constraints', 'advice' => ''],
        'PATH_LENGTH' => ['errno' => 129, 'fault' => 'peer', 'text' => 'chain is longer than a CA in it allows', 'advice' => ''],
        'CHAIN_TOO_LONG' => ['errno' => 129, 'fault' => 'peer', 'text' => 'chain is longer than the policy allows', 'advice' => '`ssa policy` shows what is allowed'],
        'WEAK_KEY' => ['errno' => 129, 'fault' => 'peer', 'text' => 'key is weaker than the policy demands', 'advice' => '`ssa policy` shows what is allowed'],
        'WEAK_SIGNATURE' => ['errno' => 129, 'fault' => 'peer', 'text' => 'signature is weaker than the policy demands', 'advice' => '`ssa policy` shows what is allowed'],
        'KEY_NOT_PINNED' => ['errno' => 129, 'fault' => 'peer', 'text' => 'host has none of the keys that the policy pins for it', 'advice' => 'If the host has got a new key, the policy\'s pinned_keys have to be changed'],
        'BAD_SIGNATURE' => ['errno' => 129, 'fault' => 'peer', 'text' => 'certificate\'s signature is wrong', 'advice' => ''],
        'BAD_CERTIFICATE' => ['errno' => 129, 'fault' => 'peer', 'text' => 'certificate is not acceptable', 'advice' => ''],
        'NO_CERTIFICATE' => ['errno' => 126, 'fault' => 'peer', 'text' => 'peer sent no certificate', 'advice' => ''],
        'PEER_ALERT' => ['errno' => 71, 'fault' => 'peer', 'text' => 'peer refused the handshake', 'advice' => ''],
        'UNSUPPORTED_VERSION' => ['errno' => 71, 'fault' => 'peer', 'text' => 'peer offers no TLS version that the policy allows', 'advice' => 'The policy\'s min_version and max_version say which are allowed'],
        'NO_COMMON_CIPHER' => ['errno' => 71, 'fault' => 'peer', 'text' => 'peer offers no cipher suite that the policy allows', 'advice' => 'The policy\'s ciphers, ciphersuites and groups say which are allowed'],
        'NO_COMMON_GROUP' => ['errno' => 71, 'fault' => 'peer', 'text' => 'peer offers no key exchange group that the policy allows', 'advice' => 'The policy\'s groups say which are allowed'],
        'NO_COMMON_SIGNATURE' => ['errno' => 71, 'fault' => 'peer', 'text' => 'peer offers no signature algorithm that can be used here', 'advice' => 'The policy\'s signature_algorithms say which are allowed'],
        'NO_COMMON_PROTOCOL' => ['errno' => 71, 'fault' => 'peer', 'text' => 'peer offers no application protocol (ALPN) that this side accepts', 'advice' => ''],
        'NOT_SERVED' => ['errno' => 71, 'fault' => 'peer', 'text' => 'client asked for a name that is not served here', 'advice' => ''],
        'PLAINTEXT_PENDING' => ['errno' => 71, 'fault' => 'peer', 'text' => 'peer sent plain text after TLS was agreed on: an attacker may have put it there', 'advice' => ''],
        'NOT_TLS' => ['errno' => 71, 'fault' => 'peer', 'text' => 'peer does not speak TLS', 'advice' => 'Check that the port is one for TLS'],
        'PROTOCOL_VIOLATION' => ['errno' => 71, 'fault' => 'peer', 'text' => 'peer broke the TLS protocol', 'advice' => ''],
        'RECORD_OVERFLOW' => ['errno' => 71, 'fault' => 'peer', 'text' => 'peer sent an oversized record', 'advice' => ''],
        'HANDSHAKE_TOO_LONG' => ['errno' => 71, 'fault' => 'peer', 'text' => 'peer sent more data than a handshake can need', 'advice' => ''],
        'HANDSHAKE_TIMEOUT' => ['errno' => 110, 'fault' => 'peer', 'text' => 'peer did not complete the handshake in time', 'advice' => 'Check that the port is one for TLS; the program\'s timeout and the policy\'s handshake_timeout count'],
        'CONNECTION_CLOSED' => ['errno' => 104, 'fault' => 'peer', 'text' => 'peer closed the connection in the middle of the handshake', 'advice' => ''],
        'PEER_CLOSED' => ['errno' => 107, 'fault' => 'peer', 'text' => 'peer closed the connection before the handshake', 'advice' => ''],
        'CONNECTION_RESET' => ['errno' => 104, 'fault' => 'network', 'text' => 'connection was reset in the middle of the handshake', 'advice' => ''],
        'NETWORK' => ['errno' => 5, 'fault' => 'network', 'text' => 'connection failed in the middle of the handshake', 'advice' => ''],
        'CONNECTION_REFUSED' => ['errno' => 111, 'fault' => 'network', 'text' => 'connection refused', 'advice' => ''],
        'CONNECT_TIMEOUT' => ['errno' => 110, 'fault' => 'network', 'text' => 'host does not answer', 'advice' => ''],
        'UNREACHABLE' => ['errno' => 113, 'fault' => 'network', 'text' => 'host cannot be reached', 'advice' => ''],
        'POLICY_DENIED' => ['errno' => 13, 'fault' => 'policy', 'text' => 'policy does not allow this', 'advice' => '`ssa policy` shows what is allowed'],
        'CREDENTIAL_DENIED' => ['errno' => 13, 'fault' => 'policy', 'text' => 'this user may not serve with the administrator\'s certificate', 'advice' => 'Root can add the user to /ssa/credentials/NAME/users'],
        'BAD_REQUEST' => ['errno' => 22, 'fault' => 'caller', 'text' => 'request is malformed', 'advice' => ''],
        'VERSION_MISMATCH' => ['errno' => 93, 'fault' => 'system', 'text' => 'the program\'s ssa library and ssad are of different versions', 'advice' => 'Update the older one, and start ssad and the program again'],
        'BAD_VALUE' => ['errno' => 22, 'fault' => 'caller', 'text' => 'value is not valid', 'advice' => ''],
        'BAD_CREDENTIALS' => ['errno' => 22, 'fault' => 'caller', 'text' => 'certificate or key cannot be used', 'advice' => ''],
        'KEY_MISMATCH' => ['errno' => 22, 'fault' => 'caller', 'text' => 'private key does not belong to the certificate', 'advice' => ''],
        'NO_CREDENTIALS' => ['errno' => 126, 'fault' => 'caller', 'text' => 'there is no certificate to serve with', 'advice' => 'Name a certificate and its key, or have root put them into /ssa/credentials (docs/configfs.md)'],
        'NO_DESCRIPTOR' => ['errno' => 22, 'fault' => 'caller', 'text' => 'request lacks a descriptor, or carries others than it announces', 'advice' => ''],
        'NOT_TCP' => ['errno' => 88, 'fault' => 'caller', 'text' => 'descriptor is not a TCP socket', 'advice' => ''],
        'NOT_UDP' => ['errno' => 88, 'fault' => 'caller', 'text' => 'descriptor is not a UDP socket', 'advice' => ''],
        'NOT_CONNECTED' => ['errno' => 107, 'fault' => 'caller', 'text' => 'socket is not connected', 'advice' => ''],
        'NOT_LISTENING' => ['errno' => 22, 'fault' => 'caller', 'text' => 'descriptor is not a listening TCP socket', 'advice' => ''],
        'UNKNOWN_SOCKET' => ['errno' => 107, 'fault' => 'caller', 'text' => 'this ssad does not know the TLS socket: another ssad made it, or it is closed', 'advice' => ''],
        'WOULD_BLOCK' => ['errno' => 11, 'fault' => 'network', 'text' => 'send buffer is full', 'advice' => ''],
        'CONNECTION_LOST' => ['errno' => 32, 'fault' => 'network', 'text' => 'connection has ended', 'advice' => ''],
        'ALREADY_TLS' => ['errno' => 17, 'fault' => 'caller', 'text' => 'socket is a TLS socket already', 'advice' => ''],
        'NO_COUNTERPART' => ['errno' => 95, 'fault' => 'caller', 'text' => 'ssa does not support this part of the ssl module', 'advice' => ''],
        'NO_KERNEL_TLS' => ['errno' => 93, 'fault' => 'system', 'text' => 'this kernel has no TLS', 'advice' => '`ssa doctor` says what is wrong and what to do'],
        'NO_REKEY' => ['errno' => 93, 'fault' => 'system', 'text' => 'the keys of this connection cannot be changed', 'advice' => 'Linux 6.14 or newer can change keys, for TLS 1.3'],
        'KERNEL_REFUSED' => ['errno' => 93, 'fault' => 'system', 'text' => 'the kernel refused the keys, so the connection is closed', 'advice' => '`ssa doctor` says what is wrong and what to do'],
        'TRUST_STORE' => ['errno' => 5, 'fault' => 'system', 'text' => 'the trust store cannot be read', 'advice' => '`ssa doctor` says what is wrong and what to do'],
        'OVERLOADED' => ['errno' => 11, 'fault' => 'system', 'text' => 'ssad has no resources left for this request', 'advice' => 'Try again later'],
        'DAEMON_FAULT' => ['errno' => 5, 'fault' => 'system', 'text' => 'ssad failed: its log has the details', 'advice' => ''],
    ];
}
