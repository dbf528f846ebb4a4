<?php

declare(strict_types=1);

namespace Ssa;

use FFI;

/** A TLS connection. The peer was verified under the administrator's policy. */
final class Connection
{
    private const LARGEST = 65536; // bytes of one read
    private const CHAIN = 262144; // bytes: more than a chain of certificates may have

    private const SOL_SOCKET = 1;
    private const SO_RCVTIMEO = 20;
    private const SO_SNDTIMEO = 21;
    private const F_GETFL = 3;
    private const F_SETFL = 4;
    private const F_DUPFD_CLOEXEC = 1030;
    private const O_NONBLOCK = 2048;

    private bool $atEnd = false;
    private bool $timedOut = false;
    private bool $waits = true;
    private static ?FFI\CData $room = null;

    private function __construct(private int $fd)
    {
    }

    /** Two objects would close one descriptor twice. */
    private function __clone()
    {
    }

    /**
     * Connect to a TLS server, which is verified to be `$host`, or the option `peer_name`.
     *
     * @param array<string, mixed> $options as docs/php.md lists them
     */
    public static function connect(string $host, int|string $port, array $options = []): self
    {
        $asked = new Options($options);
        $struct = $asked->struct();
        $connection = new self(Library::checked(Library::functions()->ssa_connect_tls($host, (string) $port, FFI::addr($struct))));
        $connection->setTimeout($asked->timeout());
        return $connection;
    }

    /**
     * Start TLS on a plain connection that is in use (STARTTLS), as the client.
     *
     * The stream is closed, whatever comes of it: nothing can be sent in plain text on it any more.
     *
     * @param resource $stream of stream_socket_client() or fsockopen()
     * @param array<string, mixed> $options as docs/php.md lists them
     */
    public static function upgrade(mixed $stream, string $host, array $options = []): self
    {
        return self::upgradeAs(1, $stream, ['peer_name' => $host] + $options);
    }

    /**
     * Start TLS on a plain connection that was accepted, as the server.
     *
     * @param resource $stream of stream_socket_accept()
     * @param array<string, mixed> $options as docs/php.md lists them
     */
    public static function upgradeServer(mixed $stream, array $options = []): self
    {
        return self::upgradeAs(2, $stream, $options);
    }

    private static function upgradeAs(int $role, mixed $stream, array $options): self
    {
        try {
            $asked = new Options($options);
            $fd = Plain::descriptorOf($stream);
            $connection = new self(Library::plainly(Library::functions()->fcntl($fd, self::F_DUPFD_CLOEXEC, 3), 'dup'));
            $connection->upgradeHere($role, $asked);
            return $connection;
        } finally {
            Plain::close($stream);
        }
    }

    private function upgradeHere(int $role, Options $asked): void
    {
        try {
            $this->setBlocking(true);
            $this->setTimeout($asked->timeout());
            $role === 1 ? $asked->applyToClient($this->fd) : $asked->applyToServer($this->fd);
            Library::set($this->fd, Tables::IPPROTO_TLS, Tables::TLS_UPGRADE, pack('l', $role));
        } catch (SsaException $exception) {
            $this->abandon();
            throw $exception;
        }
    }

    private function abandon(): void
    {
        Library::functions()->shutdown($this->fd, 2);
        $this->close();
    }

    /** For Listener: a connection that was accepted. */
    public static function accepted(int $fd): self
    {
        return new self($fd);
    }

    /** The connection of a stream that fopen('ssa://...') or stream() made. */
    public static function of(mixed $stream): self
    {
        $wrapper = stream_get_meta_data($stream)['wrapper_data'] ?? null;
        return $wrapper instanceof StreamWrapper ? $wrapper->connection() : throw SsaException::because('BAD_VALUE', 'the stream is none of ssa');
    }

    public function __destruct()
    {
        $this->close();
    }

    /** The descriptor's number, -1 where it is closed. It stays this object's. */
    public function descriptor(): int
    {
        return $this->fd;
    }

    // --- reading and writing ---

    /**
     * Read up to `$size` bytes. Empty: the end (eof() is true then), or nothing has come (in time, or at all where it
     * does not wait).
     *
     * A stream that is cut throws SsaException with ECONNABORTED, as its end came without close_notify.
     */
    public function read(int $size = self::LARGEST): string
    {
        $size = min(max($size, 1), self::LARGEST);
        $room = self::$room ??= Library::bytes(self::LARGEST);
        do {
            $got = Library::functions()->ssa_recv($this->opened(), $room, $size);
        } while ($got < 0 && Library::errno() === Tables::EINTR);
        $this->timedOut = $got < 0 && Library::errno() === Tables::EAGAIN && $this->waits;
        if ($got < 0 && Library::errno() === Tables::EAGAIN) {
            return '';
        }
        $this->atEnd = $got <= 0;
        return FFI::string($room, Library::checked($got));
    }

    /** Read to the end. */
    public function readAll(): string
    {
        $all = '';
        while (!$this->eof() && !$this->timedOut) {
            $all .= $this->read();
        }
        return $this->timedOut ? throw new SsaException('nothing came in time', Tables::ETIMEDOUT, '', 'network') : $all;
    }

    /** Whether a read has met the end, or the failure that ended the connection. */
    public function eof(): bool
    {
        return $this->atEnd;
    }

    /** Whether the last read ended because nothing came in time. */
    public function timedOut(): bool
    {
        return $this->timedOut;
    }

    /** Write. How many bytes were written: all, but where it does not wait or has a timeout. */
    public function write(string $data): int
    {
        $written = 0;
        while ($written < \strlen($data)) {
            $sent = Library::functions()->ssa_send($this->opened(), substr($data, $written), \strlen($data) - $written);
            if ($sent < 0 && Library::errno() === Tables::EAGAIN) {
                break;
            }
            $written += $sent < 0 && Library::errno() === Tables::EINTR ? 0 : Library::checked($sent);
        }
        return $written;
    }

    /** End our half (close_notify): the peer reads its end, and reading goes on. */
    public function shutdown(): void
    {
        Library::checked(Library::functions()->shutdown($this->opened(), 1));
    }

    /** End the stream in order and close the descriptor. */
    public function close(): void
    {
        if ($this->fd >= 0) {
            Library::functions()->ssa_close($this->fd);
            $this->fd = -1;
        }
    }

    private function opened(): int
    {
        return $this->fd >= 0 ? $this->fd : throw new SsaException('the connection is closed', Tables::EBADF, '', 'caller');
    }

    // --- how it waits ---

    public function setBlocking(bool $waits): void
    {
        $functions = Library::functions();
        $flags = Library::plainly($functions->fcntl($this->opened(), self::F_GETFL), 'fcntl');
        $wanted = $waits ? $flags & ~self::O_NONBLOCK : $flags | self::O_NONBLOCK;
        Library::plainly($functions->fcntl($this->fd, self::F_SETFL, $wanted), 'fcntl');
        $this->waits = $waits;
    }

    /** How long a read or a write waits, in seconds; null or 0: for ever. */
    public function setTimeout(?float $seconds): void
    {
        $value = pack('qq', (int) ($seconds ?? 0), (int) (fmod($seconds ?? 0, 1) * 1000000));
        foreach ([self::SO_RCVTIMEO, self::SO_SNDTIMEO] as $name) {
            Library::set($this->opened(), self::SOL_SOCKET, $name, $value);
        }
    }

    /** Wait until a read would give something: whether it is so in time. Null: for ever. */
    public function isReadable(?float $seconds = 0.0): bool
    {
        return Library::isReadable($this->opened(), $seconds);
    }

    // --- what is known of it ---

    /**
     * The connection, as ssad has told.
     *
     * @return array{version: string, cipher: string, alpn: string, identity: string, server_name: string, resumed: bool, id: int}
     */
    public function info(): array
    {
        return [
            'version' => $this->text(Tables::TLS_VERSION_CONN),
            'cipher' => $this->text(Tables::TLS_CHOSEN_CIPHER),
            'alpn' => $this->text(Tables::TLS_ALPN),
            'identity' => $this->text(Tables::TLS_PEER_IDENTITY),
            'server_name' => $this->text(Tables::TLS_HOSTNAME),
            'resumed' => $this->number(Tables::TLS_RESUMED_SESSION) === 1,
            'id' => $this->number(Tables::TLS_ID),
        ];
    }

    /** The certificates that the peer has sent, PEM, its own first; empty: it sent none. */
    public function peerCertificates(): string
    {
        return $this->text(Tables::TLS_PEER_CERTIFICATE_CHAIN, self::CHAIN);
    }

    /** The peer's address and port, as "192.0.2.1:443" or "[2001:db8::1]:443". */
    public function peerName(): string
    {
        return Address::of($this->opened(), 'getpeername');
    }

    public function localName(): string
    {
        return Address::of($this->opened(), 'getsockname');
    }

    private function text(int $name, int $room = 1024): string
    {
        return Library::get($this->opened(), $name, $room);
    }

    private function number(int $name): int
    {
        $value = Library::get($this->opened(), $name, 8);
        return unpack('P', str_pad($value, 8, "\0"))[1];
    }

    /**
     * The connection as a stream of PHP's, for fgets(), stream_copy_to_stream() and the like. It is closed with it.
     *
     * @return resource
     */
    public function stream(): mixed
    {
        return StreamWrapper::over($this);
    }
}
