<?php

declare(strict_types=1);

// Plays cases of conformance.json by the classes of clients/php, as player.py does by Python's libraries.

require \dirname(__DIR__, 2) . '/clients/php/autoload.php';

use Ssa\Connection;
use Ssa\Listener;
use Ssa\SsaException;

const OPTIONS = [
    'TLS_REMOTE_HOSTNAME' => 'peer_name', 'TLS_ALPN' => 'alpn_protocols', 'TLS_TRUSTED_PEER_CERTIFICATES' => 'cafile',
    'TLS_CERTIFICATE_CHAIN' => 'local_cert', 'TLS_PRIVATE_KEY' => 'local_pk', 'TLS_VERSION_MIN' => 'min_version',
];
const INFO = [
    'TLS_VERSION_CONN' => 'version', 'TLS_CHOSEN_CIPHER' => 'cipher', 'TLS_ALPN' => 'alpn', 'TLS_HOSTNAME' => 'server_name',
    'TLS_PEER_IDENTITY' => 'identity', 'TLS_RESUMED_SESSION' => 'resumed',
];

function tell(array $words): void
{
    fwrite(STDOUT, json_encode($words) . "\n");
}

function name_of(int $errno): string
{
    foreach (['EBADF' => 9, 'EKEYREJECTED' => 129, 'EKEYEXPIRED' => 127] as $name => $number) {
        if ($number === $errno) {
            return $name;
        }
    }
    foreach (get_defined_constants(true)['sockets'] as $name => $number) {
        if ($number === $errno && str_starts_with($name, 'SOCKET_E') && !\in_array($name, ['SOCKET_EWOULDBLOCK'], true)) {
            return substr($name, 7);
        }
    }
    return (string) $errno;
}

function pattern(int $count): string
{
    return str_repeat(implode('', array_map('chr', range(0, 255))), intdiv($count, 256));
}

/** One socket of a case: what is wanted of it, and what it has become. */
final class Held
{
    public array $options = [];
    public bool $hasFailed = false;
    public Connection|Listener|null $live = null;
    public mixed $plain = null;
    public array $address = [];
}

final class Player
{
    /** @var array<string, Held> */
    private array $named = [];

    public function play(string $call, mixed ...$arguments): mixed
    {
        if (!method_exists($this, $call)) {
            return ['lacks' => $call];
        }
        try {
            return $this->$call(...$arguments);
        } catch (SsaException $exception) {
            return ['errno' => name_of($exception->errno)];
        }
    }

    private function connection(string $name): Connection
    {
        $live = $this->named[$name]->live;
        return $live instanceof Connection ? $live : throw new SsaException('it is not connected', SOCKET_ENOTCONN);
    }

    public function socket(string $name): void
    {
        $this->named[$name] = new Held();
    }

    public function set(string $name, string $option, mixed $value): mixed
    {
        $held = $this->named[$name];
        if ($option === 'TLS_UPGRADE' && $held->plain !== null) {
            $host = $held->options['peer_name'];
            $held->live = Connection::upgrade($held->plain, $host, $held->options);
            $held->plain = null;
            return null;
        }
        if ($held->live !== null || $held->hasFailed || !isset(OPTIONS[$option])) {
            return ['lacks' => 'set'];
        }
        $held->options[OPTIONS[$option]] = $value;
        return null;
    }

    public function get(string $name, string $option): mixed
    {
        if (!isset(INFO[$option]) || (isset(OPTIONS[$option]) && $this->named[$name]->live === null)) {
            return ['lacks' => 'get'];
        }
        return $this->connection($name)->info()[INFO[$option]];
    }

    public function number(string $name, string $option): mixed
    {
        $value = $option === 'TLS_UPGRADE' ? ['lacks' => 'number'] : $this->get($name, $option);
        return ['TLSv1.2' => 771, 'TLSv1.3' => 772, '' => 0, '1' => 1][\is_array($value) ? 'none' : (string) $value] ?? $value;
    }

    public function connect(string $name, string $host, int $port): mixed
    {
        $held = $this->named[$name];
        if ($held->live !== null || $held->hasFailed) {
            return ['lacks' => 'connect'];
        }
        try {
            $held->live = Connection::connect($host, $port, $held->options);
        } catch (SsaException $exception) {
            $held->hasFailed = $exception->errno !== SOCKET_ECONNREFUSED;
            throw $exception;
        }
        return null;
    }

    public function bare(string $name, string $host, int $port): void
    {
        $this->named[$name] = new Held();
        $this->named[$name]->live = Connection::connect($host, $port);
    }

    public function plain(string $name, string $host, int $port): void
    {
        $this->named[$name] = new Held();
        $this->named[$name]->plain = stream_socket_client("tcp://$host:$port");
    }

    public function send(string $name, string $text): int
    {
        return $this->connection($name)->write($text);
    }

    public function write(string $name, string $text): int
    {
        return $this->send($name, $text);
    }

    public function sendall(string $name, int $count): void
    {
        $this->connection($name)->write(pattern($count));
    }

    public function sendfile(string $name, string $file, int $offset = 0): int
    {
        return $this->connection($name)->write(file_get_contents($file, false, null, $offset));
    }

    public function recv(string $name, int $size): string
    {
        return $this->connection($name)->read($size);
    }

    public function recv_count(string $name, int $count): array
    {
        $got = $this->taken($name, $count);
        return [\strlen($got), $got === substr(pattern($count + 256), 0, \strlen($got))];
    }

    private function taken(string $name, int $count): string
    {
        $got = '';
        while (\strlen($got) < $count && ($data = $this->connection($name)->read(min(100000, $count - \strlen($got)))) !== '') {
            $got .= $data;
        }
        return $got;
    }

    public function gather(string $name, int $count): string
    {
        $got = '';
        while (\strlen($got) < $count && ($data = $this->connection($name)->read(100)) !== '') {
            $got .= $data;
        }
        return $got;
    }

    public function poll(string $name, string $events, float $seconds): mixed
    {
        $live = $this->named[$name]->live;
        return $events === 'in' ? Ssa\Library::isReadable($live->descriptor(), $seconds) : ['lacks' => 'poll'];
    }

    public function blocking(string $name, int $waits): mixed
    {
        if ($this->named[$name]->live === null) {
            return ['lacks' => 'blocking'];
        }
        $this->connection($name)->setBlocking($waits === 1);
        return null;
    }

    public function shutdown(string $name, string $how): void
    {
        $this->connection($name)->shutdown();
    }

    public function close(string $name): void
    {
        $this->named[$name]->live?->close();
        unset($this->named[$name]);
    }

    public function peername(string $name): string
    {
        return explode(':', $this->connection($name)->peerName())[0];
    }

    public function bind(string $name, string $host, int $port): void
    {
        $this->named[$name]->address = [$host, $port];
    }

    public function listen(string $name): mixed
    {
        $held = $this->named[$name];
        if ($held->address === []) {
            return ['lacks' => 'listen'];
        }
        $held->live = Listener::listen($held->address[0], $held->address[1], $held->options);
        return null;
    }

    public function port(string $name): void
    {
        tell(['port' => (int) explode(':', $this->named[$name]->live->name())[1]]);
        fgets(STDIN);
    }

    public function accept(string $name, string $accepted): mixed
    {
        if (!$this->named[$name]->live instanceof Listener) {
            return ['lacks' => 'accept'];
        }
        $this->named[$accepted] = new Held();
        $this->named[$accepted]->live = $this->named[$name]->live->accept();
        return $this->peername($accepted);
    }
}

while (($line = fgets(STDIN)) !== false) {
    $player = new Player();
    tell(['results' => array_map(static fn (array $step) => $player->play(...$step), json_decode($line))]);
}
