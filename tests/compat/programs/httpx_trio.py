import sys

import httpx
import trio


async def main():
    async with httpx.AsyncClient() as client:
        r = await client.get(f"https://localhost:{sys.argv[1]}/hello")
    print(r, r.text)


trio.run(main)
