<?php

declare(strict_types=1);

namespace Ssa;

use FFI;

/** A listener: each connection that it gives has made its handshake, in ssad. */
final class Listener
{
    private const SOL_SOCKET = 1;
    private const SO_REUSEADDR = 2;
    private const SOCK_STREAM_CLOEXEC = 1 | 02000000;

    private function __construct(private int $fd)
    {
    }

    /** Two objects would close one descriptor twice. */
    private function __clone()
    {
    }

    /**
     * Listen at an address. Without `local_cert` the administrator's certificates serve.
     *
     * @param array<string, mixed> $options as docs/php.md lists them
     */
    public static function listen(string $address, int $port, array $options = []): self
    {
        $asked = new Options($options);
        [$family, $packed] = Address::packed($address, $port);
        $functions = Library::functions();
        $listener = new self(Library::checked($functions->socket($family, self::SOCK_STREAM_CLOEXEC, Tables::IPPROTO_TLS)));
        Library::set($listener->fd, self::SOL_SOCKET, self::SO_REUSEADDR, pack('l', 1));
        $asked->applyToServer($listener->fd);
        Library::plainly($functions->bind($listener->fd, $packed, \strlen($packed)), "bind to $address, port $port");
        Library::checked($functions->listen($listener->fd, $asked->backlog()));
        return $listener;
    }

    /** The next connection; null: none came in time. Null seconds: it waits for ever. */
    public function accept(?float $seconds = null): ?Connection
    {
        $fd = $this->fd >= 0 ? $this->fd : throw new SsaException('the listener is closed', Tables::EBADF, '', 'caller');
        if (!Library::isReadable($fd, $seconds)) {
            return null;
        }
        do {
            $accepted = Library::functions()->accept4($fd, null, null, 02000000); // SOCK_CLOEXEC
        } while ($accepted < 0 && Library::errno() === Tables::EINTR);
        return Connection::accepted(Library::checked($accepted));
    }

    /** The descriptor's number, -1 where it is closed. It can be read when a connection is ready. */
    public function descriptor(): int
    {
        return $this->fd;
    }

    /** Where it listens, as "127.0.0.1:443". */
    public function name(): string
    {
        return Address::of($this->fd, 'getsockname');
    }

    public function close(): void
    {
        if ($this->fd >= 0) {
            Library::functions()->close($this->fd);
            $this->fd = -1;
        }
    }

    public function __destruct()
    {
        $this->close();
    }
}
