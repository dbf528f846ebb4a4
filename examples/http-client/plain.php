<?php

// http_client HOST PORT PATH: prints what a web server has there.

if ($argc != 4) {
    fwrite(STDERR, "usage: http_client HOST PORT PATH\n");
    exit(2);
}
[, $host, $port, $path] = $argv;
$connection = stream_socket_client("tcp://$host:$port");
if (!$connection) {
    exit(1); // PHP has said why
}
fwrite($connection, "GET $path HTTP/1.0\r\nHost: $host\r\n\r\n");
while (!feof($connection)) {
    $data = fread($connection, 16384);
    if ($data === false) {
        exit(1);
    }
    echo $data;
}
fclose($connection);
