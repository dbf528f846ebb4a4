<?php

declare(strict_types=1);

namespace Ssa;

use FFI;

/**
 * What a program asks for, by the names that PHP's own context options for TLS have.
 *
 * Each narrows the administrator's policy, and none can loosen it. What ssa does not know is refused.
 */
final class Options
{
    /** Name: the type of its value. */
    private const KNOWN = [
        'peer_name' => 'string',        // whom the server's certificate has to be for; a server: the one name that it serves
        'alpn_protocols' => 'string',   // application protocols, the preferred one first, as "h2,http/1.1"
        'cafile' => 'string',           // trust anchors besides the administrator's: PEM, or a path
        'local_cert' => 'string',       // one's own certificate with its chain: PEM, or a path
        'local_pk' => 'string',         // its key: PEM, or a path
        'min_version' => 'string',      // TLSv1.2 or TLSv1.3
        'max_version' => 'string',
        'disable_ciphers' => 'string',  // cipher suites that are not used, with commas between
        'session_ttl' => 'int',         // seconds
        'timeout' => 'float',           // seconds for the connection and the handshake, and for each read and write
        'bindto' => 'string',           // the local address to connect from
        'verify_peer' => 'bool',        // true is what is done in any case
        'verify_peer_name' => 'bool',
        'allow_self_signed' => 'bool',
        'request_client_cert' => 'bool', // a server: a client has to present a certificate
        'backlog' => 'int',             // a server: how many connections may be ready and not accepted
    ];

    /** Options of a socket, where they are set by setsockopt. */
    private const OF_BOTH = [
        'alpn_protocols' => Tables::TLS_ALPN,
        'cafile' => Tables::TLS_TRUSTED_PEER_CERTIFICATES,
        'local_cert' => Tables::TLS_CERTIFICATE_CHAIN,
        'local_pk' => Tables::TLS_PRIVATE_KEY,
        'min_version' => Tables::TLS_VERSION_MIN,
        'max_version' => Tables::TLS_VERSION_MAX,
        'disable_ciphers' => Tables::TLS_DISABLE_CIPHER,
    ];
    private const OF_CLIENTS = ['peer_name' => Tables::TLS_REMOTE_HOSTNAME];
    private const OF_SERVERS = [
        'peer_name' => Tables::TLS_HOSTNAME,
        'session_ttl' => Tables::TLS_SESSION_TTL,
        'request_client_cert' => Tables::TLS_REQUEST_PEER_AUTH,
    ];

    /** Members of struct ssa_options. */
    private const OF_CONNECT = [
        'peer_name' => 'server_hostname',
        'alpn_protocols' => 'alpn',
        'cafile' => 'trusted',
        'local_cert' => 'certificate',
        'local_pk' => 'private_key',
        'min_version' => 'version_min',
        'max_version' => 'version_max',
        'disable_ciphers' => 'disable_cipher',
        'bindto' => 'source_address',
    ];

    /** Where only one value can be had. */
    private const WANTED = ['verify_peer' => true, 'verify_peer_name' => true, 'allow_self_signed' => false];

    /** @var array<string, mixed> */
    private array $values = [];

    /** @var list<FFI\CData> C strings that have to live as long as the struct that points to them */
    private array $kept = [];

    /** @param array<string, mixed> $options */
    public function __construct(array $options)
    {
        foreach ($options as $name => $value) {
            if ($value !== null) {
                $this->values[$name] = self::checked((string) $name, $value);
            }
        }
    }

    private static function checked(string $name, mixed $value): mixed
    {
        $type = self::KNOWN[$name] ?? throw SsaException::because('BAD_VALUE', "$name is no option; docs/php.md has those that are");
        if ($type === 'string' && \is_array($value)) {
            $value = implode(',', $value);
        }
        if (isset(self::WANTED[$name]) && (bool) $value !== self::WANTED[$name]) {
            throw SsaException::because('POLICY_DENIED', "$name: the peer is verified under the administrator's policy, and no program can turn that off");
        }
        if ($type === 'string' && (!\is_string($value) || str_contains($value, "\0"))) {
            throw SsaException::because('BAD_VALUE', "$name is a text");
        }
        if ($type !== 'string' && !\is_scalar($value)) {
            throw SsaException::because('BAD_VALUE', "$name is of type $type");
        }
        return $value;
    }

    /** The time for the connection and the handshake, in seconds; null: the policy's. */
    public function timeout(): ?float
    {
        return isset($this->values['timeout']) ? (float) $this->values['timeout'] : null;
    }

    public function backlog(): int
    {
        return (int) ($this->values['backlog'] ?? 128);
    }

    /** A struct ssa_options with these values. */
    public function struct(): FFI\CData
    {
        $this->refuseAllBut(self::OF_CONNECT, ['timeout' => 1]);
        $struct = Library::functions()->new('struct ssa_options');
        $struct->timeout = (int) round(($this->timeout() ?? 0) * 1000);
        foreach (array_intersect_key(self::OF_CONNECT, $this->values) as $name => $member) {
            $struct->$member = $this->keep((string) $this->values[$name]);
        }
        return $struct;
    }

    private function keep(string $text): FFI\CData
    {
        $kept = Library::bytes(\strlen($text) + 1);
        FFI::memcpy($kept, "$text\0", \strlen($text) + 1);
        $this->kept[] = $kept;
        return Library::functions()->cast('char *', $kept);
    }

    /** Set them on a socket of a client's that is to be upgraded; ssad checks each. */
    public function applyToClient(int $fd): void
    {
        $this->apply($fd, self::OF_CLIENTS + self::OF_BOTH, ['timeout' => 1]);
    }

    /** Set them on a listener, or on a socket that is to be upgraded as a server. */
    public function applyToServer(int $fd): void
    {
        $this->apply($fd, self::OF_SERVERS + self::OF_BOTH, ['timeout' => 1, 'backlog' => 1]);
    }

    private function apply(int $fd, array $names, array $elsewhere): void
    {
        $this->refuseAllBut($names, $elsewhere);
        foreach (array_intersect_key($names, $this->values) as $name => $number) {
            $value = $this->values[$name];
            Library::set($fd, Tables::IPPROTO_TLS, $number, \is_string($value) ? $value : pack('l', (int) $value));
        }
    }

    private function refuseAllBut(array ...$names): void
    {
        $others = array_diff_key($this->values, self::WANTED, ...$names);
        if ($others !== []) {
            throw SsaException::because('NO_COUNTERPART', implode(', ', array_keys($others)) . ': it has no meaning here');
        }
    }
}
