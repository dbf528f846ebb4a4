import asyncio
import ssl
import sys

from websockets.asyncio.server import serve


async def echo(websocket):
    async for message in websocket:
        await websocket.send(message)


async def main():
    port, cert, key = sys.argv[1:]
    ssl_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ssl_context.load_cert_chain(cert, key)
    async with serve(echo, "localhost", int(port), ssl=ssl_context) as server:
        await server.serve_forever()


asyncio.run(main())
