import asyncio
import sys


async def main():
    reader, writer = await asyncio.open_connection("localhost", int(sys.argv[1]), ssl=True)
    writer.write(b"GET /hello HTTP/1.0\r\nHost: localhost\r\n\r\n")
    await writer.drain()
    print(await reader.read())
    writer.close()
    await writer.wait_closed()


asyncio.run(main())
