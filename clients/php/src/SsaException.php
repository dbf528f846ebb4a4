<?php

declare(strict_types=1);

namespace Ssa;

/** Why a call failed. Its code is the errno. */
final class SsaException extends \RuntimeException
{
    /**
     * @param int $errno the system's error number
     * @param string $reason the name of ssad's reason, as docs/library.md lists them; empty: it was none of ssad's
     * @param string $whoseFault peer, policy, caller, network or system
     */
    public function __construct(
        string $message,
        public readonly int $errno,
        public readonly string $reason = '',
        public readonly string $whoseFault = 'system',
    ) {
        parent::__construct($message, $errno);
    }

    /** The error of a reason of the table. */
    public static function because(string $reason, string $detail, ?int $errno = null): self
    {
        $row = Tables::REASONS[$reason] ?? null;
        $text = $row === null ? $detail : rtrim("{$row['text']}: $detail", ': ');
        return self::told($reason, $text, $errno ?? $row['errno']);
    }

    /** The error of a failed call of libssa, with libssa's words. */
    public static function told(string $reason, string $text, int $errno): self
    {
        $row = Tables::REASONS[$reason] ?? null;
        $advice = $row !== null && $row['advice'] !== '' ? ". {$row['advice']}" : '';
        $message = $reason === '' ? $text : "[$reason] $text$advice";
        return new self($message, $errno, $reason, $row['fault'] ?? 'system');
    }
}
