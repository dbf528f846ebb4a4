<?php

declare(strict_types=1);

namespace Ssa;

/** A plain stream of PHP's that is to be upgraded. PHP does not say which descriptor it has: its inode tells. */
final class Plain
{
    /** @param resource $stream */
    public static function descriptorOf(mixed $stream): int
    {
        if (!\is_resource($stream) || get_resource_type($stream) !== 'stream') {
            throw SsaException::because('BAD_VALUE', 'only a stream of stream_socket_client() and its like can be upgraded');
        }
        if (stream_get_meta_data($stream)['unread_bytes'] > 0) {
            throw SsaException::because('PLAINTEXT_PENDING', 'the program has read it already');
        }
        $inode = fstat($stream)['ino'] ?? 0;
        foreach (scandir('/proc/self/fd') as $name) {
            if (is_link("/proc/self/fd/$name") && readlink("/proc/self/fd/$name") === "socket:[$inode]") {
                return (int) $name;
            }
        }
        throw SsaException::because('NOT_TCP', 'the stream has no socket');
    }

    public static function close(mixed $stream): void
    {
        if (\is_resource($stream)) {
            fclose($stream);
        }
    }
}
