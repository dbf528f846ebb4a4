import sys

from anyio import connect_tcp, run


async def main():
    async with await connect_tcp("localhost", int(sys.argv[1]), tls=True, tls_standard_compatible=False) as client:
        await client.send(b"GET /hello HTTP/1.0\r\nHost: localhost\r\n\r\n")
        print(await client.receive())


run(main)
