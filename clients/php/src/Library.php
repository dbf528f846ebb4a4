<?php

declare(strict_types=1);

namespace Ssa;

use FFI;

/** libssa, by way of FFI: its functions, and how their failures become exceptions. */
final class Library
{
    private const FUNCTIONS = '
        struct ssa_options {
            int timeout;
            const char *alpn;
            const char *server_hostname;
            const char *certificate;
            const char *private_key;
            const char *trusted;
            const char *source_address;
            const char *source_service;
            const char *version_min;
            const char *version_max;
            const char *disable_cipher;
        };
        struct pollfd { int fd; short events, revents; };
        struct timeval { long seconds, microseconds; };
        int ssa_connect_tls(const char *host, const char *service, const struct ssa_options *options);
        ssize_t ssa_recv(int fd, void *data, size_t size);
        ssize_t ssa_send(int fd, const void *data, size_t size);
        int ssa_close(int fd);
        const char *ssa_error(void);
        const char *ssa_reason(void);
        int socket(int family, int type, int protocol);
        int bind(int fd, const void *address, unsigned size);
        int listen(int fd, int backlog);
        int accept4(int fd, void *address, unsigned *size, int flags);
        int shutdown(int fd, int how);
        int close(int fd);
        int fcntl(int fd, int command, ...);
        int setsockopt(int fd, int level, int name, const void *value, unsigned size);
        int getsockopt(int fd, int level, int name, void *value, unsigned *size);
        int getpeername(int fd, void *address, unsigned *size);
        int getsockname(int fd, void *address, unsigned *size);
        int poll(struct pollfd *descriptors, unsigned long count, int milliseconds);
        int *__errno_location(void);
        char *strerror(int number);
    ';

    private static ?FFI $functions = null;

    /** The functions of libssa. Throws SsaException (ENOSYS) where FFI or libssa is not there. */
    public static function functions(): FFI
    {
        return self::$functions ??= self::load();
    }

    private static function load(): FFI
    {
        if (!\extension_loaded('ffi')) {
            throw self::refused("PHP's extension FFI is not loaded: install it (Debian: php-cli or php-fpm has it) and put `extension=ffi` into php.ini");
        }
        try {
            return FFI::cdef(self::FUNCTIONS, self::path());
        } catch (FFI\Exception $exception) {
            throw self::refused(self::advice($exception->getMessage()));
        }
    }

    private static function refused(string $why): SsaException
    {
        return new SsaException("ssa needs FFI and libssa.so: $why", Tables::ENOSYS, '', 'system');
    }

    private static function advice(string $message): string
    {
        if (str_contains($message, 'ffi.enable')) {
            return 'php.ini forbids FFI (ffi.enable); put `ffi.enable = preload` and `opcache.preload = '
                . \dirname(__DIR__) . '/preload.php` there, or `ffi.enable = true`, or start php with -d ffi.enable=true';
        }
        return "$message; `make native` in a checkout of ssa builds libssa.so, and the environment variable SSA_LIBSSA says where it is";
    }

    /** The environment's SSA_LIBSSA; a checkout's own; or what the dynamic linker finds. */
    private static function path(): string
    {
        $built = \dirname(__DIR__, 3) . '/build/native/libssa.so';
        return getenv('SSA_LIBSSA') ?: (is_file($built) ? $built : 'libssa.so');
    }

    public static function errno(): int
    {
        return self::functions()->__errno_location()[0];
    }

    /** What a function of libssa gave, or the exception that its failure is. */
    public static function checked(int $done): int
    {
        if ($done < 0) {
            throw self::failure();
        }
        return $done;
    }

    /** The exception of libssa's last failure. */
    public static function failure(): SsaException
    {
        $errno = self::errno();
        return SsaException::told(self::functions()->ssa_reason(), self::functions()->ssa_error(), $errno);
    }

    /** What a function of libc gave, or the exception that its failure is: libssa has no words for it. */
    public static function plainly(int $done, string $what): int
    {
        if ($done < 0) {
            $errno = self::errno();
            throw new SsaException("$what: " . self::text(self::functions()->strerror($errno)), $errno);
        }
        return $done;
    }

    /** A C string as PHP's. */
    public static function text(FFI\CData|string $text): string
    {
        return \is_string($text) ? $text : FFI::string($text);
    }

    /** Memory of so many bytes. */
    public static function bytes(int $size): FFI\CData
    {
        return self::functions()->new("char[$size]");
    }

    /** A value for setsockopt, and its size. */
    public static function set(int $fd, int $level, int $name, string $value): void
    {
        self::checked(self::functions()->setsockopt($fd, $level, $name, $value, \strlen($value)));
    }

    /** What getsockopt gives, as bytes. */
    public static function get(int $fd, int $name, int $room = 1024): string
    {
        $functions = self::functions();
        $value = self::bytes($room);
        $size = $functions->new('unsigned');
        $size->cdata = $room;
        self::checked($functions->getsockopt($fd, Tables::IPPROTO_TLS, $name, $value, FFI::addr($size)));
        return FFI::string($value, $size->cdata);
    }

    /** Wait until a descriptor is ready: whether it is in time. Null: for ever. */
    public static function isReadable(int $fd, ?float $seconds): bool
    {
        $functions = self::functions();
        $poll = $functions->new('struct pollfd');
        $poll->fd = $fd;
        $poll->events = 1; // POLLIN
        do {
            $found = $functions->poll(FFI::addr($poll), 1, $seconds === null ? -1 : (int) ceil($seconds * 1000));
        } while ($found < 0 && self::errno() === Tables::EINTR);
        return self::plainly($found, 'poll') > 0;
    }
}
