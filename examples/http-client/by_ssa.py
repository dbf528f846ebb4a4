"""http_client HOST PORT PATH: prints what a web server has there."""

import sys

import ssa


def main() -> int:
    """Run the program. Returns its exit status."""
    if len(sys.argv) != 4:
        print("usage: http_client HOST PORT PATH", file=sys.stderr)
        return 2
    host, port, path = sys.argv[1:]
    try:
        with ssa.create_connection((host, int(port))) as connection:
            connection.sendall(f"GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
            while data := connection.recv(16384):
                sys.stdout.buffer.write(data)
    except OSError as failure:
        print(f"{host}: {failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
