import sys

import trio


async def main():
    s = await trio.open_ssl_over_tcp_stream("localhost", int(sys.argv[1]), https_compatible=True)
    async with s:
        await s.send_all(b"GET /hello HTTP/1.0\r\nHost: localhost\r\n\r\n")
        print(await s.receive_some())


trio.run(main)
