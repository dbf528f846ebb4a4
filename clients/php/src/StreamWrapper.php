<?php

declare(strict_types=1);

namespace Ssa;

/**
 * ssa://HOST:PORT for fopen() and all that takes a stream. Failures are warnings, as of PHP's own streams.
 *
 * The methods' names are PHP's (https://www.php.net/manual/en/class.streamwrapper.php).
 */
final class StreamWrapper
{
    /** @var resource|null PHP puts the stream's context here */
    public $context;

    private ?Connection $connection = null;
    private bool $isBroken = false;

    /** @var resource|null for stream_select */
    private $selectable;

    private static ?Connection $given = null;
    private static ?SsaException $last = null;

    /** Make `ssa://` known to PHP. autoload.php and Composer's autoloader call it. */
    public static function register(): void
    {
        if (!\in_array('ssa', stream_get_wrappers(), true)) {
            stream_wrapper_register('ssa', self::class, STREAM_IS_URL);
        }
    }

    /** Why the last call on a stream of this kind failed; null: none has. */
    public static function lastError(): ?SsaException
    {
        return self::$last;
    }

    /** For Connection::stream(). */
    public static function over(Connection $connection): mixed
    {
        self::register();
        self::$given = $connection;
        try {
            return fopen('ssa://connection', 'r+');
        } finally {
            self::$given = null;
        }
    }

    public function connection(): Connection
    {
        return $this->connection;
    }

    // --- PHP calls these ---

    public function stream_open(string $url, string $mode, int $options, ?string &$opened): bool
    {
        try {
            $this->connection = self::$given ?? $this->connect($url);
        } catch (SsaException $exception) {
            self::$last = $exception;
            trigger_error($exception->getMessage(), E_USER_WARNING);
            return false;
        }
        return true;
    }

    private function connect(string $url): Connection
    {
        $parts = parse_url($url);
        if (!isset($parts['host'], $parts['port']) || \array_diff_key($parts, ['scheme' => 1, 'host' => 1, 'port' => 1, 'path' => 1]) || ($parts['path'] ?? '/') !== '/') {
            throw SsaException::because('BAD_VALUE', "$url: it is ssa://HOST:PORT; what else a program wants goes into the stream's context");
        }
        $asked = \is_resource($this->context) ? stream_context_get_options($this->context)['ssa'] ?? [] : [];
        $asked += ['timeout' => (float) \ini_get('default_socket_timeout')];
        return Connection::connect(trim($parts['host'], '[]'), $parts['port'], $asked);
    }

    public function stream_read(int $count): string|false
    {
        return $this->reported(fn () => $this->connection->read($count));
    }

    public function stream_write(string $data): int|false
    {
        return $this->reported(fn () => $this->connection->write($data));
    }

    public function stream_eof(): bool
    {
        return $this->isBroken || $this->connection->eof();
    }

    public function stream_flush(): bool
    {
        return true; // nothing is kept here
    }

    public function stream_close(): void
    {
        if (\is_resource($this->selectable)) {
            fclose($this->selectable);
        }
        $this->connection?->close();
    }

    public function stream_set_option(int $option, int $first, ?int $second): bool
    {
        return match ($option) {
            STREAM_OPTION_BLOCKING => $this->reported(fn () => $this->connection->setBlocking($first === 1)) !== false,
            STREAM_OPTION_READ_TIMEOUT => $this->reported(fn () => $this->connection->setTimeout($first + $second / 1000000)) !== false,
            default => false,
        };
    }

    /** A stream of PHP's own on the same socket, which stream_select() takes. PHP opens one on the command line only. */
    public function stream_cast(int $as)
    {
        if ($as !== STREAM_CAST_FOR_SELECT) {
            return false; // PHP says that it is no file
        }
        if (PHP_SAPI !== 'cli') {
            trigger_error('ssa: stream_select() works in command-line PHP; elsewhere Ssa\Connection::isReadable() does', E_USER_WARNING);
            return false;
        }
        return $this->selectable ??= fopen("php://fd/{$this->connection->descriptor()}", 'r+');
    }

    public function stream_stat(): array|false
    {
        return false;
    }

    /** What an action gives; false, with a warning, where it throws. */
    private function reported(callable $act): mixed
    {
        try {
            return $act();
        } catch (SsaException $exception) {
            self::$last = $exception;
            $this->isBroken = true;
            trigger_error($exception->getMessage(), E_USER_WARNING);
            return false;
        }
    }
}
