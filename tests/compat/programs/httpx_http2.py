import asyncio
import sys

import httpx


async def main():
    async with httpx.AsyncClient(http2=True) as client:
        r = await client.get(f"https://localhost:{sys.argv[1]}/hello")
    assert r.http_version == "HTTP/2"
    print(r, r.text)


asyncio.run(main())
