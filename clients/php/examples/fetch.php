<?php

declare(strict_types=1);

// php fetch.php https://HOST[:PORT]/PATH: fetch a page. The server is verified under the administrator's policy.

require \dirname(__DIR__) . '/autoload.php';

use Ssa\Connection;
use Ssa\SsaException;

function fail(string $why, int $status = 1): never
{
    fwrite(STDERR, "fetch.php: $why\n");
    exit($status);
}

/** The status and the body of an answer. */
function fetch(string $host, int $port, string $path): array
{
    $stream = Connection::connect($host, $port, ['alpn_protocols' => 'http/1.1', 'timeout' => 30])->stream();
    fwrite($stream, "GET $path HTTP/1.0\r\nHost: $host\r\n\r\n");
    $status = (int) (explode(' ', (string) fgets($stream))[1] ?? 0);
    while (rtrim((string) fgets($stream)) !== '');
    return [$status, stream_get_contents($stream)];
}

$url = parse_url($argv[1] ?? '');
if (!isset($url['host'])) {
    fail('usage: php fetch.php https://HOST[:PORT]/PATH', 2);
}
try {
    [$status, $body] = fetch(trim($url['host'], '[]'), $url['port'] ?? 443, $url['path'] ?? '/');
} catch (SsaException $exception) {
    fail($exception->getMessage());
}
$status === 200 || fail("the server answers $status");
echo $body;
