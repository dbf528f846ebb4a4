import asyncio
import sys

import redis.asyncio as redis


async def main():
    r = redis.Redis(host="localhost", port=int(sys.argv[1]), ssl=True)
    await r.set("foo", "bar")
    print(await r.get("foo"))
    await r.aclose()


asyncio.run(main())
