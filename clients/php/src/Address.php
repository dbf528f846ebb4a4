<?php

declare(strict_types=1);

namespace Ssa;

use FFI;

/** Addresses of sockets, as struct sockaddr_in and sockaddr_in6 have them. */
final class Address
{
    private const AF_INET = 2;
    private const AF_INET6 = 10;
    private const ROOM = 128; // struct sockaddr_storage

    /** The family and the bytes of an address in numbers. */
    public static function packed(string $host, int $port): array
    {
        $bytes = @inet_pton($host);
        if ($bytes === false) {
            throw SsaException::because('BAD_VALUE', "$host is no address: a listener takes one in numbers");
        }
        return \strlen($bytes) === 4
            ? [self::AF_INET, pack('Sna4x8', self::AF_INET, $port, $bytes)]
            : [self::AF_INET6, pack('SnNa16L', self::AF_INET6, $port, 0, $bytes, 0)];
    }

    /** What getpeername or getsockname say of a socket. */
    public static function of(int $fd, string $function): string
    {
        $functions = Library::functions();
        $room = Library::bytes(self::ROOM);
        $size = $functions->new('unsigned');
        $size->cdata = self::ROOM;
        Library::plainly($functions->$function($fd, $room, FFI::addr($size)), $function);
        return self::text(FFI::string($room, self::ROOM));
    }

    private static function text(string $address): string
    {
        ['family' => $family, 'port' => $port] = unpack('Sfamily/nport', $address);
        return $family === self::AF_INET
            ? inet_ntop(substr($address, 4, 4)) . ":$port"
            : '[' . inet_ntop(substr($address, 8, 16)) . "]:$port";
    }
}
