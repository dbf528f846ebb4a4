import asyncio
import sys

from websockets.asyncio.client import connect


async def hello():
    async with connect(f"wss://localhost:{sys.argv[1]}") as websocket:
        await websocket.send("Hello world!")
        print(await websocket.recv())


asyncio.run(hello())
